"""abort: deletes the transfer and its bytes, any number of times."""

import re
import time

from harness import ALL, BOTH, V5, cases, eq, some_bytes, until, yes
from rawmqtt import publish_packet


@cases(version=ALL, qos=[0, 1, 2], mode=["$file", "$file-async"])
def test_abort(t, version, qos, mode):
    d = t.daemon()
    up = t.uploader("ab", version)
    up.init("f", size=100_000)
    up.segment("f", 0, some_bytes(50_000))
    eq(len(d.staged_files()), 1, "staging files")
    up.check(f"{mode}/f/abort", b"the payload is ignored", qos)
    until(lambda: not d.staged_files(), "staging is empty")
    eq(up.status("f")["state"], "none", "state")
    up.abort("f", mode, qos)
    up.fin("f", 50_000, code=0x80, description="incomplete", reason_string=re.compile("^incomplete"))
    eq(d.exported_files(), [], "exports")


@cases(version=BOTH)
def test_begin_again_after_abort(t, version):
    """Nothing of the aborted transfer is in the new one."""
    d = t.daemon()
    up = t.uploader("again", version)
    up.init("f", "old.bin")
    up.segment("f", 0, b"old old old")
    up.abort("f")
    up.init("f", "new.bin")
    up.fin_incomplete("f", 11, [[0, 11]])
    up.segment("f", 0, b"new")
    up.fin_incomplete("f", 11, [[3, 11]])
    up.fin("f", 3)
    eq(d.export("again", "f", "new.bin"), b"new", "export")
    eq(len(d.exported_files()), 1, "exports")


def test_abort_after_success_leaves_the_export(t):
    d = t.daemon()
    up = t.uploader("after")
    up.upload("f", b"data")
    up.abort("f")
    eq(d.export("after", "f", "a.bin"), b"data", "export")


def test_abort_in_the_middle_of_a_segment(t):
    """Another segment is on its way on the same connection's pipeline: the abort comes after it."""
    d = t.daemon()
    up = t.uploader("mid")
    data = some_bytes(4 << 20)
    up.init("f")
    up.client.send(publish_packet("$file/f/0", data, 1, 500) +
                   publish_packet("$file/f/abort", b"", 1, 501))
    acks = {p.packet_id: p.reason for p in (up.client.wait(4), up.client.wait(4))}
    eq(acks, {500: 0, 501: 0}, "acks")
    until(lambda: not d.staged_files(), "staging is empty")
    for _ in range(2):
        up.response()
    eq(up.status("f")["state"], "none", "state")


def test_abort_while_verifying(t):
    """fin and abort at once: each gets one answer, and the outcome is one of the two."""
    d = t.daemon()
    up = t.uploader("race", V5)
    data = some_bytes(16 << 20)
    up.upload("f", data, segment_bytes=1 << 20, fin=False)
    up.client.send(publish_packet(f"$file/f/fin/{len(data)}", b"", 1, 900) +
                   publish_packet("$file/f/abort", b"", 1, 901))
    reasons = {p.packet_id: p.reason for p in (up.client.wait(4), up.client.wait(4))}
    eq(sorted(reasons), [900, 901], "acks")
    for _ in range(2):
        up.response()
    if reasons[900] == 0:
        eq(d.export("race", "f", "a.bin"), data, "export")
    else:
        eq(d.exported_files(), [], "exports")
    until(lambda: not d.staged_files(), "staging is empty")


def test_expiry(t):
    """A transfer without activity ends after its ttl; one that makes progress does not."""
    d = t.daemon("transfer.ttl_min=1s", "transfer.ttl_max=2s", "events.subscribers=*")
    listener = t.client("listener")
    listener.subscribe("$file-event/expired")
    up = t.uploader("ttl")
    up.init("idle", segments_ttl=1)
    up.init("busy", segments_ttl=1)
    up.segment("idle", 0, b"x")
    for at in range(16):
        up.segment("busy", at, b"x")
        yes(not listener.backlog or b"busy" not in listener.backlog[0].payload, "busy stays")
        time.sleep(0.2)
    event = listener.message()
    yes(b'"idle"' in event.payload, f"the event names the idle transfer: {event.payload}")
    eq(up.status("idle")["state"], "none", "state of the idle transfer")
    eq(up.status("busy")["state"], "open", "state of the busy transfer")
    until(lambda: len(d.staged_files()) == 1, "one staging file is left")
