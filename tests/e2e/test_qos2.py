"""QoS 2: executed once, the reason code on PUBREC, the received set."""

from harness import ALL, BOTH, V5, V31, cases, eq, some_bytes, yes
from rawmqtt import PUBCOMP, PUBREC, PUBREL, ack_packet, publish_packet


def session_options(version):
    options = {"clean": False}
    if version == V5:
        options["props"] = {"session_expiry": 600}
    return options


@cases(version=ALL)
def test_a_received_id_is_not_executed_again(t, version):
    d = t.daemon()
    up = t.uploader("twice", version)
    c = up.client
    up.init("f")
    c.send(publish_packet("$file/f/0", b"first", 2, 70, version))
    eq(c.wait(PUBREC).packet_id, 70, "PUBREC")
    eq(up.response()["packet_id"], 70, "response message")
    for payload, dup in ((b"SECOND", True), (b"third", False), (b"x" * 500_000, True)):
        c.send(publish_packet("$file/f/0", payload, 2, 70, version, dup=dup))
        ack = c.wait(PUBREC)
        eq(ack.packet_id, 70, "PUBREC")
        if version == V5:
            eq(ack.reason, 0, "reason code of PUBREC")
    yes(c.quiet(0.1), "no response message: nothing was executed")
    c.release(70)
    up.fin("f", 5)
    eq(d.export("twice", "f", "a.bin"), b"first", "export")


@cases(version=ALL)
def test_released_id_is_new(t, version):
    d = t.daemon()
    up = t.uploader("rel", version)
    up.init("f")
    for text in (b"one", b"two", b"six"):
        up.client.publish("$file/f/0", text, 2, packet_id=5)
        eq(up.response()["packet_id"], 5, "response message")
    up.fin("f", 3)
    eq(d.export("rel", "f", "a.bin"), b"six", "export")


@cases(version=BOTH)
def test_release_of_an_unknown_id(t, version):
    """PUBCOMP all the same, with 0x92 in v5, which is no error of the session."""
    t.daemon()
    c = t.client("unk", version)
    for _ in range(2):
        comp = c.release(4711)
        eq(comp.reason, 0x92 if version == V5 else None, "reason code of PUBCOMP")
    c.publish("$file/f/abort", b"", 2, packet_id=9)
    comp = c.release(9)
    eq(comp.reason, 0x92 if version == V5 else None, "PUBCOMP of an id that was released before")


def test_failure_removes_the_id(t):
    """PUBREC ≥ 0x80 ends the exchange: the id is free, and PUBREL for it is unknown."""
    d = t.daemon()
    up = t.uploader("fail")
    up.init("f")
    up.check("$file/f/zz", b"", 2, 0x80, "invalid_offset", packet_id=31)
    c = up.client
    c.send(publish_packet("$file/f/0", b"good", 2, 31))
    ack = c.wait(PUBREC)
    eq((ack.packet_id, ack.reason), (31, 0), "the same id, executed")
    eq(up.response()["reason_code"], 0, "response")
    eq(c.release(31).reason, 0, "PUBCOMP")
    up.check("$file/f/yy", b"", 2, 0x80, "invalid_offset", packet_id=32)
    eq(c.release(32).reason, 0x92, "PUBCOMP of a failed one")
    up.fin("f", 4, qos=2)
    eq(d.export("fail", "f", "a.bin"), b"good", "export")


@cases(version=ALL)
def test_set_survives_the_connection(t, version):
    """With a kept session: sent again after a reconnect, drained, answered, not executed."""
    d = t.daemon()
    up = t.uploader("surv", version, **session_options(version))
    up.init("f")
    c = up.client
    c.send(publish_packet("$file/f/0", b"first", 2, 70, version))
    c.wait(PUBREC)
    up.response()
    c.abandon()
    c = t.client("surv", version, **session_options(version))
    # v3.1 keeps sessions, too, but its CONNACK does not tell.
    eq(c.connack.session_present, version != V31, "session present")
    c.send(publish_packet("$file/f/0", b"other", 2, 70, version, dup=True))
    eq(c.wait(PUBREC).packet_id, 70, "PUBREC")
    eq((c.release(70).reason or 0), 0, "PUBCOMP")
    yes(c.quiet(0.1), "no response message")
    c.publish("$file/f/fin/5", b"", 2)
    eq(d.export("surv", "f", "a.bin"), b"first", "export")


