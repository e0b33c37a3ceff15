"""status: what a client needs to resume."""

import re
from concurrent.futures import ThreadPoolExecutor

from harness import (ALL, BOTH, V5, V311, cases, check_ack, cover_rest, eq, some_bytes, until,
                     yes)
from rawmqtt import publish_packet


@cases(version=ALL, qos=[0, 1, 2], mode=["$file", "$file-async"])
def test_states(t, version, qos, mode):
    t.daemon()
    up = t.uploader("st", version)
    none = up.status("f", mode, qos)
    eq((none["state"], none["size"], none["received"], none["missing"], none["truncated"]),
       ("none", None, 0, [], False), "status of an unknown transfer")
    up.init("f", size=10)
    eq(up.status("f", mode, qos), {"state": "open", "size": 10, "received": 0, "frontier": 0,
                                   "missing": [[0, 10]], "truncated": False}, "after init")
    up.segment("f", 2, b"23")
    up.segment("f", 6, b"678")
    status = up.status("f", mode, qos)
    eq((status["received"], status["missing"], status["truncated"]),
       (5, [[0, 2], [4, 6], [9, 10]], False), "after two segments")
    up.segment("f", 0, b"0123456789")
    eq(up.status("f", mode, qos)["missing"], [], "missing")
    up.fin("f", 10)
    status = up.status("f", mode, qos)
    eq((status["state"], status["size"], status["received"], status["missing"]),
       ("exported", 10, 10, []), "after fin")
    up.abort("g")
    eq(up.status("g", mode, qos)["state"], "none", "state after abort")


@cases(version=BOTH)
def test_without_a_size(t, version):
    """No init, or one without size: what is missing ends where the known bytes end."""
    t.daemon()
    up = t.uploader("ns", version)
    up.segment("f", 5, b"56789")
    status = up.status("f")
    eq((status["state"], status["size"], status["received"], status["missing"]),
       ("open", None, 5, [[0, 5]]), "before init")
    up.init("f")
    eq(up.status("f")["missing"], [[0, 5]], "missing after init")
    up.segment("f", 0, b"01234")
    status = up.status("f")
    eq((status["size"], status["received"], status["missing"]), (None, 10, []), "all there")


def test_truncated(t):
    t.daemon()
    up = t.uploader()
    up.init("f", size=1000)
    covered = [(10 * i, 10 * i + 5) for i in range(1, 51)]
    for a, b in covered:
        up.segment("f", a, b"x" * (b - a))
    status = up.status("f")
    eq(status["missing"], cover_rest(1000, covered)[:32], "missing")
    eq((status["truncated"], status["received"]), (True, 250), "truncated, received")


def test_payload_is_ignored(t):
    t.daemon()
    up = t.uploader()
    eq(up.check("$file/f/status", b"x" * 100_000)["status"]["state"], "none", "state")


def test_frontier_advances(t):
    """Bytes are hashed as they arrive; the frontier never passes what is contiguous."""
    t.daemon()
    up = t.uploader()
    data = some_bytes(8 << 20)
    up.init("f", size=len(data) + 10)
    for at in range(0, len(data), 1 << 20):
        up.segment("f", at, data[at:at + (1 << 20)])
        frontier = up.status("f")["frontier"]
        yes(0 <= frontier <= at + (1 << 20), f"frontier {frontier} at {at}")
    up.segment("f", len(data) + 5, b"x")
    until(lambda: up.status("f")["frontier"] > 4 << 20, "most of it is hashed")
    yes(up.status("f")["frontier"] <= len(data), "the frontier stays below the gap")


def test_status_of_another_client_is_out_of_reach(t):
    t.daemon()
    a, b = t.uploader("a"), t.uploader("b")
    a.init("f", size=5)
    eq(b.status("f")["state"], "none", "state")


def test_resume_sends_only_what_is_missing(t):
    d = t.daemon()
    up = t.uploader("res")
    data = some_bytes(1 << 20)
    up.init("f", size=len(data))
    for at in range(0, len(data), 64 << 10):
        if at % 3 == 0:
            up.segment("f", at, data[at:at + (64 << 10)])
    up.client.abandon()
    up = t.uploader("res")
    while missing := up.status("f")["missing"]:
        for a, b in missing:
            up.segment("f", a, data[a:b])
    up.fin("f", len(data))
    eq(d.export("res", "f", "a.bin"), data, "export")


def test_a_status_is_no_transfer(t):
    """Asking opens nothing."""
    d = t.daemon("transfer.open_client_max=1")
    up = t.uploader()
    for at in range(20):
        up.status(f"f{at}")
    eq(d.stats()["transfers_open"], 0, "transfers_open")
    up.init("f")
    eq(d.stats()["transfers_open"], 1, "transfers_open")
    yes(re.fullmatch(r"\d+", str(d.stats()["connections"])), "connections is a number")


@cases(each=[1, 3, 500], together=[1, 4, 500])
def test_statuses_beyond_the_limits_wait(t, each, together):
    """Whatever the limits, everybody who asks gets all answers, in order; who leaves amid his takes none away."""
    d = t.daemon("reactors=1", f"mqtt.statuses_max={each}", f"mqtt.statuses_reactor_max={together}")
    asked = [(f"$file/f{i}/status", b"") for i in range(300)]
    gone = [t.client(f"gone{i}") for i in range(5)]
    clients = [t.client(f"c{i}", (V5, V311)[i % 2]) for i in range(6)]
    for c in gone:
        c.send(b"".join(publish_packet(topic, b"", 1, 1 + i) for i, (topic, _) in enumerate(asked[:10])) +
               b"\xe0\0")
    with ThreadPoolExecutor(len(clients)) as pool:
        jobs = [pool.submit(c.publish_all, asked, 200) for c in clients]
        for c, job in zip(clients, jobs):
            acks = job.result()
            eq(len(acks), len(asked), "acks")
            for ack in acks:
                check_ack(ack, c.version, 0, None)
    until(lambda: d.stats()["connections"] == len(clients), "the others are gone")
    t.uploader("u").upload("f", some_bytes(100_000), segment_bytes=25_000)
