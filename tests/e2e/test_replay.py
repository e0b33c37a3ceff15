"""After success: replays cost nothing, new content is never lost, no export is overwritten."""

import json
import re
import shutil
import time

from harness import BOTH, cases, check_ack, eq, segments, sha256, some_bytes, until, yes
from rawmqtt import publish_packet


def contents(d, client_id, file_id="f"):
    """What the generations of a file id hold, the first one first."""
    return [next(p.read_bytes() for p in place.iterdir() if not p.name.endswith(".manifest.json"))
            for place in d.generations(client_id, file_id)]


def staged_nothing(d):
    """A generation that turned out to be a replay is removed right behind its answer."""
    until(lambda: not d.staged_files(), "staging is empty", 5)


@cases(version=BOTH, size=[0, 10, 300_000, 2 << 20], restart=[False, True])
def test_everything_again(t, version, size, restart):
    """The habit of a client that lost its acks, or names files by their content's hash."""
    d = t.daemon()
    data = some_bytes(size)
    t.uploader("again", version).upload("f", data, segment_bytes=60_000)
    if restart:
        d.restart()
    up = t.uploader("again", version)
    for _ in range(2):
        up.upload("f", data, segment_bytes=60_000)
        staged_nothing(d)
    # In other pieces, in another order, and with checksums.
    for topic, piece in segments("f", data, 77_777)[::-1]:
        up.check(f"{topic}/{sha256(piece)}", piece)
    # Recognised one by one: no transfer was opened for them.
    eq((up.status("f")["state"], d.stats()["transfers_open"]), ("exported", 0), "before fin")
    up.fin("f", size, sha256(data))
    staged_nothing(d)
    eq(contents(d, "again"), [data], "generations")


@cases(version=BOTH)
def test_fin_that_differs_is_refused(t, version):
    d = t.daemon()
    up = t.uploader("dif", version)
    up.upload("f", b"0123456789")
    up.fin("f", 9, code=0x80, description="size_mismatch")
    up.fin("f", 11, code=0x80, description="size_mismatch")
    body = up.fin("f", 10, "0" * 64, code=0x80, description="checksum_mismatch")
    eq((body["expected"], body["actual"]), ("0" * 64, sha256(b"0123456789")), "expected, actual")
    up.fin("f", 10, sha256(b"0123456789"))
    eq(contents(d, "dif"), [b"0123456789"], "generations")


@cases(version=BOTH, size=[10, 200_000])
def test_new_content_is_a_new_generation(t, version, size):
    d = t.daemon()
    up = t.uploader("gen", version)
    versions = [some_bytes(size + i, seed=i) for i in range(3)]
    for data in versions:
        up.upload("f", data, segment_bytes=50_000)
        eq(up.status("f")["state"], "exported", "state")
    eq(contents(d, "gen"), versions, "generations")
    staged_nothing(d)
    # The last one again is a replay.
    up.upload("f", versions[-1], segment_bytes=50_000)
    eq(contents(d, "gen"), versions, "generations")


def test_new_generation_has_its_own_metadata(t):
    d = t.daemon()
    up = t.uploader("meta")
    up.upload("f", b"first content", "one.txt", user_data=1)
    up.upload("f", b"other", "two.txt", user_data=2)
    first, second = d.generations("meta", "f")
    eq((first / "one.txt").read_bytes(), b"first content", "first")
    eq((second / "two.txt").read_bytes(), b"other", "second")
    manifest = json.loads((second / ".manifest.json").read_text())
    eq((manifest["name"], manifest["user_data"], manifest["sha256"]), ("two.txt", 2, sha256(b"other")),
       "manifest of the second")
    eq(json.loads((first / ".manifest.json").read_text())["user_data"], 1, "first manifest")


def test_new_generation_without_init_has_the_last_metadata(t):
    d = t.daemon()
    up = t.uploader("last")
    up.upload("f", b"first content", "name.txt")
    up.segment("f", 0, b"OTHER content")
    eq(up.status("f")["state"], "open", "state")
    up.fin("f", 13)
    eq((d.generations("last", "f")[1] / "name.txt").read_bytes(), b"OTHER content", "second")


def test_same_content_under_another_name_is_a_generation_of_its_own_metadata(t):
    """init with other metadata is no replay; the digest is the same, so nothing is stored twice."""
    d = t.daemon()
    up = t.uploader("nm")
    up.upload("f", b"content", "one.txt")
    up.upload("f", b"content", "two.txt")
    eq(contents(d, "nm")[0], b"content", "the first export stays")
    yes(all(c == b"content" for c in contents(d, "nm")), "no other content")
    staged_nothing(d)


