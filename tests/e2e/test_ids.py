"""Client ids, file ids and names: any UTF-8 that MQTT allows, and none reaches the file system bare."""

import hashlib
import re
import struct

from harness import BOTH, V5, V311, cases, eq, escape_id, sha256, yes
from rawmqtt import Closed, publish_packet

IDS = ["..", ".", "...", ".hidden", "a.b", "%", "%2F", "%2e%2e", "~", "a~1", "f~2", "🦀", "文件", "e\u0301",
       "\u00e9", "A", "a", "-", "_", "*", "?", "|", "\\", "c:", "con", "nul.txt", "x y", " ", "\t", "\u007f",
       "\u2028", "\ufeff", "'", '"', "$(reboot)", ";", "&&", "<>", "a\r\nb", "\U0010ffff"]


@cases(version=BOTH)
def test_file_ids(t, version):
    """Each id has a directory of its own, under the name that the escaping gives it."""
    d = t.daemon()
    up = t.uploader("ids", version)
    for at, file_id in enumerate(IDS):
        up.init(file_id)
        up.segment(file_id, 0, str(at).encode())
    for at, file_id in enumerate(IDS):
        up.fin(file_id, len(str(at)))
        eq(d.export("ids", file_id, "a.bin"), str(at).encode(), f"export of {file_id!r}")
    names = sorted(p.name for p in (d.export_root / "ids").iterdir())
    eq(names, sorted(escape_id(i) for i in IDS), "directories")
    eq(d.staged_files(), [], "staging")


@cases(version=BOTH)
def test_client_ids(t, version):
    d = t.daemon()
    for at, client_id in enumerate(IDS + ["a/b", "../../x", "/", "//", "/etc"]):
        c = t.client(client_id, version)
        c.publish("$file/f/init", b'{"name":"a.bin"}')
        c.publish("$file/f/0", str(at).encode())
        ack = c.publish(f"$file/f/fin/{len(str(at))}")
        eq(ack.reason or 0, 0, "PUBACK")
        eq(d.export(client_id, "f", "a.bin"), str(at).encode(), f"export of {client_id!r}")
        c.close()
    eq(sorted(p.name for p in d.data.iterdir() if p.is_dir()), ["export", "journal", "staging"],
       "directories beside each other")


def test_client_id_with_a_slash_has_its_response_topic(t):
    t.daemon()
    up = t.uploader("a/b")
    up.init("f")
    spy = t.client("a")
    eq(spy.subscribe("$file-response/a/b").codes, [0x87], "SUBACK of another client")


@cases(client_id=["+", "#", "a/+", "a/#"])
def test_client_id_with_a_wildcard(t, client_id):
    """Its response topic would be a pattern over those of others: it has none, but it can upload."""
    d = t.daemon()
    c = t.client(client_id)
    eq(c.subscribe(f"$file-response/{client_id}").codes, [0x87], "SUBACK")
    c.publish("$file/f/init", b'{"name":"x"}')
    eq(c.publish("$file/f/fin/0").reason, 0, "PUBACK")
    eq(len(d.exported_files()), 1, "exports")


@cases(version=BOTH)
def test_case_pairs_stay_apart(t, version):
    d = t.daemon()
    for client_id in ("Case", "CASE", "case"):
        up = t.uploader(client_id, version)
        for file_id in ("File", "FILE", "file"):
            text = f"{client_id} {file_id}".encode()
            up.init(file_id)
            up.segment(file_id, 0, text)
    names = [p.name for p in d.staged_files()]
    eq(len({n.lower() for n in names}), 9, "staging files, also where case is folded")
    for client_id in ("Case", "CASE", "case"):
        up = t.uploader(client_id, version)
        for file_id in ("File", "FILE", "file"):
            text = f"{client_id} {file_id}".encode()
            up.fin(file_id, len(text), sha256(text))
            eq(d.export(client_id, file_id, "a.bin"), text, "export")


