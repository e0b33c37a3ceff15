"""init: the rules of its payload, repetition, and admission."""

import json

from harness import ALL, BOTH, V5, cases, check_ack, eq, sha256, some_bytes, until, yes

# What init must carry and may carry: every one is accepted.
GOOD = [
    {"name": "a"}, {"name": "a" * 240}, {"name": "é" * 120}, {"name": "%41%"}, {"name": ".hidden"},
    {"name": "..."}, {"name": " leading and trailing "}, {"name": "文件.txt"}, {"name": "🦀.rs"},
    {"name": "a;b&c|d$e`f'g\"h"}, {"name": "-rf"}, {"name": "~1"}, {"name": "a", "size": 0},
    {"name": "a", "size": "123"}, {"name": "a", "size": 1 << 30}, {"name": "a", "checksum": "aB" * 32},
    {"name": "a", "expire_at": 0}, {"name": "a", "expire_at": 4102444800},
    {"name": "a", "segments_ttl": 1}, {"name": "a", "segments_ttl": 10 ** 9},
    {"name": "a", "user_data": None}, {"name": "a", "user_data": {"deep": [1, {"x": None}]}},
    {"name": "a", "user_data": "text"}, {"name": "a", "user_data": 0}, {"name": "a", "user_data": []},
    {"name": "a", "size": None, "checksum": None, "expire_at": None, "segments_ttl": None},
    {"name": "a", "unknown": {"key": 1}, "Name": 5},
]
# No JSON object.
NO_JSON = [b"", b" ", b"{", b"{]", b"nonsense", b"{\"name\":\"a\"} x", b"{'name':'a'}", b"[]", b"null", b"\"a\"",
           b"1", b"true", b"[{\"name\":\"a\"}]", b"{\"name\":\"\xff\"}", b"\xef\xbb\xbf", b"\0",
           b"{\"name\":\"a\"", b"{\"name\":\"a\",}"]
# An object, but a field is missing or breaks its rule.
BAD = [
    {}, {"size": 1}, {"name": None}, {"name": ""}, {"name": 1}, {"name": ["a"]}, {"name": "."},
    {"name": ".."}, {"name": "a/b"}, {"name": "/"}, {"name": "a\\b"}, {"name": "a:b"},
    {"name": "a\nb"}, {"name": "\u007f"}, {"name": "a\u0085"}, {"name": "a\u0000b"},
    {"name": "a\ufffe"}, {"name": "a\uffff"}, {"name": "a" * 241}, {"name": "é" * 121},
    {"name": "a", "size": -1}, {"name": "a", "size": 1.5}, {"name": "a", "size": "x"},
    {"name": "a", "size": "-1"}, {"name": "a", "size": ""}, {"name": "a", "size": True},
    {"name": "a", "size": [1]}, {"name": "a", "size": 1 << 63}, {"name": "a", "checksum": ""},
    {"name": "a", "checksum": "ab"}, {"name": "a", "checksum": "g" * 64},
    {"name": "a", "checksum": "a" * 63}, {"name": "a", "checksum": "a" * 65},
    {"name": "a", "checksum": 5}, {"name": "a", "expire_at": -1}, {"name": "a", "expire_at": 0.5},
    {"name": "a", "expire_at": "soon"}, {"name": "a", "segments_ttl": 0},
    {"name": "a", "segments_ttl": -5}, {"name": "a", "segments_ttl": 1.5},
]


@cases(version=ALL, qos=[0, 1, 2])
def test_accepted(t, version, qos):
    t.daemon()
    up = t.uploader(version=version)
    for at, meta in enumerate(GOOD):
        up.check(f"$file/f{at}/init", meta, qos)
    for at, meta in enumerate(GOOD):
        eq(up.status(f"f{at}")["state"], "open", f"state after {meta}")


@cases(version=ALL, qos=[0, 1, 2])
def test_no_json(t, version, qos):
    t.daemon()
    up = t.uploader(version=version)
    for payload in NO_JSON:
        up.check("$file/f/init", payload, qos, 0x80, "invalid_filemeta_json")
    eq(up.status("f")["state"], "none", "state")


@cases(version=ALL, qos=[0, 1, 2])
def test_bad_fields(t, version, qos):
    t.daemon()
    up = t.uploader(version=version)
    for meta in BAD:
        up.check("$file/f/init", meta, qos, 0x80, "invalid_filemeta")
    # A lone surrogate can't be a character of any text.
    up.check("$file/f/init", b'{"name":"\\ud800"}', qos, 0x80, "invalid_filemeta_json")
    eq(up.status("f")["state"], "none", "state")


