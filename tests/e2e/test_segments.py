"""Segments: any order, any sizes, any number of times; checksums; what counts and what does not."""

import random

from harness import (ALL, BOTH, V5, cases, check_ack, eq, limit, segments, sha256, some_bytes,
                     until, yes)
from rawmqtt import publish_packet


@cases(version=ALL, qos=[0, 1, 2])
def test_in_order(t, version, qos):
    d = t.daemon()
    up = t.uploader("seg", version)
    data = some_bytes(10_000)
    up.init("f", size=len(data), qos=qos)
    for topic, piece in segments("f", data, 1024):
        up.check(topic, piece, qos)
    up.fin("f", len(data), sha256(data), qos=qos)
    eq(d.export("seg", "f", "a.bin"), data, "export")
    eq(d.staged_files(), [], "staging")


@cases(version=BOTH, mode=["$file", "$file-async"])
def test_before_init_reversed_and_mixed(t, version, mode):
    d = t.daemon()
    up = t.uploader("mix", version)
    data = some_bytes(300_000)
    rng = random.Random(7)
    cuts = sorted(rng.sample(range(1, len(data)), 60))
    pieces = [(a, data[a:b]) for a, b in zip([0] + cuts, cuts + [len(data)])][::-1]
    for at, piece in pieces:
        up.segment("f", at, piece, checksum=at % 2 == 0, mode=mode)
    eq(up.status("f")["missing"], [], "missing")
    up.init("f", mode=mode)
    up.fin("f", len(data), sha256(data))
    eq(d.export("mix", "f", "a.bin"), data, "export")


@cases(version=BOTH, qos=[0, 1, 2])
def test_empty_segment(t, version, qos):
    """Some clients send one at the end of the file: it is a success and covers nothing."""
    d = t.daemon()
    up = t.uploader("empty", version)
    up.init("f", size=3, qos=qos)
    up.segment("f", 0, b"", qos=qos)
    eq(up.status("f")["received"], 0, "received")
    up.segment("f", 0, b"abc", qos=qos)
    up.segment("f", 3, b"", qos=qos)
    up.segment("f", 3, b"", checksum=True, qos=qos)
    up.segment("f", 3, b"", checksum="0" * 64, qos=qos, code=0x80, description="checksum_mismatch")
    up.fin("f", 3, qos=qos)
    eq(d.export("empty", "f", "a.bin"), b"abc", "export")


@cases(version=ALL, qos=[0, 1, 2])
def test_checksum_mismatch_keeps_what_was_good(t, version, qos):
    d = t.daemon()
    up = t.uploader("sum", version)
    data = some_bytes(5000)
    wrong = some_bytes(5000, seed=2)
    up.init("f")
    up.segment("f", 0, data[:3000], checksum=True, qos=qos)
    up.segment("f", 0, wrong[:3000], checksum=sha256(data[:3000]), qos=qos, code=0x80,
               description="checksum_mismatch")
    up.segment("f", 3000, wrong[3000:], checksum=sha256(data[3000:]), qos=qos, code=0x80,
               description="checksum_mismatch")
    status = up.status("f")
    eq((status["received"], status["missing"]), (3000, []), "received, missing")
    # Half over what is covered, half over new bytes: neither half may count.
    up.segment("f", 2000, wrong[2000:5000], checksum="0" * 64, qos=qos, code=0x80,
               description="checksum_mismatch")
    eq(up.status("f")["received"], 3000, "received")
    up.segment("f", 3000, data[3000:], checksum=True, qos=qos)
    up.fin("f", 5000, sha256(data), qos=qos)
    eq(d.export("sum", "f", "a.bin"), data, "export")


@cases(big=[False, True])
def test_checksum_mismatch_large(t, big):
    """The same with payloads that are spliced, over covered and over new ranges."""
    d = t.daemon()
    up = t.uploader("sumbig")
    size = 3 << 20 if big else 200_000
    data, wrong = some_bytes(size), some_bytes(size, seed=2)
    up.init("f")
    up.segment("f", 0, wrong, checksum=sha256(data), code=0x80, description="checksum_mismatch")
    eq(up.status("f")["received"], 0, "received")
    up.segment("f", 0, data, checksum=True)
    up.segment("f", 0, wrong, checksum=sha256(data), code=0x80, description="checksum_mismatch")
    up.segment("f", size // 2, wrong, checksum=sha256(data), code=0x80,
               description="checksum_mismatch")
    eq(up.status("f")["received"], size, "received")
    up.fin("f", size, sha256(data))
    eq(d.export("sumbig", "f", "a.bin"), data, "export")


