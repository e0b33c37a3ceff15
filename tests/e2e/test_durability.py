"""What survives the machine, by listener; powercut.py has the cuts themselves."""

import re

import powercut

from harness import cases, eq, limit, sha256, some_bytes, yes


def another_boot(d):
    """Stops it, and takes the page cache that it wrote under for lost."""
    d.stop()
    for path in d.data.glob("journal/set-*/page-cache"):
        path.write_text("another boot")
    d.start()


def missing_lines(d):
    return re.findall(r"received segments did not survive .*fileid=(\w+) bytes=(\d+) kept=(\d+)", d.new_log())


@limit(60)
@cases(level=["crash", "power"])
def test_level_of_the_listener(t, level):
    """The daemon's level counts for a listener that has none of its own; a segment has the level of the
    connection that it came on."""
    other = {"crash": "power", "power": "crash"}[level]
    d = t.daemon(f"durability={level}", listen=["127.0.0.1:0", f"127.0.0.1:0 durability={other}"])
    found = dict((power or "crash", int(port)) for port, power in
                 re.findall(r"listening addr=127\.0\.0\.1:(\d+)(?: durability=(power))?$", d.log(), re.M))
    eq(sorted(found), ["crash", "power"], "levels")
    data = some_bytes(300_000)
    for name, port in found.items():
        d.port = port
        up = t.uploader(name)
        up.init("f")
        up.segment("f", 0, data[:1000])
        up.segment("f", 1000, data[1000:200_000], checksum=True)
        up.client.disconnect()
    # The same transfer over both: what came over which counts.
    for name, a, b in (("crash", 0, 500), ("power", 500, 800), ("crash", 800, 900)):
        d.port = found[name]
        up = t.uploader("both")
        up.segment("f", a, data[a:b])
        up.client.disconnect()
    another_boot(d)
    up = {name: t.uploader(name) for name in ("crash", "power", "both")}
    eq({name: u.status("f")["received"] for name, u in up.items()},
       {"crash": 0, "power": 200_000, "both": 300}, "received")
    eq(up["both"].status("f")["missing"], [[0, 500]], "missing")
    eq(sorted(missing_lines(d)), [("f", "200000", "0"), ("f", "600", "300")], "what is reported")
    for u in up.values():
        u.upload("f", data)
    for name in up:
        eq(d.export(name, "f", "a.bin"), data, f"export of {name}")


@limit(60)
def test_exports_survive_at_any_level(t):
    d = t.daemon()
    up = t.uploader("exp")
    data = some_bytes(100_000)
    up.upload("done", data)
    up.segment("open", 0, data)
    another_boot(d)
    up = t.uploader("exp")
    eq(up.status("done")["state"], "exported", "state")
    eq(up.status("open")["received"], 0, "received")
    up.segment("done", 0, data)  # a replay
    up.fin("done", len(data), sha256(data))
    eq(len(d.generations("exp", "done")), 1, "exports")


@limit(60)
def test_group_commit(t):
    """Segments that wait at the same time share syncs."""
    d = t.daemon("durability=power", "reactors=1")
    piece, count = some_bytes(3000), 400
    clients = [t.client(f"g{i}") for i in range(8)]
    for c in clients:
        eq(c.publish("$file/f/init", b'{"name":"a"}').reason, 0, "PUBACK of init")
    before = d.stats()
    running = [c.publish_each([(f"$file/f/{at * 3000}", piece) for at in range(count // 8)], 50)
               for c in clients]
    for acks in zip(*running):  # all send what their windows allow before the first one goes on
        eq({ack.reason for ack in acks}, {0}, "PUBACKs")
    after = d.stats()
    segments = after["segments"] - before["segments"]
    syncs = {key: after[key] - before[key] for key in ("journal_syncs", "file_syncs", "dir_syncs")}
    print(f"{segments} segments: {syncs}")
    eq(segments, count, "segments")
    for key, number in syncs.items():
        yes(number * 3 < segments, f"{number} {key} for {segments} segments")


@limit(60)
def test_remount_without_reboot(t):
    """The file system was mounted anew on the same boot: only what was synced counts."""
    disk = powercut.Disk(t)
    d = t.daemon("transfer.disk_free_min=0", "io.journal_size=1MiB", data=disk.place / "data",
                 listen=["127.0.0.1:0", "127.0.0.1:0 durability=power"])
    ports = re.findall(r"listening addr=127\.0\.0\.1:(\d+)", d.log())
    data = some_bytes(100_000)
    for name, port in zip(("crash", "power"), ports):
        d.port = int(port)
        t.uploader(name).segment("f", 0, data)
    d.restart()
    eq([t.uploader(name).status("f")["received"] for name in ("crash", "power")], [100_000] * 2,
       "received after a restart alone")
    d.stop()
    disk.mount_again()
    d.start()
    eq([t.uploader(name).status("f")["received"] for name in ("crash", "power")], [0, 100_000],
       "received after the remount")
    eq(missing_lines(d), [("f", "100000", "0")], "what is reported")
    d.stop()