def test_payload_over_its_limit(t):
    t.daemon()
    up = t.uploader()
    pad = 65536 - len(json.dumps({"name": "a", "user_data": ""}))
    up.check("$file/f/init", {"name": "a", "user_data": "x" * pad})
    up.check("$file/g/init", {"name": "a", "user_data": "x" * (pad + 1)}, 1, 0x80,
             "invalid_filemeta")
    up.check("$file/h/init", b"x" * (8 << 20), 1, 0x80, "invalid_filemeta")
    up.check("$file/i/init", {"name": "a"})


@cases(version=BOTH)
def test_repeated(t, version):
    """Equal metadata is a success in any spelling; other metadata a conflict that changes nothing."""
    d = t.daemon()
    up = t.uploader("rep", version)
    up.check("$file/f/init", b'{"name":"a.bin","size":5,"user_data":{"a":1,"b":[2]}}')
    up.check("$file/f/init", b'{"name":"a.bin","size":5,"user_data":{"a":1,"b":[2]}}')
    up.check("$file/f/init", b' {"user_data":{ "b":[2], "a":1}, "size":"5", "x":1,\n"name":"a.bin"}')
    for other in (b'{"name":"b.bin","size":5,"user_data":{"a":1,"b":[2]}}',
                  b'{"name":"a.bin","size":6,"user_data":{"a":1,"b":[2]}}',
                  b'{"name":"a.bin","size":5,"user_data":{"a":1,"b":[3]}}',
                  b'{"name":"a.bin","size":5}',
                  b'{"name":"a.bin","user_data":{"a":1,"b":[2]}}'):
        up.check("$file/f/init", other, 1, 0x80, "filemeta_conflict")
    up.segment("f", 0, b"hello")
    up.check("$file/f/init", b'{"name":"b.bin"}', 1, 0x80, "filemeta_conflict")
    eq(up.status("f")["received"], 5, "received bytes")
    up.fin("f", 5)
    eq(d.export("rep", "f", "a.bin"), b"hello", "export under the first name")


def test_conflict_of_each_key(t):
    t.daemon()
    up = t.uploader()
    base = {"name": "a", "size": 1, "checksum": "a" * 64, "expire_at": 4102444800,
            "segments_ttl": 600, "user_data": "u"}
    up.check("$file/f/init", base)
    for key, value in (("name", "b"), ("size", 2), ("checksum", "b" * 64), ("expire_at", 4102444801),
                       ("segments_ttl", 601), ("user_data", "v")):
        up.check("$file/f/init", {**base, key: value}, 1, 0x80, "filemeta_conflict")
    up.check("$file/f/init", {**base, "checksum": "A" * 64})


def test_after_abort_other_metadata_is_fine(t):
    t.daemon()
    up = t.uploader()
    up.init("f", "a", size=10)
    up.abort("f")
    up.init("f", "b", size=11)
    eq(up.status("f")["size"], 11, "size")


@cases(qos=[0, 1, 2])
def test_too_large(t, qos):
    t.daemon("transfer.file_max=1MiB")
    up = t.uploader()
    up.init("f", size=1 << 20, qos=qos)
    up.init("g", size=(1 << 20) + 1, qos=qos, code=0x97, description="too_large")
    eq(up.status("g")["state"], "none", "state")


@cases(qos=[1, 2])
def test_no_space(t, qos):
    """A file that can't fit is refused before its first byte; one that fits is taken."""
    t.daemon("transfer.file_max=1024TiB", "transfer.preallocate=sparse")
    up = t.uploader()
    up.init("f", size=1 << 49, qos=qos, code=0x97, description="enospc")
    up.init("g", size=1 << 20, qos=qos)


@cases(qos=[1, 2])
def test_quota(t, qos):
    t.daemon("transfer.open_client_max=3", "transfer.staged_max=4MiB")
    up = t.uploader()
    up.init("f", size=5 << 20, qos=qos, code=0x97, description="quota_exceeded")
    up.init("f", size=3 << 20, qos=qos)
    up.init("g", size=2 << 20, qos=qos, code=0x97, description="quota_exceeded")
    up.init("g", size=1 << 20, qos=qos)
    up.init("h", qos=qos)
    up.init("i", qos=qos, code=0x97, description="quota_exceeded")
    up.abort("f")
    up.init("i", size=3 << 20, qos=qos)