@cases(size=[700, 150_000, 2 << 20])
def test_last_write_wins(t, size):
    d = t.daemon()
    up = t.uploader("last")
    data, wrong = some_bytes(size), some_bytes(size, seed=2)
    up.init("f")
    up.segment("f", 0, wrong)
    up.fin("f", size, sha256(data), code=0x80, description="checksum_mismatch")
    up.segment("f", 0, data)
    up.fin("f", size, sha256(data))
    eq(d.export("last", "f", "a.bin"), data, "export")


def test_last_write_wins_with_checksums(t):
    d = t.daemon()
    up = t.uploader("lastsum")
    data = bytearray(some_bytes(400_000))
    up.init("f")
    up.segment("f", 0, bytes(data))
    for seed, (start, end) in enumerate([(0, 1), (100_000, 300_000), (65_536, 65_600),
                                         (399_999, 400_000), (0, 400_000), (150_000, 190_000)]):
        piece = some_bytes(end - start, seed + 10)
        data[start:end] = piece
        up.segment("f", start, piece, checksum=seed % 2 == 0)
    up.fin("f", len(data), sha256(data))
    eq(d.export("lastsum", "f", "a.bin"), bytes(data), "export")


@cases(step=[100, 5000])
def test_overlaps_are_trimmed(t, step):
    """Any cover counts: unaligned ranges join, overlaps do no harm."""
    d = t.daemon()
    up = t.uploader("over")
    data = some_bytes(20 * step)
    up.init("f")
    rng = random.Random(step)
    starts = list(range(0, len(data), step))
    rng.shuffle(starts)
    for start in starts:
        before, after = rng.randrange(step), rng.randrange(2 * step)
        a, b = max(0, start - before), min(len(data), start + step + after)
        up.segment("f", a, data[a:b], checksum=rng.random() < 0.5)
    up.fin("f", len(data), sha256(data))
    eq(d.export("over", "f", "a.bin"), data, "export")


@cases(size=[500, 200_000])
def test_interrupted_segment_changes_nothing(t, size):
    """A segment counts when its whole PUBLISH has arrived."""
    d = t.daemon()
    data, other = some_bytes(size), some_bytes(size, seed=2)
    up = t.uploader("cut")
    up.init("f")
    up.segment("f", 0, data)
    for topic in ("$file/f/0", f"$file/f/0/{sha256(other)}", f"$file/f/{size}"):
        whole = publish_packet(topic, other, 1, 9, V5)
        up.client.send(whole[:-1])
        before = up
        up = t.uploader("cut")
        before.client.close()
        status = up.status("f")
        eq((status["received"], status["missing"]), (size, []), f"after {topic} was cut")
    up.fin("f", size, sha256(data))
    eq(d.export("cut", "f", "a.bin"), data, "export")


def test_offset_over_the_maximum_file_size(t):
    t.daemon("transfer.file_max=1MiB")
    up = t.uploader()
    up.init("f")
    up.segment("f", (1 << 20) - 10, b"0123456789")
    up.segment("f", (1 << 20) - 9, b"0123456789", code=0x97, description="too_large")
    up.segment("f", 1 << 20, b"0", code=0x97, description="too_large")
    up.segment("f", 1 << 62, b"0", code=0x97, description="too_large")
    up.segment("f", (1 << 63) - 1, b"0", code=0x97, description="too_large")
    up.segment("f", 0, b"x" * ((1 << 20) + 1), code=0x97, description="too_large")
    eq(up.status("f")["received"], 10, "received")


def test_too_many_extents(t):
    """A transfer's extents are capped; a segment that adds none is still taken."""
    t.daemon("transfer.extents_max=16")
    up = t.uploader()
    up.init("f")
    for at in range(16):
        up.segment("f", at * 10, b"12345")
    up.segment("f", 1000, b"12345", code=0x97, description="quota_exceeded")
    up.segment("f", 5, b"12345")
    up.segment("f", 1000, b"12345")


