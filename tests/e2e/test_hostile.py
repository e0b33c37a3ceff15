"""Hostile peers: a clear outcome, bounded memory, and an honest client beside them undisturbed."""

import contextlib
import random
import time

from harness import BOTH, V5, V311, cases, eq, limit, sha256, some_bytes, until, yes
from rawmqtt import (PINGREQ_PACKET, Closed, Timeout, connect_packet, packet, publish_packet,
                     subscribe_packet)

MIB = 1 << 20


class Honest:
    """A client that uploads a file in small steps while others misbehave, and is timed."""

    def __init__(self, t):
        self.t, self.data, self.round = t, some_bytes(64 << 10), 0
        self.client = t.client("honest")
        self.times = []

    def step(self):
        """One whole small file; the longest wait for an ack is kept."""
        self.round += 1
        name = f"h{self.round}"
        for topic, payload in ((f"$file/{name}/init", b'{"name":"a"}'),
                               (f"$file/{name}/0/{sha256(self.data)}", self.data),
                               (f"$file/{name}/fin/{len(self.data)}/{sha256(self.data)}", b"")):
            began = time.monotonic()
            eq(self.client.publish(topic, payload).reason, 0, f"ack of {topic}")
            self.times.append(time.monotonic() - began)
        began = time.monotonic()
        self.client.ping()
        self.times.append(time.monotonic() - began)

    def check(self, seconds):
        yes(max(self.times) < seconds * self.t.slow,
            f"the honest client waited {max(self.times):.2f} s")
        yes(self.round > 0, "the honest client did something")


@contextlib.contextmanager
def memory_bound(t, d, megabytes):
    before = d.rss_bytes()
    yield
    grown = d.rss_bytes("VmHWM") - before
    # Sanitizers keep freed memory, so there the figure says nothing.
    yes(t.slow > 1 or grown < megabytes * MIB, f"memory grew by {grown / MIB:.1f} MiB")


@limit(120)
def test_many_transfers_opened_and_abandoned(t):
    d = t.daemon("transfer.open_client_max=20000")
    honest = Honest(t)
    honest.step()
    count = 10_000 if t.slow == 1 else 2000
    with memory_bound(t, d, 64):
        c = t.client("flood", timeout=100)
        messages = ((f"$file/t{i}/{verb}", body) for i in range(count)
                    for verb, body in (("init", b'{"name":"a","size":1000}'), ("5", b"x" * 100)))
        for at, ack in enumerate(c.publish_each(messages, window=200)):
            eq(ack.reason, 0, f"ack {at}")
            if at % 1000 == 0:
                honest.step()
        c.abandon()
        honest.step()
    honest.check(3)
    eq(d.stats()["transfers_open"], count, "transfers_open")
    yes(d.descriptors() < 1500, f"{d.descriptors()} descriptors")
    # All of them are known after a restart, and can be ended.
    d.restart()
    eq(d.stats()["transfers_open"], count, "transfers_open after the restart")
    c = t.client("flood", timeout=100)
    for ack in c.publish_each(((f"$file/t{i}/abort", b"") for i in range(count)), window=200):
        eq(ack.reason, 0, "ack of abort")
    eq(d.stats()["transfers_open"], 0, "transfers_open")
    until(lambda: not d.staged_files(), "staging is empty")


def test_open_transfers_are_capped(t):
    d = t.daemon("transfer.open_max=100", "transfer.open_client_max=60")
    a, b = t.client("a"), t.client("b")
    init = b'{"name":"a"}'
    codes = [x.reason for x in a.publish_all([(f"$file/f{i}/init", init) for i in range(80)])]
    eq(codes, [0] * 60 + [0x97] * 20, "acks of one client")
    codes = [x.reason for x in b.publish_all([(f"$file/f{i}/0", b"x") for i in range(80)])]
    eq(codes.count(0), 40, "accepted of the other")
    eq(set(codes[40:]), {0x97}, "the rest")
    eq(d.stats()["transfers_open"], 100, "transfers_open")


