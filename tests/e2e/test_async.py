"""$file-async: only fin differs. Its PUBACK comes at once, its outcome as a response message."""

from harness import ALL, BOTH, V5, cases, check_ack, eq, sha256, some_bytes, until
from rawmqtt import PUBACK, PUBLISH, publish_packet


@cases(version=ALL, qos=[0, 1, 2])
def test_success(t, version, qos):
    d = t.daemon()
    up = t.uploader("as", version)
    data = some_bytes(9000)
    up.init("f", mode="$file-async", qos=qos)
    up.segment("f", 0, data, checksum=True, mode="$file-async", qos=qos)
    up.check(f"$file-async/f/fin/{len(data)}/{sha256(data)}", b"", qos)
    eq(d.export("as", "f", "a.bin"), data, "export")


@cases(version=ALL, qos=[0, 1, 2])
def test_failure_is_told_by_response_only(t, version, qos):
    t.daemon()
    up = t.uploader("as", version)
    up.init("f", mode="$file-async")
    body = up.check("$file-async/f/fin/10", b"", qos, 0x80, "incomplete", ack_code=0)
    eq((body["missing"], body["missing_bytes"]), ([[0, 10]], 10), "missing")
    up.segment("f", 0, b"0123456789")
    body = up.check("$file-async/f/fin/10/" + "0" * 64, b"", qos, 0x80, "checksum_mismatch",
                    ack_code=0)
    eq(body["actual"], sha256(b"0123456789"), "actual")
    up.check("$file-async/f/fin/10", b"", qos)


@cases(version=BOTH)
def test_malformed_fin_is_refused_by_the_ack(t, version):
    """Only the outcome of the transfer is asynchronous; the grammar is not."""
    t.daemon()
    up = t.uploader("as", version)
    up.check("$file-async/f/fin/abc", b"", 1, 0x80, "invalid_size")
    up.check("$file-async/f/fin/1/z", b"", 1, 0x80, "invalid_checksum")


@cases(version=BOTH)
def test_ack_comes_before_the_export(t, version):
    d = t.daemon()
    up = t.uploader("as", version)
    c = up.client
    data = some_bytes(48 << 20)
    c.publish("$file-async/f/init", b'{"name":"a.bin"}')
    up.response()
    # In reverse: all of the hashing is left to fin.
    pieces = [(f"$file-async/f/{at}", data[at:at + (4 << 20)])
              for at in range(0, len(data), 4 << 20)]
    for ack in c.publish_all(pieces[::-1], window=4):
        check_ack(ack, version, 0, None)
    for _ in pieces:
        up.response()
    c.send(publish_packet(f"$file-async/f/fin/{len(data)}", b"", 1, 900, version))
    first = c.receive()
    eq((first.type, first.packet_id), (PUBACK, 900), "first packet")
    eq(d.exported_files(), [], "exports when the PUBACK comes")
    second = c.receive()
    eq(second.type, PUBLISH, "second packet")
    eq(d.export("as", "f", "a.bin"), data, "export")


def test_other_commands_wait_for_their_outcome(t):
    """init, segments and abort are acknowledged with their result in both modes."""
    t.daemon()
    up = t.uploader("as")
    up.check("$file-async/f/init", b"", 1, 0x80, "invalid_filemeta_json")
    up.segment("f", 0, b"x", checksum="0" * 64, mode="$file-async", code=0x80,
               description="checksum_mismatch")
    up.init("f", mode="$file-async")
    up.check("$file-async/f/init", {"name": "other"}, 1, 0x80, "filemeta_conflict")
    up.abort("f", mode="$file-async")


@cases(mode=["$file", "$file-async"])
def test_modes_mix(t, mode):
    """The transfer is the same one, whichever way its commands come."""
    other = "$file-async" if mode == "$file" else "$file"
    d = t.daemon()
    up = t.uploader("mix", V5)
    up.init("f", mode=mode)
    up.segment("f", 0, b"one", mode=other)
    up.segment("f", 3, b"two", mode=mode)
    up.check(f"{other}/f/fin/6")
    eq(d.export("mix", "f", "a.bin"), b"onetwo", "export")


def test_acknowledged_fin_survives_a_kill(t):
    """The PUBACK is a promise: whoever got it hears the outcome, or finds the export."""
    d = t.daemon()
    data = some_bytes(4 << 20)
    for round_no in range(8):
        c = t.client("as")
        name = f"f{round_no}"
        c.publish(f"$file-async/{name}/init", b'{"name":"a.bin"}')
        pieces = [(f"$file-async/{name}/{at}", data[at:at + (1 << 20)])
                  for at in range(0, len(data), 1 << 20)]
        for ack in c.publish_all(pieces[::-1]):
            check_ack(ack, V5, 0, None)
        # A second one joins; a command behind them is not held up.
        c.send(publish_packet(f"$file-async/{name}/fin/{len(data)}", b"", 1, 900)
               + publish_packet(f"$file-async/{name}/fin/{len(data)}", b"", 1, 901))
        for _ in range(2):
            eq(c.wait(PUBACK).reason, 0, "ack of fin")
        d.restart(kill=True)
        until(lambda: len(d.exported_files()) == round_no + 1, "the export after the restart")
        eq(d.export("as", name, "a.bin"), data, "export")
        c.abandon()


@cases(version=BOTH)
def test_a_fin_that_joins_does_not_hold_up_others(t, version):
    d = t.daemon()
    c = t.client("as", version)
    data = some_bytes(32 << 20)
    c.publish("$file/f/init", b'{"name":"a.bin"}')
    for ack in c.publish_all([(f"$file/f/{at}", data[at:at + (4 << 20)])
                              for at in range(0, len(data), 4 << 20)][::-1]):
        check_ack(ack, version, 0, None)
    c.send(publish_packet(f"$file-async/f/fin/{len(data)}", b"", 1, 900, version)
           + publish_packet("$file-async/f/fin/5", b"", 1, 901, version)
           + publish_packet("$file/g/init", b'{"name":"b"}', 1, 902, version))
    acks = [c.wait(PUBACK).packet_id for _ in range(3)]
    eq(acks, [900, 902, 901], "order of the acks")
    eq(d.export("as", "f", "a.bin"), data, "export")
