"""fin: sizes, checksums, what is missing, joining and repeating, the manifest."""

import json
import os
import re
import time

from harness import (ALL, BOTH, cases, check_ack, cover_rest, eq, limit, sha256, some_bytes, until,
                     yes)
from rawmqtt import publish_packet


@cases(version=ALL, qos=[0, 1, 2])
def test_export_is_whole_and_in_place(t, version, qos):
    d = t.daemon()
    up = t.uploader("fin", version)
    data = some_bytes(70_000)
    up.init("f", "report.pdf", qos=qos, size=len(data))
    up.segment("f", 0, data, qos=qos)
    up.fin("f", len(data), qos=qos)
    eq(d.export("fin", "f", "report.pdf"), data, "export")
    eq(len(d.exported_files()), 1, "exports")
    eq(d.staged_files(), [], "staging")
    eq(up.status("f")["state"], "exported", "state")
    mode = (d.export_dir("fin", "f") / "report.pdf").stat().st_mode & 0o777
    eq(oct(mode), oct(0o640), "mode of the file")


@cases(version=BOTH, source=["fin", "init", "both"])
def test_checksums(t, version, source):
    """fin's checksum beats init's; a wrong one keeps everything for a repair."""
    d = t.daemon()
    up = t.uploader("sum", version)
    data = some_bytes(50_000)
    good, bad = sha256(data), sha256(b"something else")
    meta = {"init": {"checksum": bad}, "both": {"checksum": bad}, "fin": {}}[source]
    up.init("f", **meta)
    up.segment("f", 0, data)
    body = up.fin("f", len(data), None if source == "init" else bad, code=0x80,
                  description="checksum_mismatch")
    eq((body["expected"], body["actual"]), (bad, good), "expected, actual")
    eq(up.status("f")["state"], "open", "state")
    eq(up.status("f")["received"], len(data), "received")
    eq(d.exported_files(), [], "exports")
    up.fin("f", len(data), good.upper())
    eq(d.export("sum", "f", "a.bin"), data, "export")


@cases(version=BOTH)
def test_checksum_of_init_is_used(t, version):
    d = t.daemon()
    up = t.uploader("sum", version)
    data = some_bytes(5000)
    up.init("f", checksum=sha256(data))
    up.segment("f", 0, b"x" + data[1:])
    body = up.fin("f", len(data), code=0x80, description="checksum_mismatch")
    eq(body["expected"], sha256(data), "expected")
    up.segment("f", 0, data[:1])
    up.fin("f", len(data))
    eq(d.export("sum", "f", "a.bin"), data, "export")