@cases(version=BOTH)
def test_truncated_packets(t, version):
    """Every packet type cut at every length, then the connection is gone: nothing happens."""
    d = t.daemon()
    honest = Honest(t)
    whole = [connect_packet("cut", version, will={"topic": "a", "payload": b"b"}, username="u"),
             publish_packet("$file/f/0", b"x" * 40, 1, 1, version),
             publish_packet("$file/f/init", b'{"name":"a"}', 2, 1, version),
             subscribe_packet([("a", 0), ("b", 1)], 1, version), PINGREQ_PACKET]
    for data in whole:
        for length in range(0, len(data), 1 if t.slow == 1 else 5):
            c = t.client("cut", version, connect=False)
            t.clients.pop()
            if data is not whole[0]:
                c.send(whole[0])
            c.send(data[:length])
            (c.close, c.abandon)[length % 2]()
        honest.step()
    honest.check(2)
    until(lambda: d.stats()["connections"] == 1, "the other connections are gone")
    eq(t.uploader("cut").status("f")["state"], "none", "state")


def test_random_bytes(t):
    d = t.daemon()
    honest = Honest(t)
    rng = random.Random(3)
    hello = connect_packet("noise")
    with memory_bound(t, d, 32):
        for round_no in range(400):
            c = t.client("noise", connect=False)
            t.clients.pop()
            noise = rng.randbytes(rng.randrange(1, 3000))
            try:
                c.send((hello if round_no % 2 else b"") + noise)
            except Closed:
                pass
            c.abandon()
            if round_no % 40 == 0:
                honest.step()
    honest.check(2)


def test_mutated_packets(t):
    """Good packets with single bytes changed: the nearest neighbours of what parsers expect."""
    t.daemon()
    honest = Honest(t)
    rng = random.Random(4)
    packets = [publish_packet("$file/f/init", b'{"name":"a"}', 1, 1,
                              props={"response_topic": "r", "correlation_data": b"x",
                                     "user_property": [("k", "v")]}),
               publish_packet("$file/f/fin/12/" + "a" * 64, b"", 2, 2, props={"topic_alias": 3}),
               subscribe_packet([("$share/g/a/#", 1), ("+/b", 0)], 3, props={"subscription_id": 5})]
    for round_no in range(600):
        data = bytearray(packets[round_no % 3])
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        c = t.client("mut", connect=False)
        t.clients.pop()
        try:
            c.send(connect_packet("mut") + bytes(data) + PINGREQ_PACKET)
            if round_no % 20 == 0:
                c.socket.settimeout(0.05)
                with contextlib.suppress(OSError):
                    c.socket.recv(1000)
        except Closed:
            pass
        c.close()
        if round_no % 60 == 0:
            honest.step()
    honest.check(2)


def test_oversized_lengths(t):
    """A length is a claim: nothing is allocated for it."""
    d = t.daemon()
    honest = Honest(t)
    with memory_bound(t, d, 48):
        clients = []
        for at in range(200):
            c = t.client(f"big{at}")
            c.send(b"\x32\xff\xff\xff\x7f" + publish_packet("$file/f/0", b"", 1, 1)[2:] + b"x" * 100)
            clients.append(c)
        for at in range(200):
            c = t.client(connect=False)
            c.send(b"\x10\xff\xff\xff\x7f\x00\x04MQTT")
            clients.append(c)
        for _ in range(5):
            honest.step()
    honest.check(2)


@limit(90)
def test_slow_peers(t):
    """One byte at a time on many connections, in every state."""
    d = t.daemon("mqtt.connect_timeout=3s")
    honest = Honest(t)
    streams = {}
    for at in range(150):
        kind = at % 3
        c = t.client(f"slow{at}", connect=kind > 0)
        data = (connect_packet("x" * 500), publish_packet("$file/" + "f" * 400 + "/init", b"{}", 1, 1),
                publish_packet("$file/f/0", b"x" * 50_000, 1, 1))[kind]
        streams[c] = (kind, data)
    began, sent = time.monotonic(), 0
    while time.monotonic() - began < 5:
        for c, (kind, data) in streams.items():
            with contextlib.suppress(Closed):
                c.send(data[sent:sent + 1])
        sent += 1
        honest.step()
        time.sleep(0.05)
    honest.check(1)
    eq(d.stats()["connections"], 101, "those that did not finish CONNECT in time are gone")


