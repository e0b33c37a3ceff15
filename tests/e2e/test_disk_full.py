"""A file system that runs full: 0x97 and nothing else, and it goes on when space returns."""

import os
import random

from harness import Skip, cases, eq, limit, sha256, some_bytes, until, yes

MIB = 1 << 20


def small_disk(t, mebibytes):
    if os.geteuid() != 0:
        raise Skip("mounting a small file system needs root")
    small = t.dir / "small"
    small.mkdir()
    if t.run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", small).returncode:
        raise Skip("mount is not permitted here")
    t.at_end(lambda: t.run("umount", "-l", small))
    return small


def daemon_on(t, small, *options):
    return t.daemon("transfer.disk_free_min=0", "io.journal_size=1MiB", "reactors=1", *options,
                    data=small / "data")


@limit(90)
def test_disk_full_in_the_middle(t):
    """Refused with 0x97, everybody else is served, what was acknowledged stays."""
    d = daemon_on(t, small_disk(t, 96), "transfer.preallocate=sparse")
    up = t.uploader("full")
    data = some_bytes(8 << 20)
    up.init("keep")
    up.segment("keep", 0, data[:MIB])
    refused = None
    for at in range(20):
        up.client.publish(f"$file/big{at}/init", b'{"name":"a"}')
        up.response()
        ack = up.client.publish(f"$file/big{at}/0", data)
        eq(up.response()["reason_code"], ack.reason, "response")
        if ack.reason:
            refused = (at, ack.reason, ack.reason_string)
            break
    yes(refused, "the disk ran full")
    eq(refused[1:], (0x97, "enospc"), "how it was refused")
    yes(refused[0] >= 5, f"only {refused[0]} of 8 MiB fitted")
    up.client.ping()
    # What was acknowledged is there, and once there is space everything goes on.
    for at in range(refused[0] + 1):
        up.abort(f"big{at}")
    up.segment("keep", MIB, data[MIB:2 * MIB])
    up.fin("keep", 2 * MIB, sha256(data[:2 * MIB]))
    eq(d.export("full", "keep", "a.bin"), data[:2 * MIB], "export")
    d.stop()


@limit(90)
@cases(piece=[3000, 200_000], kill=[False, True])
def test_filled_by_somebody_else(t, piece, kill):
    """Another program takes the space, and gives it back: no restart is needed."""
    small = small_disk(t, 48)
    d = daemon_on(t, small, "transfer.preallocate=sparse")
    up = t.uploader("other")
    data = some_bytes(8 * MIB)
    up.init("f")
    pieces = [(at, data[at:at + piece]) for at in range(0, len(data), piece)]
    random.Random(1).shuffle(pieces)
    half = len(pieces) // 2
    acked = []
    for at, part in pieces[:half]:
        up.client.publish(f"$file/f/{at}", part)
        eq(up.response()["reason_code"], 0, "response")
        acked.append((at, part))
    filler = small / "filler"
    with open(filler, "wb") as out:
        try:
            while True:
                out.write(b"x" * 65536)
                out.flush()
        except OSError:
            pass
    refused = 0
    for at, part in pieces[half:]:
        ack = up.client.publish(f"$file/f/{at}", part)
        body = up.response()
        eq(ack.reason, body["reason_code"], "response")
        if ack.reason == 0:
            acked.append((at, part))
        else:
            eq((ack.reason, ack.reason_string), (0x97, "enospc"), "refusal")
            refused += 1
        if refused == 20:
            break
    yes(refused, "the disk was full")
    filler.unlink()
    if kill:
        d.restart(kill=True)
        up = t.uploader("other")
    eq(up.status("f")["received"], sum(len(part) for _, part in acked), "received")
    until(lambda: up.client.publish("$file/f/0", data[:piece]).reason == 0, "space is seen", 5, 0.1)
    up.client.backlog.clear()
    for at, part in pieces:
        up.client.publish(f"$file/f/{at}", part)
    up.client.ping()
    eq(up.client.publish(f"$file/f/fin/{len(data)}/{sha256(data)}").reason, 0, "PUBACK of fin")
    yes(d.export("other", "f", "a.bin") == data, "the export differs")
    d.stop()


@limit(60)
def test_reservation_that_cannot_be_kept(t):
    """preallocate: reserve fails at init, leaves no blocks behind, and the transfer was never there."""
    small = small_disk(t, 32)
    d = daemon_on(t, small)
    up = t.uploader("res")
    free_before = os.statvfs(small).f_bavail
    up.init("big", size=40 * MIB, code=0x97, description="enospc")
    up.init("two", size=20 * MIB)
    up.init("three", size=20 * MIB, code=0x97, description="enospc")
    eq(up.status("three")["state"], "none", "state")
    up.abort("two")
    until(lambda: os.statvfs(small).f_bavail >= free_before - 16, "the blocks are given back")
    # What is free is looked at a few times a second.
    meta = b'{"name":"a.bin","size":20971520}'
    until(lambda: up.client.publish("$file/three/init", meta).reason == 0, "space is seen", 5, 0.1)
    d.stop()
