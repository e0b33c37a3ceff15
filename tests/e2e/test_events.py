"""$file-event/…: what ordinary subscribers learn, and who may subscribe."""

import json

from harness import ALL, BOTH, V5, cases, eq, sha256, yes


def event(listener, kind):
    message = listener.message()
    eq((message.topic, message.retain), (f"$file-event/{kind}", 0), "event")
    return json.loads(message.payload)


@cases(version=BOTH)
def test_exported(t, version):
    d = t.daemon("events.subscribers=listener")
    listener = t.client("listener", version)
    eq(listener.subscribe("$file-event/#").codes, [1], "SUBACK")
    up = t.uploader("Ev É", V5)
    data = b"x" * 50_000
    up.upload("f/1".replace("/", "%"), data, "a b.txt", user_data={"k": [1, None]})
    body = event(listener, "exported")
    seconds = body.pop("seconds")
    path = body.pop("path")
    eq(body, {"clientid": "Ev É", "fileid": "f%1", "name": "a b.txt", "size": 50_000,
              "sha256": sha256(data), "user_data": {"k": [1, None]}}, "event")
    yes(isinstance(seconds, (int, float)) and 0 <= seconds < 60, f"seconds: {seconds}")
    eq((d.export_root / path).read_bytes(), data, "the file at the event's path")


def test_no_event_for_a_replay(t):
    t.daemon("events.subscribers=*")
    listener = t.client("listener")
    listener.subscribe("$file-event/#")
    up = t.uploader("ev")
    up.upload("f", b"data")
    event(listener, "exported")
    up.upload("f", b"data")
    up.fin("f", 4)
    yes(listener.quiet(0.3), "one export, one event")


def test_failed(t):
    t.daemon("events.subscribers=*")
    listener = t.client("listener")
    listener.subscribe("$file-event/failed")
    up = t.uploader("ev")
    up.init("f", "n.txt", user_data="u")
    up.segment("f", 0, b"data")
    up.fin("f", 4, "0" * 64, code=0x80, description="checksum_mismatch")
    body = event(listener, "failed")
    shown = {k: body[k] for k in ("clientid", "fileid", "name", "size", "user_data", "reason")}
    eq(shown, {"clientid": "ev", "fileid": "f", "name": "n.txt", "size": 4, "user_data": "u",
               "reason": "checksum_mismatch"}, "event")


def test_aborted(t):
    t.daemon("events.subscribers=*")
    listener = t.client("listener")
    listener.subscribe("$file-event/aborted")
    up = t.uploader("ev")
    up.init("f", "n.txt")
    up.abort("f")
    body = event(listener, "aborted")
    eq((body["clientid"], body["fileid"], body["name"]), ("ev", "f", "n.txt"), "event")
    up.abort("f")
    yes(listener.quiet(0.2), "nothing to abort, no event")


@cases(version=ALL)
def test_who_may_subscribe(t, version):
    t.daemon("events.subscribers=alice,bob")
    refused = 0x87 if version == V5 else 0x80
    for client_id, code in (("alice", 1), ("bob", 1), ("mallory", refused), ("alic", refused)):
        c = t.client(client_id, version)
        eq(c.subscribe("$file-event/#", "$file-event/exported").codes, [code, code],
           f"SUBACK of {client_id}")


@cases(version=ALL)
def test_nobody_by_default(t, version):
    t.daemon()
    c = t.client("c", version)
    eq(c.subscribe("$file-event/exported").codes, [0x87 if version == V5 else 0x80], "SUBACK")


def test_events_cannot_be_forged(t):
    t.daemon("events.subscribers=*")
    listener = t.client("listener")
    listener.subscribe("$file-event/#")
    c = t.client("c")
    eq(c.publish("$file-event/exported", b"{}").reason, 0x87, "PUBACK")
    yes(listener.quiet(0.2), "nothing arrives")


def test_many_subscribers_on_all_reactors(t):
    t.daemon("reactors=2", "events.subscribers=*")
    listeners = [t.client(f"listener{i}", qos_version) for i, qos_version in
                 enumerate([4, 5, 4, 5, 5, 4])]
    for at, listener in enumerate(listeners):
        listener.subscribe("$file-event/exported", qos=at % 2)
    for at in range(10):
        t.uploader(f"up{at}").upload("f", b"data")
    for listener in listeners:
        seen = {event(listener, "exported")["clientid"] for _ in range(10)}
        eq(seen, {f"up{at}" for at in range(10)}, "events")