@cases(shared=[0, 1])
def test_new_content_that_shares_bytes_is_never_lost(t, shared):
    """Only one block differs. Whatever is answered, the client ends with its new file exported."""
    d = t.daemon()
    up = t.uploader("share")
    old = some_bytes(400_000)
    new = bytearray(old)
    at = (0, 380_000)[shared]
    new[at:at + 10] = b"0123456789"
    new = bytes(new)
    up.upload("f", old, segment_bytes=40_000)
    for topic, piece in segments("f", new, 40_000):
        up.check(topic, piece)
    topic = f"$file/f/fin/{len(new)}/{sha256(new)}"
    ack = up.client.publish(topic)
    body = up.response()
    if ack.reason != 0:
        eq(body["reason_description"], "incomplete", "description")
        for a, b in body["missing"]:
            up.segment("f", a, new[a:b])
        up.check(topic)
    eq(contents(d, "share"), [old, new], "generations")


def test_incomplete_new_generation_is_not_a_success(t):
    """fin of other content that is not all there must not be taken for the old file."""
    d = t.daemon()
    up = t.uploader("half")
    old, new = some_bytes(100_000, 1), some_bytes(100_000, 2)
    up.upload("f", old, segment_bytes=25_000)
    up.segment("f", 0, new[:25_000])
    up.fin_incomplete("f", 100_000, [[25_000, 100_000]])
    for at in range(25_000, 100_000, 25_000):
        up.segment("f", at, new[at:at + 25_000])
    up.fin("f", 100_000)
    eq(contents(d, "half"), [old, new], "generations")


@cases(by=["fin", "init"])
def test_replay_cut_short(t, by):
    """The file was taken away, part of it came again; fin names the exported size and checksum."""
    d = t.daemon()
    up = t.uploader("cut")
    data = some_bytes(200_000)
    meta = {"checksum": sha256(data)} if by == "init" else {}
    up.upload("f", data, segment_bytes=50_000, **meta)
    shutil.rmtree(d.export_dir("cut", "f"))
    up.segment("f", 50_000, data[50_000:100_000])
    up.fin("f", len(data), sha256(data) if by == "fin" else None)
    eq(d.exported_files(), [], "no second export")
    staged_nothing(d)


def test_everything_again_with_dup_after_the_file_was_taken(t):
    """What can't be compared counts as a replay when DUP is set."""
    d = t.daemon()
    up = t.uploader("dup")
    data = some_bytes(100_000)
    up.upload("f", data, segment_bytes=30_000)
    shutil.rmtree(d.export_dir("dup", "f"))
    for topic, piece in segments("f", data, 30_000):
        up.check(topic, piece, dup=True)
    up.fin("f", len(data))
    eq(d.exported_files(), [], "no second export")
    staged_nothing(d)


def test_other_content_after_the_file_was_taken(t):
    d = t.daemon()
    up = t.uploader("taken")
    up.upload("f", some_bytes(50_000, 1), segment_bytes=10_000)
    shutil.rmtree(d.export_dir("taken", "f"))
    new = some_bytes(50_000, 2)
    up.upload("f", new, segment_bytes=10_000)
    eq([p.read_bytes() for p in d.exported_files()], [new], "exports")


def test_after_the_replay_window(t):
    """No longer remembered: the same again is a new file, beside the old one, never over it."""
    d = t.daemon("transfer.replay_window=1s")
    up = t.uploader("win")
    up.upload("f", b"content")
    time.sleep(2.5)
    eq(up.status("f")["state"], "none", "state")
    up.fin("f", 7, code=0x80, description="incomplete",
           reason_string=re.compile("^incomplete"))
    up.upload("f", b"content, changed")
    eq(sorted(contents(d, "win")), [b"content", b"content, changed"], "generations")


def test_lost_ack_of_fin(t):
    """The connection dies between fin and its PUBACK: the client does it all again."""
    d = t.daemon()
    data = some_bytes(120_000)
    for round_no in range(5):
        c = t.client("lost")
        c.publish("$file/f/init", b'{"name":"a.bin"}')
        for ack in c.publish_all(segments("f", data, 10_000)):
            check_ack(ack, 5, 0, None)
        c.send(publish_packet(f"$file/f/fin/{len(data)}/{sha256(data)}", b"", 1, 999))
        if round_no % 2:
            time.sleep(0.01)
        c.abandon()
    up = t.uploader("lost")
    up.upload("f", data, segment_bytes=10_000)
    eq(contents(d, "lost"), [data], "generations")
    staged_nothing(d)
