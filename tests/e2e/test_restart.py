"""Restarts: what was acknowledged is kept, by SIGTERM and by SIGKILL alike."""

import re

from harness import BOTH, V5, V311, cases, eq, limit, segments, sha256, some_bytes, yes
from rawmqtt import publish_packet


def journal_files(d):
    return [p for p in (d.data / "journal").rglob("*") if p.is_file()]


@cases(version=BOTH, kill=[False, True])
def test_acknowledged_segments_are_kept(t, version, kill):
    d = t.daemon()
    up = t.uploader("keep", version)
    data = some_bytes(1_000_000)
    up.init("f", size=len(data), user_data={"a": 1})
    up.segment("f", 0, data[:200_000])
    up.segment("f", 500_000, data[500_000:600_000], checksum=True)
    for at in range(700_000, 710_000, 100):
        up.segment("f", at, data[at:at + 100])
    d.restart(kill)
    up = t.uploader("keep", version)
    status = up.status("f")
    eq((status["state"], status["size"], status["received"], status["missing"]),
       ("open", len(data), 310_000, [[200_000, 500_000], [600_000, 700_000], [710_000, 1_000_000]]),
       "status after the restart")
    up.check("$file/f/init", {"name": "other"}, 1, 0x80, "filemeta_conflict")
    up.init("f", size=len(data), user_data={"a": 1})
    for a, b in status["missing"]:
        up.segment("f", a, data[a:b])
    up.fin("f", len(data), sha256(data))
    eq(d.export("keep", "f", "a.bin"), data, "export")


@cases(kill=[False, True])
def test_overwritten_segments_are_kept(t, kill):
    """The last write wins across a restart; nothing of the hash state is stale."""
    d = t.daemon()
    up = t.uploader("ow")
    size = 6 << 20
    data = bytearray(some_bytes(size))
    up.upload("f", bytes(data), segment_bytes=1 << 20, fin=False)
    for at, count in ((0, 10), (3 << 20, 200_000), (size - 5, 5)):
        data[at:at + count] = some_bytes(count, at + 3)
        up.segment("f", at, bytes(data[at:at + count]))
    d.restart(kill)
    up = t.uploader("ow")
    eq(up.status("f")["missing"], [], "missing")
    up.fin("f", size, sha256(bytes(data)))
    eq(d.export("ow", "f", "a.bin"), bytes(data), "export")


@cases(kill=[False, True])
def test_exports_and_replays_survive(t, kill):
    d = t.daemon()
    up = t.uploader("ex")
    data = some_bytes(300_000)
    up.upload("f", data, segment_bytes=100_000)
    before = (d.export_dir("ex", "f") / "a.bin").stat()
    d.restart(kill)
    up = t.uploader("ex")
    eq(up.status("f")["state"], "exported", "state")
    up.upload("f", data, segment_bytes=50_000)
    after = (d.export_dir("ex", "f") / "a.bin").stat()
    eq((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns), "the same file")
    eq(len(d.exported_files()), 1, "exports")
    eq(d.staged_files(), [], "staging")
    # Other content is still a generation of its own.
    up.upload("f", data[::-1], segment_bytes=100_000)
    eq([next(p.glob("a.bin")).read_bytes() for p in d.generations("ex", "f")], [data, data[::-1]],
       "generations")


@cases(kill=[False, True])
def test_aborted_stays_aborted(t, kill):
    d = t.daemon()
    up = t.uploader("ab")
    up.init("f")
    up.segment("f", 0, b"x")
    up.abort("f")
    d.restart(kill)
    eq(t.uploader("ab").status("f")["state"], "none", "state")
    eq(d.staged_files(), [], "staging")


@cases(version=[V311, V5])
def test_restart_during_fin(t, version):
    """The export is finished by itself, or by the client's repeated fin; there is one export."""
    d = t.daemon()
    data = some_bytes(24 << 20)
    for round_no in range(4):
        file_id = f"f{round_no}"
        up = t.uploader("fin", version)
        up.init(file_id)
        for topic, piece in segments(file_id, data, 2 << 20)[::-1]:
            up.check(topic, piece)
        up.client.send(publish_packet(f"$file/{file_id}/fin/{len(data)}/{sha256(data)}", b"", 1, 900,
                                      version))
        d.restart(kill=True)
        up = t.uploader("fin", version)
        up.fin(file_id, len(data), sha256(data))
        eq(d.export("fin", file_id, "a.bin"), data, "export")
        eq([p.name for p in d.generations("fin", file_id)], [file_id], "generations")
    eq(d.staged_files(), [], "staging")


def test_interrupted_segment_does_not_count(t):
    d = t.daemon()
    up = t.uploader("cut")
    up.init("f")
    up.segment("f", 0, b"x" * 1000)
    up.client.send(publish_packet("$file/f/1000", b"y" * 500_000, 1, 9)[:400_000])
    d.restart(kill=True)
    up = t.uploader("cut")
    eq(up.status("f")["received"], 1000, "received")
    up.fin("f", 1000, sha256(b"x" * 1000))


