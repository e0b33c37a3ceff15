"""Pools at their smallest: whoever waits for a buffer, a pipe, a splice or a descriptor gets his turn."""

from concurrent.futures import ThreadPoolExecutor

from harness import V5, V311, cases, check_ack, eq, limit, segments, sha256, some_bytes, until
from rawmqtt import publish_packet

SMALLEST = ["reactors=1", "io.pipes=1", "io.splices=1", "io.buffers=2", "io.workers=4",
            "io.open_files=1", "verify.threads=1", "export.parallel=1", "transfer.backlog_max=1MiB",
            "transfer.backlog_total=1MiB"]


def upload(c, data, segment_bytes, checksum):
    for round_no in range(2):
        messages = [(f"$file/f{round_no}/init", b'{"name":"a.bin"}')]
        for topic, piece in segments(f"f{round_no}", data, segment_bytes)[::1 - 2 * round_no]:
            messages.append((f"{topic}/{sha256(piece)}" if checksum else topic, piece))
        messages.append((f"$file/f{round_no}/fin/{len(data)}/{sha256(data)}", b""))
        for ack in c.publish_all(messages[:-1], 16, 100):
            check_ack(ack, c.version, 0, None)
        check_ack(c.publish(*messages[-1]), c.version, 0, None)


@limit(120)
@cases(checksum=[False, True])
def test_smallest_pools(t, checksum):
    d = t.daemon(*SMALLEST)
    clients = [t.client(f"s{i}", (V5, V311)[i % 2], timeout=100) for i in range(12)]
    files = [some_bytes(2_000_000 + i, i) for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(upload, c, data, (1000, 20_000, 100_000, 1_000_000)[i % 4], checksum)
                for i, (c, data) in enumerate(zip(clients, files))]
        for job in jobs:
            job.result()
    for i, data in enumerate(files):
        for file_id in ("f0", "f1"):
            eq(sha256(d.export(f"s{i}", file_id, "a.bin")), sha256(data), f"export of s{i} {file_id}")
    until(lambda: not d.staged_files(), "staging is empty")
    stats = d.stats()
    eq((stats["pipes"], stats["buffers"], stats["staged_bytes"]), (0, 0, 0), "what is in use at the end")


@cases(payload=[20_000, 500_000])
def test_stalled_senders_hold_nothing(t, payload):
    """Many stop in the middle of a segment: the pools are still there for others."""
    d = t.daemon(*SMALLEST)
    stalled = [t.client(f"stalled{i}") for i in range(20)]
    for c in stalled:
        c.send(publish_packet("$file/f/0", b"x" * payload, 1, 9)[:payload // 2])
    c = t.client("honest")
    data = some_bytes(1_500_000)
    for segment_bytes in (10_000, 300_000):
        upload(c, data, segment_bytes, True)
    eq(d.export("honest", "f0", "a.bin"), data, "export")
    for c in stalled:
        c.send(publish_packet("$file/f/0", b"x" * payload, 1, 9)[payload // 2:])
    for c in stalled:
        check_ack(c.wait(4, packet_id=9), V5, 0, None)


def test_stalled_readers_hold_nothing(t):
    """Many do not read their answers: the others get theirs."""
    t.daemon(*SMALLEST)
    stuck = [t.client(f"stuck{i}", receive_buffer=2048) for i in range(10)]
    batch = b"".join(publish_packet("$file/f/" + "x" * 200, b"", 1, i + 1) for i in range(1000))
    for c in stuck:
        c.socket.settimeout(0)
        try:
            for _ in range(200):
                c.socket.send(batch)
        except BlockingIOError:
            pass
    upload(t.client("honest"), some_bytes(500_000), 50_000, False)


@limit(120)
def test_few_descriptors_many_files(t):
    """More open transfers than descriptors: their staging files are opened again when wanted."""
    d = t.daemon("reactors=1", "io.open_files=4")
    c = t.client("many", timeout=60)
    data = some_bytes(3000)
    for start in (0, 1000, 2000):
        for ack in c.publish_all([(f"$file/f{i}/{start}", data[start:start + 1000])
                                  for i in range(500)], 100):
            check_ack(ack, V5, 0, None)
    messages = [(f"$file/f{i}/{verb}", body) for i in range(500)
                for verb, body in (("init", b'{"name":"a"}'), (f"fin/3000/{sha256(data)}", b""))]
    for ack in c.publish_all(messages, 100):
        check_ack(ack, V5, 0, None)
    eq({p.read_bytes() for p in d.exported_files()}, {data}, "contents")
    eq(len(d.exported_files()), 500, "exports")