@cases(version=BOTH)
def test_long_ids(t, version):
    """60 KB of file id or client id: shortened on disk by a hash, and still apart."""
    d = t.daemon("mqtt.header_max=128KiB", "io.buffer_size=512KiB")
    longest = 60_000
    up = t.uploader("long", version)
    ids = ["x" * longest, "x" * (longest - 1), "x" * (longest - 1) + "y", "🦀" * (longest // 4),
           "%" * longest, "x" * 200, "x" * 201]
    for at, file_id in enumerate(ids):
        up.init(file_id)
        up.segment(file_id, 0, str(at).encode())
        up.fin(file_id, 1)
    found = {p.parent.name: p.read_bytes() for p in d.exported_files()}
    eq(sorted(found.values()), [str(at).encode() for at in range(len(ids))], "contents")
    eq(found["x" * 200], b"5", "200 bytes need no shortening")
    for name in found:
        yes(len(name.encode()) <= 200, f"{len(name.encode())} bytes")
        if name != "x" * 200:
            yes(re.search(r"~[0-9a-f]{32}$", name), f"ends in a hash: {name[-40:]}")
    c = t.client("c" * longest, version)
    c.publish("$file/f/init", b'{"name":"a"}')
    c.publish("$file/f/fin/0")
    eq(len(d.exported_files()), len(ids) + 1, "exports")


def test_ids_of_60_kilobytes_by_default(t):
    """The header limit of 32 KiB is told by 0x95, not by silence."""
    t.daemon()
    c = t.client("c")
    c.send(publish_packet("$file/" + "x" * 60_000 + "/init", b"{}", 1, 1))
    eq([p.reason for p in c.wait_closed()], [0x95], "DISCONNECT")


@cases(version=BOTH)
def test_nul_is_refused(t, version):
    t.daemon()
    c = t.client("nul", version)
    c.send(publish_packet(b"$file/a\0b/init", b'{"name":"a"}', 1, 1, version))
    packets = c.wait_closed()
    yes([p.reason for p in packets] in ([[0x81], [0x82]] if version == V5 else [[]]), f"{packets}")
    try:
        t.client(b"a\0b", version)
    except (Closed, ConnectionError):
        return
    raise AssertionError("a client id with NUL was let in")


def test_names(t):
    """The export's name is the name of init; only % and a leading dot are escaped."""
    d = t.daemon()
    up = t.uploader("names")
    names = {"plain.txt": "plain.txt", "with space": "with space", "文件.txt": "文件.txt", "🦀": "🦀",
             "100%": "100%25", "%2F": "%252F", ".hidden": "%2Ehidden", "...": "%2E..", "a.b.c": "a.b.c",
             "-rf": "-rf", "~": "~", "*?|<>\"'": "*?|<>\"'", ".manifest.json": "%2Emanifest.json",
             "x" * 240: "x" * 240, "é" * 120: "é" * 120}
    for at, (name, on_disk) in enumerate(names.items()):
        up.init(f"f{at}", name)
        up.segment(f"f{at}", 0, name.encode())
        up.fin(f"f{at}", len(name.encode()))
        files = sorted(p.name for p in d.export_dir("names", f"f{at}").iterdir())
        eq(files, sorted([on_disk, ".manifest.json"]), f"files for {name!r}")
        eq(d.export("names", f"f{at}", on_disk), name.encode(), "export")


def test_name_that_becomes_too_long_when_escaped(t):
    d = t.daemon()
    up = t.uploader("names")
    for at, name in enumerate(("%" * 240, "%" * 239 + "x")):
        up.init(f"f{at}", name)
        up.fin(f"f{at}", 0)
    found = [p.name for p in d.exported_files()]
    eq(len(set(found)), 2, "exports")
    for name in found:
        yes(len(name.encode()) <= 255 and re.search(r"~[0-9a-f]{16}", name), f"shortened: {name}")


def test_ids_survive_a_restart(t):
    d = t.daemon()
    up = t.uploader("ré/🦀", V311)
    for at, file_id in enumerate(IDS):
        up.segment(file_id, 0, str(at).encode())
    d.restart(kill=True)
    up = t.uploader("ré/🦀", V311)
    for at, file_id in enumerate(IDS):
        eq(up.status(file_id)["received"], len(str(at)), f"received of {file_id!r}")
        up.init(file_id)
        up.fin(file_id, len(str(at)))
        eq(d.export("ré/🦀", file_id, "a.bin"), str(at).encode(), "export")


def emqx_escape(text):
    """emqx_ft_fs_util:escape_filename."""
    def escaped(c):
        return "".join(f"%{b:02X}" for b in c.encode())

    if text in (".", ".."):
        return escaped(text)
    return "".join(escaped(c) if c in "%:\\/" or not 32 <= ord(c) or 127 <= ord(c) <= 159 else c
                   for c in text)


def emqx_directory(client_id, file_id):
    """Where EMQX's local exporter puts a transfer: buckets of the SHA-1 over the term."""
    def term(text):
        return b"m" + struct.pack(">I", len(text.encode())) + text.encode()

    digest = hashlib.sha1(b"\x83h\x02" + term(client_id) + term(file_id)).hexdigest().upper()
    return f"{digest[:2]}/{digest[2:4]}/{digest[4:]}/{emqx_escape(client_id)}/{emqx_escape(file_id)}"


def test_layout_of_emqx(t):
    d = t.daemon("export.layout=emqx")
    expected = {}
    names = ["a.bin", "100%", ".hidden", "%41", "~2", "文件.txt", ".manifest.json"]
    for client_id in ("cam", "..", "a/b:c%", "ü ~2"):
        up = t.uploader(client_id)
        for at, file_id in enumerate(["f1", *IDS]):
            name = names[at % len(names)]
            up.upload(file_id, f"{client_id} {at}".encode(), name=name)
            name = "%2Emanifest.json" if name == ".manifest.json" else name
            expected[f"{emqx_directory(client_id, file_id)}/{name}"] = f"{client_id} {at}"
        # The next generation lies beside the first.
        up.upload("f1", b"another", name="a.bin")
        expected[f"{emqx_directory(client_id, 'f1')}~2/a.bin"] = "another"
    found = {str(p.relative_to(d.export_root)): p.read_text() for p in d.exported_files()}
    eq(found, expected, "exports")
    d.restart()
    t.uploader("cam").upload("f1", b"another", name="a.bin")
    eq(len(d.exported_files()), len(expected), "exports after a replay")