@cases(version=BOTH)
def test_no_checksum_is_computed_all_the_same(t, version):
    d = t.daemon()
    up = t.uploader("man", version)
    data = some_bytes(123_457)
    up.upload("f", data, "a name.txt", 10_000, user_data={"who": ["me", 1.50]},
              expire_at=4102444800)
    manifest = json.loads((d.export_dir("man", "f") / ".manifest.json").read_text())
    shown = {k: manifest[k] for k in ("clientid", "fileid", "name", "size", "sha256", "user_data")}
    eq(shown, {"clientid": "man", "fileid": "f", "name": "a name.txt", "size": len(data),
               "sha256": sha256(data), "user_data": {"who": ["me", 1.5]}}, "manifest")
    yes("4102444800" in json.dumps(manifest), "the metadata is in the manifest")
    times = re.findall(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', json.dumps(manifest))
    eq(len(times), 2, "times in the manifest")


@cases(version=ALL, qos=[0, 1, 2])
def test_incomplete(t, version, qos):
    d = t.daemon()
    up = t.uploader("inc", version)
    data = some_bytes(10_000)
    up.init("f")
    up.fin_incomplete("f", 10_000, [[0, 10_000]], qos=qos)
    up.segment("f", 2000, data[2000:3000])
    up.segment("f", 5000, data[5000:9000])
    up.fin_incomplete("f", 10_000, [[0, 2000], [3000, 5000], [9000, 10_000]], qos=qos)
    up.fin_incomplete("f", 9000, [[0, 2000], [3000, 5000]], qos=qos)
    up.segment("f", 0, data[:5000])
    up.fin_incomplete("f", 10_000, [[9000, 10_000]], qos=qos)
    up.segment("f", 9000, data[9000:])
    up.fin("f", 10_000, sha256(data), qos=qos)
    eq(d.export("inc", "f", "a.bin"), data, "export")


def test_incomplete_lists_at_most_32_ranges(t):
    t.daemon()
    up = t.uploader()
    up.init("f")
    covered = [(10 * i, 10 * i + 5) for i in range(1, 51)]
    for a, b in covered:
        up.segment("f", a, b"x" * (b - a))
    missing = cover_rest(1000, covered)
    eq(len(missing), 51, "ranges in the test itself")
    up.fin_incomplete("f", 1000, missing)


@cases(version=BOTH, qos=[0, 1, 2])
def test_without_init(t, version, qos):
    d = t.daemon()
    up = t.uploader("no", version)
    pattern = re.compile("^incomplete")
    for size in (0, 5):
        up.fin("f", size, qos=qos, code=0x80, description="incomplete", reason_string=pattern)
    up.segment("f", 0, b"hello", qos=qos)
    up.fin("f", 5, qos=qos, code=0x80, description="incomplete", reason_string=pattern)
    up.init("f")
    up.fin("f", 5, qos=qos)
    eq(d.export("no", "f", "a.bin"), b"hello", "export")


@cases(version=BOTH, segments=[False, True])
def test_empty_file(t, version, segments):
    d = t.daemon()
    up = t.uploader("zero", version)
    up.init("f", size=0)
    if segments:
        up.segment("f", 0, b"")
        up.segment("f", 0, b"ignored beyond the end")
    up.fin("f", 0, sha256(b""))
    eq(d.export("zero", "f", "a.bin"), b"", "export")
    up.fin("f", 0)


def test_payload_of_fin_is_ignored(t):
    d = t.daemon()
    up = t.uploader("pay")
    up.init("f")
    up.segment("f", 0, b"abc")
    up.check("$file/f/fin/3", b"x" * 500_000)
    eq(d.export("pay", "f", "a.bin"), b"abc", "export")


def test_size_of_the_topic_beats_size_of_init(t):
    d = t.daemon()
    up = t.uploader("size")
    for file_id, declared in (("more", 5), ("less", 500)):
        up.init(file_id, size=declared)
        up.segment(file_id, 0, b"0123456789")
        up.fin(file_id, 10)
        eq(d.export("size", file_id, "a.bin"), b"0123456789", "export")


@limit(90)
@cases(version=BOTH)
def test_concurrent_fins_join(t, version):
    """Many fins of one transfer: one export, a success and a response message for each."""
    d = t.daemon()
    up = t.uploader("join", version)
    data = some_bytes(24 << 20)
    up.upload("f", data, segment_bytes=1 << 20, fin=False)
    topic = f"$file/f/fin/{len(data)}/{sha256(data)}"
    acks = up.client.publish_all([(topic, b"")] * 20)
    eq(len(acks), 20, "acks")
    for ack in acks:
        check_ack(ack, version, 0, None)
    ids = {up.response()["packet_id"] for _ in range(20)}
    eq(len(ids), 20, "response messages")
    eq([p.name for p in d.generations("join", "f")], ["f"], "generations")
    eq(d.export("join", "f", "a.bin"), data, "export")


@cases(version=BOTH)
def test_repeated_fin(t, version):
    t.daemon()
    up = t.uploader("rep", version)
    data = some_bytes(1000)
    up.upload("f", data)
    up.fin("f", 1000)
    up.fin("f", 1000, sha256(data))
    for size, checksum, text in ((999, None, "size_mismatch"), (1001, None, "size_mismatch"),
                                 (0, None, "size_mismatch"), (999, sha256(data), "size_mismatch"),
                                 (1000, sha256(b""), "checksum_mismatch")):
        up.fin("f", size, checksum, code=0x80, description=text)
    up.fin("f", 1000, sha256(data))


def test_later_publishes_are_handled_while_fin_is_pending(t):
    """The PUBACK of fin is withheld; those behind it are not."""
    t.daemon()
    up = t.uploader("pend")
    c = up.client
    data = some_bytes(48 << 20)
    # In reverse, so that all of the hashing is left to fin.
    up.client.publish("$file/f/init", b'{"name":"a.bin"}')
    pieces = [(f"$file/f/{at}", data[at:at + (4 << 20)]) for at in range(0, len(data), 4 << 20)]
    c.publish_all(pieces[::-1], window=4)
    batch = publish_packet(f"$file/f/fin/{len(data)}", b"", 1, 900)
    batch += publish_packet("$file/g/init", b'{"name":"g"}', 1, 901)
    batch += publish_packet("other/topic", b"x", 1, 902)
    c.send(batch)
    order = [c.wait(4).packet_id for _ in range(3)]
    eq(sorted(order), [900, 901, 902], "acks")
    eq(order[-1], 900, "fin of 48 MiB that were not hashed yet is the last to be acknowledged")


def test_fin_without_its_client(t):
    """The client may leave during fin: the export goes on, and the response is published."""
    d = t.daemon("events.subscribers=*")
    listener = t.client("listener")
    listener.subscribe("$file-event/exported", "answers/#")
    c = t.client("gone")
    data = some_bytes(24 << 20)
    c.publish("$file/f/init", b'{"name":"a.bin"}')
    c.publish_all([(f"$file/f/{at}", data[at:at + (1 << 20)])
                   for at in range(0, len(data), 1 << 20)][::-1], window=8)
    c.send(publish_packet(f"$file/f/fin/{len(data)}", b"", 1, 900,
                          props={"response_topic": "answers/1"}))
    time.sleep(0.005)
    c.abandon()
    topics = sorted(listener.message().topic for _ in range(2))
    eq(topics, ["$file-event/exported", "answers/1"], "messages")
    eq(d.export("gone", "f", "a.bin"), data, "export")


def test_a_file_in_the_way_is_never_replaced(t):
    """Somebody put something at the export's place: it stays, the upload goes beside it."""
    d = t.daemon()
    place = d.export_dir("way", "f")
    place.mkdir(parents=True)
    (place / "a.bin").write_bytes(b"precious")
    (place / ".manifest.json").write_bytes(b"theirs")
    up = t.uploader("way")
    up.upload("f", b"new content")
    eq((place / "a.bin").read_bytes(), b"precious", "the file that was there")
    eq((place / ".manifest.json").read_bytes(), b"theirs", "the manifest that was there")
    contents = sorted(p.read_bytes() for p in d.exported_files())
    eq(contents, [b"new content", b"precious"], "exports")


def test_export_options(t):
    d = t.daemon("export.file_mode=0604", "export.dir_mode=0711", "export.manifest=false",
                 f"export.dir={t.dir}/elsewhere")
    up = t.uploader("opt")
    up.upload("f", b"data")
    found = t.dir / "elsewhere" / "opt" / "f"
    eq(os.listdir(found), ["a.bin"], "no manifest")
    eq(oct((found / "a.bin").stat().st_mode & 0o777), oct(0o604), "mode of the file")
    eq(oct(found.stat().st_mode & 0o777), oct(0o711), "mode of the directory")
    eq(d.exported_files(), [], "nothing in the default place")


def test_manifest_is_there_when_the_file_is(t):
    """A consumer that sees the file can read its manifest at once."""
    d = t.daemon()
    c = t.client("see")
    for at in range(50):
        c.publish(f"$file/f{at}/init", b'{"name":"a.bin"}')
        c.publish(f"$file/f{at}/0", b"x")
        c.send(publish_packet(f"$file/f{at}/fin/1", b"", 1, 5000))
        place = d.export_dir("see", f"f{at}")
        until(lambda: (place / "a.bin").exists(), "the export", every=0)
        eq(json.loads((place / ".manifest.json").read_text())["size"], 1, "size in the manifest")
        c.wait(4, packet_id=5000)