@cases(size=[60_000, 100_000], tail=[1, 300, 2000])
def test_payload_byte_by_byte(t, size, tail):
    """What comes in crumbs is waited for in larger pieces; its end, and what follows, is not."""
    d = t.daemon()
    c = t.client("cam")
    data = some_bytes(size)
    eq(c.publish("$file/f/init", b'{"name":"a"}').reason, 0, "init")
    whole = publish_packet("$file/f/0", data, 1, 77)
    head = len(whole) - size
    c.send(whole[:head + 20_000])
    for at in range(head + 20_000, head + 20_100):
        c.send(whole[at:at + 1])
        time.sleep(0.001)
    c.send(whole[head + 20_100:-tail])
    for at in range(len(whole) - tail, len(whole), max(1, tail // 20)):
        time.sleep(0.002)
        c.send(whole[at:at + max(1, tail // 20)])
    eq(c.wait(4, packet_id=77, timeout=5 * t.slow).reason, 0, "segment")
    began = time.monotonic()
    c.ping()
    yes(time.monotonic() - began < 1 * t.slow, "the next packet is seen at once")
    eq(c.publish(f"$file/f/fin/{size}/{sha256(data)}", b"").reason, 0, "fin")
    # The end of the stream inside a payload is seen, too.
    c.send(whole[:head + 30_000])
    for at in range(head + 30_000, head + 30_020):
        c.send(whole[at:at + 1])
        time.sleep(0.002)
    c.close()
    until(lambda: d.stats()["connections"] == 0, "it is gone", seconds=5 * t.slow)


def comes_in(t, name):
    try:
        return t.client(name)
    except (Closed, ConnectionError):
        return None


@limit(90)
def test_slow_segments_do_not_use_up_the_descriptors(t):
    """Each segment that streams keeps its file open. Where descriptors run out, new connections are
    refused, and those that dawdle end before their time; an honest client's segments never fail."""
    d = t.daemon(start=False)
    command = d.command()
    d.command = lambda: ["prlimit", "--nofile=600:600", *command]
    d.start()
    honest = Honest(t)
    honest.step()
    refused, began = 0, time.monotonic()
    for at in range(400):
        try:
            c = t.client(f"slow{at}")
            c.send(publish_packet("$file/f/0", b"x" * 100_000, 1, 1)[:200])
        except (Closed, ConnectionError):
            refused += 1
            time.sleep(0.02)
        if at % 20 == 0:
            honest.step()
    yes(refused > 0, "some are refused")
    while "slow connections ended early" not in d.log():
        with contextlib.suppress(Closed, ConnectionError):
            t.client().close()
        honest.step()
        yes(time.monotonic() - began < 30, "slow ones are ended")
        time.sleep(0.1)
    until(lambda: comes_in(t, "late"), "there is room again")
    honest.step()
    honest.check(2)
    yes("Too many open files" not in d.log(), "no descriptor was wanting")


@limit(90)
def test_never_reads_its_acks(t):
    """The daemon stops reading such a connection instead of collecting answers without end."""
    d = t.daemon("mqtt.unacknowledged_max=1000")
    honest = Honest(t)
    stuck = t.client("stuck", receive_buffer=2048)
    stuck.socket.settimeout(0)
    batch = b"".join(publish_packet("$file/f/" + "x" * 300, b"", 1, i + 1) for i in range(500))
    with memory_bound(t, d, 16):
        sent, began = 0, time.monotonic()
        while time.monotonic() - began < 3:
            try:
                sent += stuck.socket.send(batch[sent % len(batch):])
            except BlockingIOError:
                honest.step()
    honest.check(1)
    eq(d.is_alive(), True, "daemon")


@limit(90)
def test_answers_of_all_are_bounded(t):
    """Many who read no answers: together they get so much memory."""
    d = t.daemon("mqtt.unsent_total=1MiB", "reactors=2")
    honest = Honest(t)
    honest.step()
    start = time.monotonic()
    deaf = [t.client(f"deaf{i}", receive_buffer=2048) for i in range(60)]
    batch = b"".join(publish_packet("$file/x", b"", 1, i + 1) for i in range(500))
    with memory_bound(t, d, 24):
        for c in deaf:
            c.socket.settimeout(0)
        sent = dict.fromkeys(deaf, 0)
        while time.monotonic() - start < 5:
            honest.step()
            for c in deaf:
                with contextlib.suppress(BlockingIOError):
                    sent[c] += c.socket.send(batch[sent[c] % len(batch):])
    honest.check(1)
    eq(d.stats()["connections"], 61, "connections: nobody is closed")
    for c in deaf:
        c.abandon()
    until(lambda: d.stats()["connections"] == 1, "all are gone")
    del t.clients[1:]
    t.uploader("u").upload("f", some_bytes(100_000), segment_bytes=25_000)


def fill_output(t, count):
    """So many who read nothing, and messages until a client who reads everything gets none."""
    deaf = [t.client(f"deaf{i}", receive_buffer=2048) for i in range(count)]
    for c in deaf:
        c.subscribe("news", qos=0)
    patient, publisher = t.client("patient"), t.client("publisher")
    patient.subscribe("late", qos=1)
    patient.subscribe("later", qos=0)

    def is_starved():
        for _ in range(50):
            publisher.publish("news", b"n" * 200_000, qos=0)
        publisher.publish("late", b"l" * 500_000)
        try:
            patient.wait(3, timeout=0.5 * t.slow)
        except Timeout:
            return True
        return False
    until(is_starved, "messages are starved", seconds=40)
    return deaf, patient, publisher


@limit(90)
@cases(end=["they go", "they are closed"])
def test_messages_of_all_are_bounded(t, end):
    """Many who take no messages: those of others wait for memory, but not for ever."""
    window = "60s" if end == "they go" else "4s"
    d = t.daemon("mqtt.unsent_total=1MiB", "reactors=1", f"mqtt.min_rate_window={window}")
    with memory_bound(t, d, 24):
        deaf, patient, publisher = fill_output(t, 40)
        publisher.publish("later", b"m" * 300_000, qos=0)
    yes("mqtt.unsent_total is used up connection=waits" in d.log(), "it is said")
    Honest(t).step()
    if end == "they go":
        for c in deaf:
            c.abandon()
    got = [patient.wait(3, timeout=20 * t.slow) for _ in range(2)]
    eq(sorted((len(m.payload), m.qos) for m in got), [(300_000, 0), (500_000, 1)], "what waited for memory")
    if end == "they are closed":
        yes("mqtt.unsent_total is used up connection=closed clientid=deaf" in d.log(), "it is said")
        for c in deaf:
            c.abandon()
    for c in deaf:
        t.clients.remove(c)


@cases(version=[V311, V5])
def test_json_bombs(t, version):
    t.daemon()
    up = t.uploader("bomb", version)
    honest = Honest(t)
    deep = 30_000
    for payload, description in (
            (b"[" * deep + b"]" * deep, "invalid_filemeta_json"),
            (b'{"name":"a","user_data":' + b"[" * deep + b"]" * deep + b"}", "invalid_filemeta_json"),
            (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "invalid_filemeta_json"),
            (b"[" * 65_000, "invalid_filemeta_json"), (b'{"name":"' + b"\\" * 60_000, None),
            (b'{"name":"a","size":1' + b"0" * 60_000 + b"}", "invalid_filemeta"),
            (b'{"name":"a","size":1e999}', "invalid_filemeta"),
            (b'{"name":"a","size":-0.0000000000001}', "invalid_filemeta"),
            (b'{"name":"' + b"\\u0061" * 10_000 + b'"}', "invalid_filemeta"),
            (b"{" + b'"name":"b",' * 5000 + b'"name":"a"}', "success"),
            (b'{"name":"a","user_data":[' + b"{}," * 20_000 + b"{}]}", None),
            (b'{"name":"a\\u0000b"}', "invalid_filemeta"), (b"\0" * 60_000, "invalid_filemeta_json"),
            (b" " * 65_536, "invalid_filemeta_json")):
        ack = up.client.publish("$file/f/init", payload)
        body = up.response()
        if description:
            eq(body["reason_description"], description, f"response to {payload[:40]!r}")
        if version == V5:
            eq(ack.reason, body["reason_code"], "PUBACK")
        up.abort("f")
    honest.step()
    honest.check(2)


def test_hostile_names_and_ids_leave_nothing_outside(t):
    d = t.daemon()
    up = t.uploader("..")
    for file_id in ("..", ".", "...", "%2e%2e", "~", "-", " ", "a\\b", "\u202e", "con", "CON",
                    "f" * 5000):
        up.init(file_id, ".manifest.json")
        up.segment(file_id, 0, b"x")
        up.fin(file_id, 1)
    for name in ("..", "../x", "/etc/passwd", "a/../../b", "\0"):
        up.check("$file/f/init", {"name": name}, 1, 0x80, "invalid_filemeta")
    outside = [p for p in t.dir.rglob("*") if p.is_file() and d.data not in p.parents]
    eq([p.suffix for p in outside], [p.suffix for p in outside if p.suffix in (".log", "")],
       "files outside the data directory")
    # Each has a directory of its own, whatever the id.
    eq(len(d.exported_files()), 12, "exports")
    for path in d.exported_files():
        yes(not path.name.startswith("."), f"{path.name} is visible, and no manifest")


@limit(90)
def test_maximal_gaps(t):
    """Tiny segments with gaps between them: each is an extent, and extents are capped."""
    d = t.daemon("transfer.extents_max=5000")
    honest = Honest(t)
    c = t.client("gaps", timeout=80)
    count = 8000 if t.slow == 1 else 5500
    with memory_bound(t, d, 32):
        acks = c.publish_all([(f"$file/f/{i * 2}", b"x") for i in range(count)], window=500)
        honest.step()
    eq([a.reason for a in acks], [0] * 5000 + [0x97] * (count - 5000), "acks")
    honest.check(2)


def test_status_flood(t):
    d = t.daemon()
    honest = Honest(t)
    c = t.client("st", timeout=60)
    with memory_bound(t, d, 32):
        for at, ack in enumerate(c.publish_each(((f"$file/f{i}/status", b"") for i in range(10_000)))):
            eq(ack.reason, 0, "PUBACK")
            if at % 1000 == 0:
                honest.step()
    honest.check(2)


@limit(90)
def test_connect_flood(t):
    d = t.daemon()
    honest = Honest(t)
    hello = connect_packet("flood")
    count = 3000 if t.slow == 1 else 500
    with memory_bound(t, d, 32):
        for at in range(count):
            c = t.client(connect=False)
            t.clients.pop()
            c.send(hello)
            c.abandon()
            if at % 300 == 0:
                honest.step()
    honest.check(2)
    until(lambda: d.stats()["connections"] == 1, "only the honest one is left")


def test_large_payloads_to_refused_commands_are_drained(t):
    d = t.daemon("transfer.file_max=1MiB")
    up = t.uploader("dr")
    with memory_bound(t, d, 16):
        for topic, code, text in (("$file/f/zz", 0x80, "invalid_offset"),
                                  ("$file/f", 0x80, "invalid_file_command"),
                                  ("$file/f/init", 0x80, "invalid_filemeta"),
                                  ("$file/f/0", 0x97, "too_large"), ("$file/f/abort", 0, "success"),
                                  ("$file/f/status", 0, "success")):
            up.check(topic, b"x" * (24 << 20), 1, code, text)
    eq(d.staged_files(), [], "staging")


def test_wrong_use_of_a_session(t):
    """Acks that nobody asked for, subscriptions to everything, pings without end."""
    t.daemon()
    honest = Honest(t)
    c = t.client("odd")
    c.subscribe("#")
    for kind in (4, 5, 7):
        c.send(b"".join(packet(kind, 0, i.to_bytes(2, "big")) for i in range(1, 3000)))
    c.send(PINGREQ_PACKET * 5000)
    for _ in range(5000):
        c.wait(13)
    honest.step()
    honest.check(2)


@cases(topic=["$file/f/0", "$file/f/init", "ordinary"])
def test_parts_of_packets_are_bounded(t, topic):
    """Many clients stop inside a packet that is kept until it is whole: only so many may."""
    d = t.daemon("reactors=2", "mqtt.received_total=2MiB")
    size = 30_000 if topic.startswith("$") else 900_000
    start = time.monotonic()
    packet = publish_packet(topic, b"x" * size, 1, 9)
    for round_no in range(3):
        with memory_bound(t, d, 16):
            cut = [t.client(f"cut{i}") for i in range(200 if size < 100_000 else 20)]
            for c in cut:
                with contextlib.suppress(Closed):  # it may be out before its last byte
                    c.send(packet[:len(packet) - 1000])
            held = 2 * MIB // (size - 2000)
            until(lambda: d.stats()["connections"] <= held, "those who are too many are gone")
            yes(d.stats()["connections"] > held // 3, "the others are not")
        for c in cut:
            c.abandon()
        until(lambda: d.stats()["connections"] == 0, "all are gone")
        del t.clients[:]
    said = d.log().count("mqtt.received_total is used up clientid=cut")
    yes(1 <= said <= 2 * (time.monotonic() - start + 1), f"said {said} times: once a second and reactor")
    # Nothing of it is counted any more.
    c = t.client("after")
    eq(c.publish("ordinary", b"y" * 1_000_000).reason, 0x10, "ack of a large message")
    t.uploader("u").upload("f", some_bytes(100_000), segment_bytes=25_000)