@cases(before=[1, 2, 4], after=[1, 3])
def test_other_number_of_reactors(t, before, after):
    """Journals are replayed whatever number of reactors wrote them."""
    d = t.daemon(f"reactors={before}")
    for at in range(12):
        up = t.uploader(f"c{at}")
        up.init("open", size=10)
        up.segment("open", 0, b"12345")
        up.upload("done", f"content {at}".encode())
    d.stop()
    d.options = (f"reactors={after}",)
    d.start()
    for at in range(12):
        up = t.uploader(f"c{at}")
        eq(up.status("open")["missing"], [[5, 10]], "missing")
        eq(up.status("done")["state"], "exported", "state")
        up.segment("open", 5, b"67890")
        up.fin("open", 10)
        eq(d.export(f"c{at}", "open", "a.bin"), b"1234567890", "export")


@limit(90)
def test_journal_stays_short(t):
    """Checkpoint and rotation: the journal does not grow with what is over."""
    d = t.daemon("io.journal_size=1MiB", "reactors=1")
    c = t.client("j")
    rounds = 6 if t.slow == 1 else 2
    keep = t.uploader("keep")
    keep.init("f", size=10)
    keep.segment("f", 0, b"12345")
    for round_no in range(rounds):
        messages = []
        for at in range(400):
            name = f"r{round_no}-{at}"
            messages.append((f"$file/{name}/init", b'{"name":"a","user_data":"' + b"x" * 500 + b'"}'))
            messages += [(f"$file/{name}/{i * 20}", b"x" * 10) for i in range(8)]
            messages.append((f"$file/{name}/abort", b""))
        for ack in c.publish_all(messages, timeout=60):
            eq(ack.reason, 0, "PUBACK")
    size = sum(p.stat().st_blocks * 512 for p in journal_files(d))
    yes(0 < size <= 4 << 20, f"the journal takes {size} bytes")
    d.restart(kill=True)
    eq(t.uploader("keep").status("f")["missing"], [[5, 10]], "missing")
    eq(d.stats()["transfers_open"], 1, "transfers_open")


def test_restart_again_and_again(t):
    d = t.daemon()
    data = some_bytes(40_000)
    t.uploader("again").init("f", size=len(data))
    for at in range(0, len(data), 4000):
        up = t.uploader("again")
        eq(up.status("f")["missing"], [[at, len(data)]], "missing")
        up.segment("f", at, data[at:at + 4000])
        d.restart(kill=at % 8000 == 0)
    up = t.uploader("again")
    up.fin("f", len(data), sha256(data))
    eq(d.export("again", "f", "a.bin"), data, "export")


def test_damaged_tail_of_the_journal(t):
    """A record that was torn by a crash ends the journal there; the daemon starts."""
    d = t.daemon("reactors=1")
    up = t.uploader("torn")
    up.init("f", size=100)
    up.segment("f", 0, b"x" * 10)
    d.kill()
    damaged = 0
    for path in journal_files(d):
        data = bytearray(path.read_bytes())
        end = len(bytes(data).rstrip(b"\0"))
        if end > 200:
            data[end - 3] ^= 0x55
            path.write_bytes(bytes(data))
            damaged += 1
    eq(damaged, 1, "journal files with records")
    d.start()
    up = t.uploader("torn")
    status = up.status("f")
    eq((status["state"], status["received"]), ("open", 0), "what the whole records say")
    up.segment("f", 0, b"x" * 100)
    up.fin("f", 100)


def test_staging_file_that_was_lost(t):
    """Somebody deleted it: what was covered is missing again, never zeros in an export."""
    d = t.daemon()
    up = t.uploader("lost")
    data = some_bytes(100_000)
    up.upload("f", data, segment_bytes=10_000, fin=False)
    d.stop()
    for path in d.staged_files():
        path.unlink()
    d.start()
    up = t.uploader("lost")
    up.fin("f", len(data), code=0x80, description="incomplete", reason_string=re.compile("^incomplete"))
    up.init("f")
    up.upload("f", data, segment_bytes=10_000)
    eq(d.export("lost", "f", "a.bin"), data, "export")


def test_stray_staging_files(t):
    """What no record names is set aside and reported."""
    d = t.daemon()
    t.uploader("stray").segment("f", 0, b"known")
    d.stop()
    known = d.staged_files()
    (d.data / "staging" / "e1-stray").write_bytes(b"x" * 1000)
    d.start()
    eq(d.staged_files(), known, "staging")
    eq((d.data / "orphans" / "e1-stray").read_bytes(), b"x" * 1000, "what was set aside")
    yes(re.search(r" warn staging files without a transfer .* files=1 bytes_on_disk=", d.new_log()),
        "it is reported")
    eq(t.uploader("stray").status("f")["received"], 5, "received")


def test_unreadable_journal(t):
    """It is set aside and reported, and so are the bytes that it knew of; the rest goes on."""
    d = t.daemon("reactors=1")
    t.uploader("unr").upload("done", b"exported")
    t.uploader("unr").segment("f", 0, b"precious")
    d.stop()
    # Behind the last record nothing is read, so only files with records matter.
    for path in journal_files(d):
        data = path.read_bytes()
        path.write_bytes(b"\xff" * 64 + data[64:])
    d.start()
    yes(re.search(r" error damaged journal is set aside", d.new_log()), "it is reported")
    orphans = [p.read_bytes() for p in (d.data / "orphans").iterdir()]
    eq(orphans, [b"precious"], "orphans")
    eq(d.export("unr", "done", "a.bin"), b"exported", "export")
    up = t.uploader("unr")
    eq(up.status("f")["state"], "none", "state")
    up.upload("new", b"goes on")