def test_quota_of_bytes_per_client(t):
    """What init declares and what segments reach counts for the client that sent it, and for nobody
    else, across a restart; what ends gives it back."""
    d = t.daemon("transfer.staged_client_max=1MiB")
    up, other = t.uploader("greedy"), t.uploader("other")
    up.init("f", size=(1 << 20) + 1, code=0x97, description="quota_exceeded")
    yes("limit=transfer.staged_client_max clientid=greedy" in d.log(), "the log names the limit")
    up.init("f", size=600_000)
    up.segment("g", 400_000, b"x" * 1000)  # a file of no declared size reaches as far as its segments
    up.segment("g", 600_000, b"x" * 1000, code=0x97, description="quota_exceeded")
    up.segment("g", 0, b"x" * 100_000)
    up.init("h", size=60_000, code=0x97, description="quota_exceeded")
    other.init("f", size=1 << 20)
    d.restart(kill=True)
    up, other = t.uploader("greedy"), t.uploader("other")
    up.init("h", size=60_000, code=0x97, description="quota_exceeded")
    other.init("g", size=1, code=0x97, description="quota_exceeded")
    up.abort("f")
    up.upload("h", some_bytes(60_000), segment_bytes=10_000)
    up.init("i", size=600_000)  # an exported file does not count any more
    up.init("j", size=100_000, code=0x97, description="quota_exceeded")


def test_declared_size_is_reserved(t):
    """preallocate: reserve takes the space at init; the file is still sparse-safe: it exports right."""
    d = t.daemon()
    up = t.uploader("res")
    data = some_bytes(300_000)
    up.init("f", size=8 << 20)
    staged = d.staged_files()
    eq(len(staged), 1, "staging files")
    yes(staged[0].stat().st_blocks * 512 >= 8 << 20, "blocks are reserved")
    up.upload("f", data, size=8 << 20, segment_bytes=100_000)
    exported = d.export_dir("res", "f") / "a.bin"
    eq(sha256(exported.read_bytes()), sha256(data), "digest")
    yes(exported.stat().st_blocks * 512 < 1 << 20, "the reserve beyond the end is given back")


def test_response_shows_the_topic_verbatim(t):
    t.daemon()
    up = t.uploader()
    topic = '$file/"quoted\\ é 🦀/init'
    up.check(topic, {"name": "a"})


def test_v5_packet_of_success_is_short(t):
    """A success needs no reason string: two bytes of body, as the specification permits."""
    t.daemon()
    c = t.client(version=V5)
    ack = c.publish("$file/f/init", b'{"name":"a"}')
    check_ack(ack, V5, 0, None)
    eq(len(ack.body), 2, "bytes of the body")


@cases(mode=["$file", "$file-async"])
def test_init_behind_a_fin(t, mode):
    """Pipelined behind a fin, an init with other metadata is the next generation's, and what comes
    after it, too."""
    d = t.daemon()
    c = t.client("c")
    one, two = some_bytes(3_000_000, 1), some_bytes(2_000_000, 2)
    messages = []
    for name, data in (("one", one), ("two", two), ("empty", b"")):
        messages.append(("$file/f/init", json.dumps({"name": name}).encode()))
        messages += [(f"$file/f/{at}", data[at:at + 200_000]) for at in range(0, len(data), 200_000)]
        messages.append((f"{mode}/f/fin/{len(data)}/{sha256(data)}", b""))
    for ack in c.publish_all(messages, window=1000):
        check_ack(ack, V5, 0, None)
    until(lambda: len(d.exported_files()) == 3, "three exports")
    eq(d.export("c", "f", "one"), one, "the first")
    eq((d.export_root / "c/f~2/two").read_bytes(), two, "the second")
    eq((d.export_root / "c/f~3/empty").read_bytes(), b"", "the third")


def test_init_behind_a_fin_that_fails(t):
    d = t.daemon()
    c = t.client("c")
    data = some_bytes(1_000_000)
    messages = [("$file/f/init", b'{"name":"a"}'), ("$file/f/0", data), ("$file/f/fin/1000001", b""),
                ("$file/f/init", b'{"name":"b"}'), ("$file/f/init", b'{"name":"a"}'),
                (f"$file/f/fin/1000000/{sha256(data)}", b"")]
    acks = c.publish_all(messages)
    eq([a.reason for a in acks], [0, 0, 0x80, 0x80, 0, 0], "acks")
    eq([a.reason_string for a in acks[2:4]], ["incomplete: [1000000,1000001)", "filemeta_conflict"],
       "reasons")
    eq(d.export("c", "f", "a"), data, "export")
