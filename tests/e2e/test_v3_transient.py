"""MQTT 3.1.1 has no reason codes: a failure that may pass ends the connection without the ack.

So a QoS 1 client sends it again, instead of taking a failed store for a success. Before the close the
ack is withheld and nothing more is read, for 5 s at first and twice as long each time; at the third
time the error counts as permanent and is acknowledged.
"""

import json
import time

from harness import ALL, V5, V31, V311, cases, eq, limit, yes
from rawmqtt import PINGREQ_PACKET, PUBACK, Timeout, publish_packet

META = b'{"name":"a.bin"}'


def refused_and_closed(c, topic, payload, at_least, at_most, qos=1):
    """Publishes; nothing may come back, not even a PINGRESP, until the close."""
    began = time.monotonic()
    c.send(publish_packet(topic, payload, qos, 50, c.version) + PINGREQ_PACKET)
    packets = c.wait_closed(at_most + 10)
    seconds = time.monotonic() - began
    eq([p for p in packets if p.type != 3], [], "packets before the close")
    yes(at_least <= seconds <= at_most, f"closed after {seconds:.1f} s")


@limit(90)
@cases(version=[V31, V311], qos=[1, 2])
def test_withheld_closed_and_at_last_told(t, version, qos):
    t.daemon("transfer.open_client_max=1")
    listener = t.client("listener")
    c = t.client("v3", version)
    c.publish("$file/f/init", META)
    refused_and_closed(c, "$file/g/init", META, 4.5, 8, qos)
    c = t.client("v3", version, timeout=40)
    refused_and_closed(c, "$file/g/init", META, 9.5, 14, qos)
    up = t.uploader("v3", version)
    up.init("g", qos=qos, code=0x97, description="quota_exceeded")
    listener.ping()


@limit(60)
@cases(payload=[1000, 300_000])
def test_segments(t, payload):
    """The header shows that it is refused: so it is not stored, and not acknowledged."""
    t.daemon("transfer.staged_max=1MiB")
    other = t.uploader("other")
    other.init("big", size=1 << 20)
    c = t.client("v3", V311)
    refused_and_closed(c, "$file/f/0", b"x" * payload, 4.5, 8)
    other.abort("big")
    up = t.uploader("v3", V311)
    up.init("f")
    up.segment("f", 0, b"x" * payload)
    up.fin("f", payload)


@limit(60)
def test_others_are_served_meanwhile(t):
    t.daemon("transfer.open_client_max=1")
    held = t.client("held", V311)
    held.publish("$file/f/init", META)
    held.send(publish_packet("$file/g/init", META, 1, 50, V311))
    honest = t.uploader("honest", V311)
    began = time.monotonic()
    honest.upload("f", b"x" * 100_000)
    yes(time.monotonic() - began < 3, "an honest client is not held")
    try:
        eq(held.wait(PUBACK, timeout=2), None, "ack of the refused init")
    except Timeout:
        pass
    eq(held.wait_closed(), [], "packets before the close")


@cases(version=ALL)
def test_qos_0_never_closes(t, version):
    t.daemon("transfer.open_client_max=1")
    up = t.uploader("q0", version)
    up.init("f", qos=0)
    for _ in range(5):
        up.init("g", qos=0, code=0x97, description="quota_exceeded")
    up.client.ping()


def test_v5_is_told_at_once(t):
    t.daemon("transfer.open_client_max=1")
    up = t.uploader("v5", V5)
    up.init("f")
    began = time.monotonic()
    for _ in range(5):
        up.init("g", code=0x97, description="quota_exceeded")
    yes(time.monotonic() - began < 3, "no hold")


@cases(version=[V31, V311], qos=[1, 2])
def test_permanent_failures_are_acknowledged(t, version, qos):
    """What would fail again each time is acknowledged, and told on the response topic."""
    t.daemon("transfer.file_max=1MiB")
    up = t.uploader("perm", version)
    began = time.monotonic()
    up.init("f", size=2 << 20, qos=qos, code=0x97, description="too_large")
    up.segment("f", 1 << 20, b"x", qos=qos, code=0x97, description="too_large")
    up.check("$file/f/init", b"{}", qos, 0x80, "invalid_filemeta")
    up.check("$file/f/fin/5", b"", qos, 0x80, "incomplete")
    yes(time.monotonic() - began < 3, "no hold")


@limit(60)
def test_hold_is_per_client_id_and_ends_with_success(t):
    """A success in between begins the count anew: the next hold is the first one again."""
    t.daemon("transfer.open_client_max=1")
    c = t.client("v3", V311)
    c.publish("$file/f/init", META)
    refused_and_closed(c, "$file/g/init", META, 4.5, 8)
    up = t.uploader("v3", V311)
    up.abort("f")
    up.init("g")
    c = up.client
    c.send(publish_packet("$file/h/init", META, 1, 60, V311))
    began = time.monotonic()
    packets = c.wait_closed()
    seconds = time.monotonic() - began
    eq([json.loads(p.payload)["packet_id"] for p in packets if p.type == 3 and b'"h' in p.payload], [],
       "response messages")
    yes(4.5 <= seconds <= 8, f"closed after {seconds:.1f} s")
