"""The grammar of the $file topics: each row of the table in the protocol, over the socket."""

from harness import ALL, V5, cases, eq, yes

HEX = "0123456789abcdef" * 4

# (topic behind the mode, reason_description); every one is refused with 0x80.
BAD = [
    ("", None), ("/", "invalid_fileid"), ("//init", "invalid_fileid"), ("//", "invalid_fileid"),
    ("//0", "invalid_fileid"), ("//fin/0", "invalid_fileid"), ("//status", "invalid_fileid"),
    ("/f", "invalid_file_command"), ("/init", "invalid_file_command"),
    ("/f/", "invalid_offset"), ("/f/offset", "invalid_offset"), ("/f/fin", "invalid_offset"),
    ("/f/INIT", "invalid_offset"), ("/f/Abort", "invalid_offset"), ("/f/init/x", "invalid_offset"),
    ("/f/abort/x", "invalid_offset"), ("/f/status/x", "invalid_offset"),
    ("/X/Y/Z", "invalid_offset"), ("/f/-1", "invalid_offset"), ("/f/1_0", "invalid_offset"),
    ("/f/1.5", "invalid_offset"), ("/f/0x10", "invalid_offset"), ("/f/ 1", "invalid_offset"),
    ("/f/1 ", "invalid_offset"), ("/f/1e3", "invalid_offset"), ("/f/٣", "invalid_offset"),
    ("/f/9223372036854775808", "invalid_offset"), ("/f/18446744073709551616", "invalid_offset"),
    ("/f/" + "9" * 400, "invalid_offset"), ("/f/fin2/3", "invalid_offset"),
    ("/f/Fin/3", "invalid_offset"),
    ("/f/fin/abc", "invalid_size"), ("/f/fin/", "invalid_size"), ("/f/fin/-1", "invalid_size"),
    ("/f/fin/1.0", "invalid_size"), ("/f/fin/9223372036854775808", "invalid_size"),
    ("/f/fin/42/xyz", "invalid_checksum"), ("/f/fin/42/", "invalid_checksum"),
    ("/f/12/", "invalid_checksum"), ("/f/12/" + HEX[:-1], "invalid_checksum"),
    ("/f/12/" + HEX + "0", "invalid_checksum"), ("/f/12/" + HEX[:-1] + "g", "invalid_checksum"),
    ("/f/fin/42/" + HEX + "/more", "invalid_file_command"), ("/f/1/2/3", "invalid_file_command"),
    ("/f/init/a/b", "invalid_file_command"), ("/f/fin/1/2/3/4/5", "invalid_file_command"),
    # The order of the checks: file id, shape, offset or size, checksum.
    ("//fin/abc", "invalid_fileid"), ("//1/2/3", "invalid_fileid"), ("/f/abc/xyz", "invalid_offset"),
    ("/f/fin/abc/xyz", "invalid_size"),
]


@cases(version=ALL, qos=[0, 1, 2], mode=["$file", "$file-async"])
def test_bad_topics(t, version, qos, mode):
    t.daemon()
    up = t.uploader(version=version)
    for rest, description in BAD:
        if description:
            up.check(mode + rest, b"payload", qos, 0x80, description)
    yes(up.client.quiet(0.1), "nothing more arrives, and the connection stays")
    up.client.ping()


@cases(version=ALL, mode=["$file", "$file-async"])
def test_bare_topic_is_an_ordinary_publish(t, version, mode):
    """It has no response message, and nobody may subscribe to it."""
    t.daemon()
    up = t.uploader("up", version)
    listener = t.client("listener")
    eq(listener.subscribe(mode, "#").codes, [0x87, 1], "SUBACK")
    ack = up.client.publish(mode, b"x")
    if version == V5:
        eq(ack.reason, 0x10, "nobody subscribes")
    # No response message came: the next one belongs to the next command.
    up.check(f"{mode}/f/abort")


@cases(version=ALL)
def test_names_that_only_resemble(t, version):
    """Topics that are no $file topics are carried like any other."""
    t.daemon()
    listener = t.client("listener", version)
    up = t.uploader("up", version)
    for topic in ("$files/f/init", "$file2/f/init", "$File/f/init", "file/f/init", " $file/f/init",
                  "/$file/f/init", "$file-asynch/f/init"):
        eq(listener.subscribe(topic).codes, [1], f"SUBACK of {topic}")
        up.client.publish(topic, b"{}")
        eq(listener.message().topic, topic, "topic of the message")
    up.check("$file/f/abort")


@cases(version=ALL, mode=["$file", "$file-async"])
def test_good_topics(t, version, mode):
    """Leading zeros, either case of hex digits, and odd file ids are fine."""
    d = t.daemon()
    up = t.uploader("good", version)
    data = b"hello, world"
    digest = "09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b"
    for file_id in ("f", "init", "fin", "abort", "status", "0", "12", ";", " ", "%2e", "..", "."):
        up.init(file_id, "f.txt", mode)
        up.check(f"{mode}/{file_id}/000/{digest.upper()}", data)
        up.check(f"{mode}/{file_id}/0/{digest}", data)
        up.check(f"$file/{file_id}/fin/00012/{digest[:32].upper()}{digest[32:]}")
        eq(d.export("good", file_id, "f.txt"), data, f"export of {file_id}")


def test_refused_commands_change_nothing(t):
    d = t.daemon()
    up = t.uploader()
    for rest, description in BAD:
        if description:
            up.check("$file" + rest, b"x" * 3000, 1, 0x80, description)
    eq(d.exported_files(), [], "exports")
    eq(d.staged_files(), [], "staging")
    eq(up.status("f")["state"], "none", "state")


def test_any_subscriber_sees_no_command(t):
    """Commands are executed, not delivered: not to #, not to a subscription of their own topic."""
    t.daemon()
    listener = t.client("listener")
    codes = listener.subscribe("#", "$file/#", "$file/f/init", "$file-async/#", "+/f/init").codes
    eq(codes, [1, 0x87, 0x87, 0x87, 1], "SUBACK")
    up = t.uploader("up")
    up.init("f")
    up.segment("f", 0, b"x")
    up.check("$file/f/1/zz", b"", 1, 0x80, "invalid_checksum")
    up.fin("f", 1)
    yes(listener.quiet(0.2), "nothing is delivered")