@cases(version=BOTH)
def test_set_ends_with_a_clean_start(t, version):
    d = t.daemon()
    c = t.client("cl", version, **session_options(version))
    c.publish("$file/f/init", b'{"name":"a.bin"}', 2)
    c.send(publish_packet("$file/f/0", b"first", 2, 70, version))
    c.wait(PUBREC)
    c.abandon()
    c = t.client("cl", version, clean=True)
    yes(not c.connack.session_present, "no session present")
    c.send(publish_packet("$file/f/0", b"other", 2, 70, version))
    c.wait(PUBREC)
    c.release(70)
    c.publish("$file/f/fin/5", b"", 2)
    eq(d.export("cl", "f", "a.bin"), b"other", "export")


@cases(version=BOTH, size=[3000, 300_000])
def test_interrupted_publish_is_not_in_the_set(t, version, size):
    """The id enters the set when the whole payload has arrived and the result is stored."""
    d = t.daemon()
    data = some_bytes(size)
    c = t.client("int", version, **session_options(version))
    c.publish("$file/f/init", b'{"name":"a.bin"}', 2)
    c.send(publish_packet("$file/f/0", some_bytes(size, 2), 2, 70, version)[:-5])
    c.abandon()
    c = t.client("int", version, **session_options(version))
    c.send(publish_packet("$file/f/0", data, 2, 70, version, dup=True))
    eq(c.wait(PUBREC).packet_id, 70, "PUBREC")
    c.release(70)
    c.publish(f"$file/f/fin/{size}", b"", 2)
    eq(d.export("int", "f", "a.bin"), data, "export")


@cases(version=BOTH)
def test_pipelined(t, version):
    """Handshakes of many publishes interleave."""
    d = t.daemon()
    c = t.client("pipe", version)
    data = some_bytes(200 * 700)
    c.publish("$file/f/init", b'{"name":"a.bin"}', 2)
    c.send(b"".join(publish_packet(f"$file/f/{i * 700}", data[i * 700:(i + 1) * 700], 2, 1000 + i,
                                   version) for i in range(200)))
    recs = [c.wait(PUBREC).packet_id for _ in range(200)]
    eq(recs, list(range(1000, 1200)), "PUBRECs in order of the PUBLISHes")
    c.send(b"".join(ack_packet(PUBREL, i, version) for i in recs))
    eq([c.wait(PUBCOMP).packet_id for _ in recs], recs, "PUBCOMPs in order of the PUBRELs")
    c.publish(f"$file/f/fin/{len(data)}", b"", 2)
    eq(d.export("pipe", "f", "a.bin"), data, "export")


@cases(version=BOTH)
def test_ordinary_publish_is_delivered_once(t, version):
    t.daemon()
    listener = t.client("listener", version)
    listener.subscribe("a/b")
    c = t.client("pub", version)
    c.send(publish_packet("a/b", b"one", 2, 70, version))
    c.wait(PUBREC)
    c.send(publish_packet("a/b", b"one", 2, 70, version, dup=True))
    c.wait(PUBREC)
    c.release(70)
    eq(listener.message().payload, b"one", "message")
    yes(listener.quiet(0.2), "only one message")


def test_fin_is_withheld_at_qos_2_too(t):
    """PUBREC comes when the export is done; a copy sent meanwhile does not start a second one."""
    d = t.daemon()
    up = t.uploader("wh")
    data = some_bytes(24 << 20)
    up.upload("f", data, segment_bytes=1 << 20, fin=False)
    c = up.client
    c.send(publish_packet(f"$file/f/fin/{len(data)}", b"", 2, 800))
    eq(c.wait(PUBREC).reason, 0, "reason code of PUBREC")
    eq(d.export("wh", "f", "a.bin"), data, "export is there when PUBREC is")
    eq(up.response()["packet_id"], 800, "packet_id")
    c.send(publish_packet(f"$file/f/fin/{len(data)}", b"", 2, 800, dup=True))
    eq(c.wait(PUBREC).reason, 0, "PUBREC again")
    c.release(800)
    yes(c.quiet(0.1), "no second response message")
