"""limits: how fast a client is read, how many connections an address may have, and how fast it makes
them."""

import socket
import time

from harness import cases, eq, limit, raises, segments, some_bytes, until, yes
from rawmqtt import Closed, connect_packet, send_behind_connect

MIB = 1 << 20


def timed(function, *args, **kwargs):
    start = time.monotonic()
    function(*args, **kwargs)
    return time.monotonic() - start


def upload(client, data, segment_bytes):
    """Without a subscription to the answers: a client's acknowledgements of these wait behind its
    own data."""
    messages = [("$file/f/init", b'{"name": "a.bin"}'), *segments("f", data, segment_bytes),
                (f"$file/f/fin/{len(data)}", b"")]
    for ack in client.publish_all(messages):
        eq(ack.reason, 0, "reason")
    client.ping()


@cases(segment_bytes=[1000, 20_000, 300_000, MIB])
def test_bytes_of_a_client_are_paced(t, segment_bytes):
    """Whichever way the bytes take, what was sent beyond a second's worth takes its time; another
    client's do not, and the pause is held against nobody: not by the keep alive, not by the least
    rate inside a packet."""
    d = t.daemon("limits.client_bytes_rate=1MiB", "mqtt.min_rate=900KiB", "mqtt.min_rate_window=1s")
    fast = t.client("fast", keep_alive=1)
    data = some_bytes(3 * MIB)
    took = timed(upload, fast, data, segment_bytes)
    yes(1.8 <= took, f"3 MiB at 1 MiB/s, of which one at once, took {took:.2f} s")
    eq(d.export("fast", "f", "a.bin"), data, "export")
    yes("client over its rate is read more slowly clientid=fast limit=limits.client_bytes_rate"
        " per_s=1048576" in d.log(), "the log says so")
    took = timed(upload, t.client("other"), data[:MIB // 2], segment_bytes)
    yes(took < 1.5, f"another client took {took:.2f} s")


def test_messages_of_a_client_are_paced(t):
    d = t.daemon("limits.client_messages_rate=200")
    fast = t.client("fast", keep_alive=1)
    data = some_bytes(600 * 100)
    took = timed(upload, fast, data, 100)
    yes(1.8 <= took, f"600 segments at 200/s, of which 200 at once, took {took:.2f} s")
    eq(d.export("fast", "f", "a.bin"), data, "export")
    yes("limit=limits.client_messages_rate per_s=200" in d.log(), "the log says so")


@limit(90)
@cases(clean=[True, False])
def test_who_comes_back_owes_what_it_owed(t, clean):
    """Neither leaving nor being taken over buys another second's worth."""
    t.daemon("limits.client_messages_rate=100")
    start = time.monotonic()
    for i in range(4):
        c = t.client("again", clean=clean)
        c.publish_all([("t", b"")] * 100)
        if i % 2:
            c.abandon()
    took = time.monotonic() - start
    yes(2.8 <= took, f"400 messages at 100/s, of which 100 at once, took {took:.2f} s")


@limit(90)
@cases(reactors=[1, 2])
def test_bytes_behind_connect_are_paced(t, reactors):
    """What comes together with CONNECT is charged to the client that it turns out to be of."""
    d = t.daemon("limits.client_bytes_rate=256KiB", f"reactors={reactors}")
    start = time.monotonic()
    for _ in range(20):
        send_behind_connect(d.port, connect_packet("again"), 55, 1000)
    took = time.monotonic() - start
    yes(2.8 <= took, f"20 × 55 KiB at 256 KiB/s, of which one second's at once, took {took:.2f} s")


@limit(60)
@cases(payload_bytes=[0, 100, 20_000, 60_000])
def test_paced_messages_of_all_sizes(t, payload_bytes):
    """More than is read at a time, whole packets and parts of them: all get through, at their
    pace."""
    t.daemon("limits.client_messages_rate=100")
    c = t.client("c")
    start = time.monotonic()
    for ack in c.publish_all([("t", bytes(payload_bytes))] * 250, window=250):
        eq(ack.reason & 0x7F & ~0x10, 0, "reason")
    took = time.monotonic() - start
    yes(1.4 <= took <= 10, f"250 messages at 100/s, of which 100 at once, took {took:.2f} s")


def test_paced_connection_ends_cleanly(t):
    """The daemon ends while a client waits for its turn."""
    d = t.daemon("limits.client_messages_rate=10")
    c = t.client("slow")
    for topic, payload in segments("f", some_bytes(100_000), 1000):
        c.publish(topic, payload, qos=0)
    c.publish("t", b"", qos=0)
    yes(timed(d.stop) < 5, "it does not wait for the client's turn")


@cases(reactors=[1, 2])
def test_connections_of_one_address(t, reactors):
    """Counted over all reactors; another address is none the worse, and who leaves makes room."""
    d = t.daemon("mqtt.connections_address_max=3", f"reactors={reactors}")
    here = [t.client() for _ in range(3)]
    for _ in range(3):
        raises((Closed, ConnectionError), t.client)
    yes(" limit=mqtt.connections_address_max" in d.log(), "the log says so")
    other = socket.create_connection(("127.0.0.1", d.port), 5, ("127.0.0.2", 0))
    other.sendall(connect_packet("other"))
    eq(other.recv(1), b"\x20", "CONNACK for another address")
    other.close()
    here[0].disconnect()

    def comes_in():
        try:
            return t.client()
        except (Closed, ConnectionError):
            return None
    until(comes_in, "who left has made room")


def test_connect_rate(t):
    """What comes too fast waits, and is served in its turn: none is turned away."""
    d = t.daemon("mqtt.connect_rate=50", "reactors=2")
    start = time.monotonic()
    sockets = [socket.create_connection(("127.0.0.1", d.port), 5) for _ in range(150)]
    yes(time.monotonic() - start < 1.5, "the system takes them at once")
    for at, s in enumerate(sockets):
        s.sendall(connect_packet(f"c{at}"))
    for s in sockets:
        s.settimeout(10)
        eq(s.recv(1), b"\x20", "CONNACK")
        s.close()
    took = time.monotonic() - start
    yes(1.8 <= took <= 8, f"150 connections at 50/s, of which 50 at once, took {took:.2f} s")
    yes("mqtt.connect_rate is reached per_s=50" in d.log(), "the log says so")


def test_connect_rate_of_what_is_refused(t):
    """A full daemon turns away no more than it would accept."""
    d = t.daemon("mqtt.connect_rate=20", "mqtt.connections_max=2")
    for client in ("a", "b"):
        t.client(client)
    start = time.monotonic()
    sockets = [socket.create_connection(("127.0.0.1", d.port), 5) for _ in range(80)]
    for s in sockets:
        s.settimeout(10)
        eq(s.recv(1), b"", "what a full daemon says")
        s.close()
    took = time.monotonic() - start
    yes(2.5 <= took <= 9 * t.slow, f"80 connections at 20/s, of which 20 at once, took {took:.2f} s")
    yes("limit=mqtt.connections_max" in d.log(), "the log says why")


def come_in(d, address):
    """A connection from there, once it is in; None: it was closed."""
    s = socket.create_connection(("127.0.0.1", d.port), 5, (address, 0))
    try:
        s.sendall(connect_packet(f"from{address}-{s.getsockname()[1]}"))
        if s.recv(1) == b"\x20":
            return s
    except ConnectionError:
        pass
    s.close()
    return None


@cases(reactors=[1, 2])
def test_connect_rate_of_an_address(t, reactors):
    """In all reactors together; what is over it is closed, and what was closed does not count. Another
    address is none the worse."""
    d = t.daemon("mqtt.connect_rate_address=5", f"reactors={reactors}")
    start, here = time.monotonic(), 0
    for at in range(200):
        c = come_in(d, "127.0.0.2")
        here += c is not None
        if at % 50 == 0:
            yes(come_in(d, f"127.0.0.{3 + at // 50}"), "another address is let in")
    took = time.monotonic() - start
    yes(5 <= here <= 6 + 5 * took, f"{here} of 200 got in, in {took:.2f} s at 5/s")
    lines = [line for line in d.log().splitlines() if "limit=mqtt.connect_rate_address" in line]
    yes(1 <= len(lines) <= reactors * (took + 2) and "warn connection refused peer=127.0.0.2:" in lines[0],
        f"the log says so, not too often: {lines[:5]}")
    until(lambda: come_in(d, "127.0.0.2"), "after a moment it is let in again", 3)


@limit(60)
def test_an_address_over_its_rate_takes_nothing_of_the_daemons(t):
    """Though the daemon accepts few, those that are refused do not count among them."""
    d = t.daemon("mqtt.connect_rate=20", "mqtt.connect_rate_address=10")
    start = time.monotonic()
    flood = [socket.create_connection(("127.0.0.1", d.port), 5, ("127.0.0.2", 0)) for _ in range(400)]
    yes(all(come_in(d, f"127.0.0.{at}") for at in range(10, 15)), "others are let in")
    took = time.monotonic() - start
    yes(took < 4 * t.slow, f"it took them {took:.2f} s behind 400")
    for s in flood:
        s.close()


@cases(rate=[4, 1], most=[2, 4])
def test_connect_rate_and_connections_of_an_address(t, rate, most):
    """Both limits at once: what one refuses does not count for the other."""
    d = t.daemon(f"mqtt.connect_rate_address={rate}", f"mqtt.connections_address_max={most}")
    here = [come_in(d, "127.0.0.2") for _ in range(30)]
    yes(min(most, rate + 1) <= sum(c is not None for c in here) <= most, "connections")
    for c in here:
        if c:
            c.close()
    until(lambda: come_in(d, "127.0.0.2"), "who left has made room", 5)
    if most < rate:
        yes("limit=mqtt.connections_address_max" in d.log() and "connect_rate_address" not in d.log(),
            "refused for their number alone")
