"""A daemon that waits costs nothing: no state of a connection makes its loop spin."""

import os
import time
from pathlib import Path

from harness import V5, V311, cases, eq, yes
from rawmqtt import connect_packet, publish_packet

META = b'{"name":"a.bin"}'


def cpu_seconds(d):
    """User and system time of all threads, the kernel's workers included."""
    fields = Path(f"/proc/{d.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(t):
    t.client("idle").publish("$file/f/init", META)


def connecting(t):
    t.client(connect=False).send(connect_packet("half")[:9])


def half_header(t):
    """Fewer bytes than a segment's head, after a large segment: the next one is peeked at."""
    c = t.client("head")
    c.publish("$file/f/0", b"x" * 300_000)
    c.send(publish_packet("$file/f/300000", b"x" * 300_000, 1, 9)[:12])


def half_small(t):
    t.client("small").send(publish_packet("$file/f/0", b"x" * 1000, 1, 9)[:500])


def half_large(t):
    t.client("large").send(publish_packet("$file/f/0", b"x" * 1_000_000, 1, 9)[:400_000])


def half_large_over_covered(t):
    c = t.client("scratch")
    c.publish("$file/f/0", b"x" * 1_000_000)
    c.send(publish_packet("$file/f/0", b"y" * 1_000_000, 1, 9)[:400_000])


def half_refused(t):
    t.client("refused").send(publish_packet("$file/f/zz", b"x" * 1_000_000, 1, 9)[:400_000])


def half_message(t):
    t.client("message").send(publish_packet("a", b"x" * 100_000, 1, 9)[:50_000])


def unread_answers(t):
    c = t.client("unread", receive_buffer=2048)
    c.socket.settimeout(0)
    batch = b"".join(publish_packet("$file/f/" + "x" * 100, b"", 1, i + 1) for i in range(2000))
    try:
        for _ in range(300):
            c.socket.send(batch)
    except BlockingIOError:
        return
    raise AssertionError("the daemon took everything, although nothing was read")


def held(t):
    c = t.client("held", V311)
    for at in range(2):
        c.send(publish_packet(f"$file/h{at}/init", META, 1, at + 1, V311))
    c.send(publish_packet("more", b"x" * 10_000, 1, 3, V311))


def waiting_transfers(t):
    c = t.client("many")
    c.publish_all([(f"$file/f{i}/{verb}", body) for i in range(200)
                   for verb, body in (("init", META), ("7", b"x" * 100))])


STATES = [idle, connecting, half_header, half_small, half_large, half_large_over_covered, half_refused,
          half_message, unread_answers, held, waiting_transfers]


def worked_off(d, seconds):
    """Until what has come is, or so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = cpu_seconds(d)
        time.sleep(0.5)
        if cpu_seconds(d) - before <= 0.02:
            return


@cases(state=[f.__name__ for f in STATES])
def test_waiting_costs_nothing(t, state):
    options = ["transfer.open_client_max=1"] if state == "held" else []
    d = t.daemon("mqtt.connect_timeout=60s", *options)
    next(f for f in STATES if f.__name__ == state)(t)
    worked_off(d, 10 * t.slow)
    before = cpu_seconds(d)
    time.sleep(1.5)
    used = cpu_seconds(d) - before
    yes(used <= 0.03 * t.slow, f"{used:.2f} s of CPU time in 1.5 s of waiting")
    # It still works.
    up = t.uploader("works", V5)
    up.upload("f", b"data")
    eq(d.is_alive(), True, "daemon")