def test_segments_beyond_the_final_size(t):
    """fin's size cuts: bytes beyond it are not part of the file."""
    d = t.daemon()
    up = t.uploader("beyond")
    up.init("f")
    up.segment("f", 0, b"0123456789")
    up.segment("f", 100, b"far beyond")
    up.fin("f", 7, sha256(b"0123456"))
    eq(d.export("beyond", "f", "a.bin"), b"0123456", "export")


@limit(120)
@cases(version=BOTH)
def test_hundreds_unacknowledged(t, version):
    """The habit of a published client: everything is queued at once, acks are read later."""
    d = t.daemon()
    c = t.client("burst", version)
    data = some_bytes(2 << 20)
    messages = [("$file/f/init", b'{"name":"a.bin"}'), *segments("f", data, 1024),
                (f"$file/f/fin/{len(data)}/{sha256(data)}", b"")]
    acks = c.publish_all(messages, window=len(messages))
    for ack in acks:
        check_ack(ack, version, 0, None)
    eq(d.export("burst", "f", "a.bin"), data, "export")


@limit(120)
def test_largest_packet(t):
    """256 MiB less the header: the largest PUBLISH there is."""
    d = t.daemon()
    c = t.client("large", timeout=90 * t.slow)
    topic = "$file/f/0"
    payload_bytes = 268_435_455 - 2 - len(topic) - 2 - 1
    piece = some_bytes(1 << 20)
    c.publish("$file/f/init", b'{"name":"a.bin"}')
    whole = publish_packet(topic, b"", 1, 77, V5)
    head = b"\x32\xff\xff\xff\x7f" + whole[2:]
    c.send(head)
    left = payload_bytes
    while left:
        c.send(piece[:left])
        left -= min(left, len(piece))
    check_ack(c.wait(4, packet_id=77), V5, 0, None)
    check_ack(c.publish(f"$file/f/fin/{payload_bytes}"), V5, 0, None)
    path = d.export_dir("large", "f") / "a.bin"
    eq(path.stat().st_size, payload_bytes, "size")
    with open(path, "rb") as exported:
        for at in range(0, payload_bytes, len(piece)):
            eq(exported.read(len(piece)), piece[:payload_bytes - at], f"bytes from {at}")
    if t.slow == 1:
        yes(d.rss_bytes("VmHWM") < 64 << 20, f"peak memory is {d.rss_bytes('VmHWM')}")


def test_payload_goes_through_splice(t):
    d = t.daemon()
    up = t.uploader("splice")
    data = some_bytes(16 << 20)
    before = d.stats()
    up.upload("f", data, segment_bytes=1 << 20, window=8)
    after = d.stats()
    spliced = after["bytes_spliced"] - before["bytes_spliced"]
    copied = after["bytes_copied"] - before["bytes_copied"]
    yes(spliced + copied >= len(data), "the counters add up")
    yes(spliced > 0.9 * len(data), f"{spliced} of {len(data)} bytes were spliced")


def test_two_clients_one_file_id(t):
    """A transfer is named by (client id, file id): equal file ids do not meet."""
    d = t.daemon()
    a, b = t.uploader("a"), t.uploader("b")
    for up, text in ((a, b"from a"), (b, b"from b")):
        up.init("f")
        up.segment("f", 0, text)
    a.fin("f", 6, sha256(b"from a"))
    eq(b.status("f")["state"], "open", "state of the other")
    b.fin("f", 6, sha256(b"from b"))
    eq((d.export("a", "f", "a.bin"), d.export("b", "f", "a.bin")), (b"from a", b"from b"),
       "exports")


def test_takeover_in_the_middle_of_a_segment(t):
    """The old connection's segment does not count, the new one's does, whatever the order."""
    d = t.daemon()
    data, other = some_bytes(1 << 20), some_bytes(1 << 20, seed=2)
    first = t.uploader("same")
    first.init("f")
    whole = publish_packet("$file/f/0", other, 1, 9, V5)
    first.client.send(whole[:700_000])
    second = t.uploader("same")
    second.segment("f", 0, data)
    eq([p.reason for p in first.client.wait_closed() if p.type == 14], [0x8e], "DISCONNECT")
    second.fin("f", len(data), sha256(data))
    eq(d.export("same", "f", "a.bin"), data, "export")
    until(lambda: not d.staged_files(), "staging is empty")
