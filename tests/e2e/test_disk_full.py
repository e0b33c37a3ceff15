"""A file system that runs full: 0x97 and nothing else, and it goes on when space returns."""

import os
import random
import re
import time

from harness import Skip, cases, eq, limit, sha256, some_bytes, until, yes
from rawmqtt import V311, V5, Closed

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


def fill(path):
    with open(path, "wb", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 65536)
        except OSError:
            pass


@limit(90)
@cases(version=[V5, V311])
def test_marks(t, version):
    """Below one mark nothing is opened, below the other nothing is taken that needs space; what has its
    space is taken. Everybody is served, and with the space all of it goes on."""
    small = small_disk(t, 96)
    t.daemon("transfer.disk_free_min=32MiB", "transfer.disk_free_stop=16MiB", "io.journal_size=1MiB",
             "reactors=1", data=small / "data")
    data = some_bytes(MIB)
    up = t.uploader("marks", version=version)
    up.init("reserved", size=8 * MIB)
    up.init("grows")
    up.segment("grows", 0, data)
    other = t.client("other")
    fillers = []

    def free_mib():
        stat = os.statvfs(small)
        return stat.f_bavail * stat.f_frsize / MIB

    def take_to(mebibytes):
        fillers.append(small / f"filler{len(fillers)}")
        fillers[-1].write_bytes(b"x" * int((free_mib() - mebibytes) * MIB))
        time.sleep(0.1)  # what is free is looked at a few times a second

    def is_refused(topic, payload):
        if version == V5:
            ack = up.client.publish(topic, payload)
            up.response()
            eq((ack.reason, ack.reason_string), (0x97, "enospc"), topic)
            return
        # Closed without an acknowledgement, after a while.
        try:
            up.client.publish(topic, payload)
            raise AssertionError(f"{topic} was acknowledged")
        except Closed:
            up.client = t.client("marks", version)
            up.client.subscribe("$file-response/marks")

    take_to(24)
    is_refused("$file/new/init", b'{"name":"a"}')
    if version == V5:  # an MQTT 3.1.1 client is told at the third failure in a row
        is_refused("$file/new/init", b'{"name":"a","size":1}')
        is_refused("$file/new/0", data)
    up.segment("grows", MIB, data)
    take_to(8)
    is_refused("$file/grows/2097152", data)
    up.segment("grows", 0, data)  # it is there
    up.segment("reserved", 0, data)
    other.ping()
    other.publish("ordinary", b"message")
    for filler in fillers:
        filler.unlink()
    time.sleep(0.1)
    up.segment("grows", 2 * MIB, data)
    up.upload("new", data)
    up.fin("grows", 3 * MIB, sha256(3 * data))


@limit(120)
def test_journal_without_room(t):
    """The state has outgrown the journal's files, and there is no room for a larger one: nothing is
    acknowledged until there is. No restart is needed, and nothing that was acknowledged is lost."""
    small = small_disk(t, 16)
    d = t.daemon("transfer.disk_free_min=0", "io.journal_size=64KiB", "reactors=1", data=small / "data")
    up = t.uploader("room")
    data = some_bytes(100)
    filler = small / "filler"
    fill(filler)
    acked = []
    for at in range(3000):
        topic = f"$file/{'f' * 60}{at}/init"
        ack = up.client.publish(topic, b'{"name":"%s"}' % (b"n" * 60))
        eq(up.response()["reason_code"], ack.reason, "response")
        if ack.reason:
            eq((ack.reason, ack.reason_string), (0x97, "enospc"), "refusal")
            break
        acked.append(topic)
    yes(len(acked) > 50 and len(acked) < 3000, f"{len(acked)} were opened")
    yes(re.search(r"error no room for the next journal file", d.log()), "it is reported")
    up.client.ping()
    filler.unlink()
    until(lambda: up.client.publish("$file/goes-on/0", data).reason == 0, "it goes on", 10, 0.1)
    yes(re.search(r"info journal goes on", d.log()), "that is reported, too")
    up.client.backlog.clear()
    for kill in (True, False):
        d.restart(kill=kill)
        up = t.uploader("room")
        eq(up.status("goes-on")["received"], 100, "received")
        for topic in acked[::20]:
            yes(up.status(topic.split("/")[1])["state"] == "open", f"{topic} is forgotten")
