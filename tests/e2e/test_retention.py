"""export.retention: what was to be kept until a time goes when it has come, and nothing else does."""

import json
import os
import time

from harness import eq, some_bytes, until, yes

OPTIONS = ("export.retention=true", "export.retention_interval=1s", "events.subscribers=*")


def soon():
    return int(time.time()) + 2


def test_expired_exports_go(t):
    """Also those of before a restart, and with them the directories that this leaves empty; the
    event says what went."""
    d = t.daemon(*OPTIONS)
    up = t.uploader("keeper")
    data = some_bytes(5000)
    up.upload("old", data, expire_at=soon(), user_data={"a": 1})
    up.upload("late", data, expire_at=int(time.time()) + 3600)
    up.upload("never", data)
    t.uploader("gone").upload("f", data, name="ü %.bin", expire_at=soon())
    d.restart(kill=True)
    watcher = t.client("watcher")
    watcher.subscribe("$file-event/#")
    eq(len(d.exported_files()), 4, "exports after the restart")
    until(lambda: len(d.exported_files()) == 2, "the two that were due are gone", 10)
    events = {}
    for _ in range(2):
        message = watcher.message()
        eq(message.topic, "$file-event/removed", "topic")
        event = json.loads(message.payload)
        events[event["clientid"]] = event
    eq((events["keeper"]["fileid"], events["keeper"]["name"], events["keeper"]["size"],
        events["keeper"]["path"], events["keeper"]["user_data"]),
       ("old", "a.bin", 5000, "keeper/old/a.bin", {"a": 1}), "event")
    eq(events["gone"]["name"], "ü %.bin", "name in the event")
    until(lambda: sorted(os.listdir(d.export_root)) == ["keeper"], "its client's directory, too")
    eq(sorted(os.listdir(d.export_root / "keeper")), ["late", "never"], "what stays")
    eq(d.log().count("export removed: its expire_at has come"), 2, "lines in the log")
    up = t.uploader("keeper")
    up.upload("old", data)  # the same bytes again are not taken for a replay of what is gone
    eq(len(d.exported_files()), 3, "exports in the end")


def test_off_by_default(t):
    d = t.daemon("export.retention_interval=1s")
    t.uploader("c").upload("f", some_bytes(10), expire_at=1)
    time.sleep(2.5)
    eq(len(d.exported_files()), 1, "exports")


def test_nothing_else_is_touched(t):
    """A manifest that names something outside its directory, a copy elsewhere, a link, what lies
    beside an export: all stay. One that is due at once still appears, and is announced."""
    d = t.daemon(*OPTIONS)
    watcher = t.client("watcher")
    watcher.subscribe("$file-event/exported")
    root = d.export_root
    victim = t.dir / "victim"
    victim.mkdir()
    manifest = {"clientid": "c", "fileid": "f", "name": "v", "path": "", "size": 1,
                "meta": {"name": "v", "expire_at": 1}}
    (victim / "v").write_text("x")
    (victim / ".manifest.json").write_text(json.dumps({**manifest, "path": "link/v"}))
    (root / "link").symlink_to(victim)
    for at, path in enumerate(["../../victim/v", "d1/f/../../v", "/etc/passwd", "d9/f/v", "d4/f/", "d5/f/..",
                               "d6/f/.manifest.json", "d7/f/sub/v"]):
        place = root / f"d{at}" / "f"
        (place / "sub").mkdir(parents=True)
        (place / "v").write_text("x")
        (place / "sub" / "v").write_text("x")
        (place / ".manifest.json").write_text(json.dumps({**manifest, "path": path}))
    (root / "dx" / "f").mkdir(parents=True)
    (root / "dx" / "f" / ".manifest.json").write_text("{" * 100_000)
    before = sorted(str(p) for p in root.rglob("*"))
    t.uploader("c").upload("f", some_bytes(10), expire_at=1)
    eq(json.loads(watcher.message().payload)["path"], "c/f/a.bin", "exported")
    until(lambda: "export removed" in d.log(), "it is removed")
    time.sleep(1.5)
    eq([p for p in before if not os.path.lexists(p)], [], "what is missing")
    eq(sorted(os.listdir(victim)), [".manifest.json", "v"], "behind the link")


def test_directory_of_that_name(t):
    """A directory that is called like a manifest is looked through as any other."""
    d = t.daemon(*OPTIONS)
    place = d.export_root / ".manifest.json" / "f"
    place.mkdir(parents=True)
    (place / "v").write_text("x")
    (place / ".manifest.json").write_text(json.dumps(
        {"clientid": "c", "fileid": "f", "name": "v", "path": ".manifest.json/f/v", "size": 1,
         "meta": {"name": "v", "expire_at": 1}}))
    until(lambda: not os.listdir(d.export_root), "it goes, and what it leaves empty", 10)


def test_lone_manifests(t):
    """The consumer took the file: its manifest goes when it is old."""
    d = t.daemon(*OPTIONS)
    until_time = int(time.time()) + 4
    for name in ("young", "aged"):
        t.uploader(name).upload("f", some_bytes(10), expire_at=until_time)
        (d.export_dir(name, "f") / "a.bin").unlink()
    hour_ago = time.time() - 3700
    os.utime(d.export_dir("aged", "f") / ".manifest.json", (hour_ago, hour_ago))
    until(lambda: sorted(os.listdir(d.export_root)) == ["young"], "the old one goes", 15)
    yes((d.export_dir("young", "f") / ".manifest.json").exists(), "the young one stays")


def test_many_are_removed_in_steps(t):
    """While a sweep is under way the daemon answers at once, and ends at once."""
    d = t.daemon(*OPTIONS, "transfer.open_client_max=2000")
    c = t.client("many")
    due = int(time.time()) + 3
    messages = []
    for at in range(300):
        messages += [(f"$file/f{at}/init", json.dumps({"name": "a", "expire_at": due})),
                     (f"$file/f{at}/0", b"x"), (f"$file/f{at}/fin/1", b"")]
    for ack in c.publish_all(messages):
        eq(ack.reason, 0, "reason")
    until(lambda: 0 < len(os.listdir(d.export_root / "many")) < 280, "some are gone", 15)
    start = time.monotonic()
    c.ping()
    yes(time.monotonic() - start < 0.5, "a ping in the middle of it")
    d.restart()
    until(lambda: not os.listdir(d.export_root), "all are gone", 30)
