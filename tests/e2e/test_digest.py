"""verify.digest: which files are hashed, and what is said of those that are not."""

import json

from harness import BOTH, cases, eq, sha256, some_bytes, until, yes


def manifest_of(d, client_id, file_id):
    return json.loads((d.export_dir(client_id, file_id) / ".manifest.json").read_text())


@cases(version=BOTH)
def test_nobody_asked(t, version):
    """Complete, but not hashed: null in the manifest, also after a restart."""
    d = t.daemon("verify.digest=asked")
    up = t.uploader("cam", version)
    data = some_bytes(9_000_000)
    up.upload("f", data, segment_bytes=1 << 20)
    eq(d.export("cam", "f", "a.bin"), data, "export")
    eq(manifest_of(d, "cam", "f")["sha256"], None, "sha256")
    eq(d.stats()["hashed_bytes"], 0, "hashed_bytes")
    for restarts in range(2):
        up.fin("f", len(data))
        up.fin("f", len(data), sha256(data), code=0x80, description="not_verified")
        up.fin("f", len(data) - 1, code=0x80, description="size_mismatch")
        up.segment("f", 1000, data[1000:2000])
        eq(len(d.exported_files()), 1, "exports")
        if restarts == 0:
            d.restart()
            up = t.uploader("cam", version)


@cases(version=BOTH)
def test_incomplete_all_the_same(t, version):
    d = t.daemon("verify.digest=asked")
    up = t.uploader("cam", version)
    data = some_bytes(300_000)
    up.init("f")
    up.segment("f", 0, data[:100_000])
    up.segment("f", 200_000, data[200_000:])
    eq(up.status("f")["frontier"], 100_000, "frontier")
    up.fin_incomplete("f", len(data), [[100_000, 200_000]])
    up.segment("f", 100_000, data[100_000:200_000])
    up.fin("f", len(data))
    eq(d.export("cam", "f", "a.bin"), data, "export")


@cases(source=["init", "fin"])
def test_asked_by(t, source):
    d = t.daemon("verify.digest=asked")
    up = t.uploader("cam")
    data = some_bytes(3_000_000)
    bad = sha256(b"something else")
    up.init("f", **({"checksum": bad} if source == "init" else {}))
    for at in range(0, len(data), 500_000):
        up.segment("f", at, data[at:at + 500_000])
    body = up.fin("f", len(data), bad if source == "fin" else None, code=0x80,
                  description="checksum_mismatch")
    eq(body["actual"], sha256(data), "actual")
    eq(d.exported_files(), [], "exports")
    up.fin("f", len(data), sha256(data))
    eq(d.export("cam", "f", "a.bin"), data, "export")
    eq(manifest_of(d, "cam", "f")["sha256"], sha256(data), "sha256")
    up.fin("f", len(data), sha256(data))


def test_next_generation_is_hashed(t):
    d = t.daemon("verify.digest=asked")
    up = t.uploader("cam")
    one, two = some_bytes(50_000, 1), some_bytes(50_000, 2)
    up.upload("f", one)
    up.upload("f", two)
    until(lambda: len(d.generations("cam", "f")) == 2, "two generations")
    found = sorted((m["sha256"] or "") for m in (
        json.loads((d.export_root / "cam" / g / ".manifest.json").read_text()) for g in ("f", "f~2")))
    eq(found, ["", sha256(two)], "digests")
    yes(d.is_alive(), "alive")
