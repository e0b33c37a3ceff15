"""sluice send, status and abort against a server that misbehaves on request (fakeserver.py)."""

import json
import os
import re
import signal
import subprocess
import threading
import time

from fakeserver import Drop, FakeServer, File
from harness import BOTH, V5, cases, eq, limit, sha256, some_bytes, until, yes
from rawmqtt import V311, disconnect_packet, publish_packet

MQTT = {V5: "5", V311: "3.1.1"}


def server(t, **options):
    s = FakeServer(**options)
    t.at_end(s.close)
    return s


def arguments(t, s, *more, version=V5, client_id="cli", command="send"):
    return [t.tool("sluice"), command, "-h", "127.0.0.1", "-p", s.port, "-i", client_id, "--mqtt",
            MQTT[version], *more]


def sluice(t, s, *more, **options):
    return t.run(*arguments(t, s, *more, **options))


def start(t, s, *more, stdin=subprocess.DEVNULL, env=None, **options):
    command = [str(a) for a in arguments(t, s, *more, **options)]
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=stdin != subprocess.PIPE, env=env)
    t.at_end(process.kill)
    return process


def make(t, name="cam.mp4", count=1_000_000, seed=1):
    path = t.dir / name
    path.write_bytes(some_bytes(count, seed))
    return path


def check_ok(result):
    eq((result.returncode, result.stdout, result.stderr), (0, "", ""), "exit status, output")


@cases(version=BOTH, how=[(), ("--async",), ("--no-checksum",), ("--segment-checksum",),
                          ("--segment-size", "1000", "--window", "3")])
def test_one_file(t, version, how):
    s, path = server(t), make(t)
    check_ok(sluice(t, s, *how, path, version=version))
    f = s.only_file()
    eq(f.state, "exported", "state")
    eq(bytes(f.data), path.read_bytes(), "bytes")
    eq(f.meta, {"name": "cam.mp4", "size": 1_000_000}, "metadata")
    fin = s.commands[-1]
    eq((fin.verb, fin.is_async), ("fin", "--async" in how), "last command")
    eq(fin.checksum, None if "--no-checksum" in how else sha256(path.read_bytes()), "checksum of fin")
    eq(all(c.checksum for c in s.segments()), "--segment-checksum" in how, "segments have checksums")
    eq(s.verbs().count("segment"), 1000 if "1000" in how else 4, "segments")


@cases(version=BOTH, count=[0, 1, 262143, 262144, 262145])
def test_sizes_around_a_segment(t, version, count):
    s, path = server(t), make(t, count=count)
    check_ok(sluice(t, s, path, version=version))
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")
    eq(s.only_file().state, "exported", "state")
    if count <= 262144:
        eq(s.verbs(), ["init"] + ["segment"] * (count > 0) + ["fin"], "commands of a small file")


def test_metadata(t):
    s, path = server(t), make(t, count=10)
    check_ok(sluice(t, s, "--name", "Größe 1.txt", "--user-data", '{"n": 12345678901234567890}',
                    "--ttl", "2h", "--file-id", "my id", path))
    eq(s.only_file().meta, {"name": "Größe 1.txt", "size": 10, "segments_ttl": 7200,
                            "user_data": {"n": 12345678901234567890}}, "metadata")
    eq(s.commands[0].file_id, "my id", "file id")


@cases(version=BOTH)
def test_many_small_files(t, version):
    s = server(t)
    paths = [make(t, f"f{i}", i, seed=i) for i in range(300)]
    check_ok(sluice(t, s, *paths, version=version))
    eq(len(s.connections), 1, "connections")
    eq({f.meta["name"]: bytes(f.data) for f in s.files.values()},
       {p.name: p.read_bytes() for p in paths}, "files")
    yes(all(f.state == "exported" for f in s.files.values()), "all are exported")


def test_next_file_begins_while_fin_is_pending(t):
    s = server(t)
    s.on_command = lambda c: "ignore" if c.verb == "fin" and len(s.files) == 1 else None
    first, second = make(t, "first", 300_000), make(t, "second", 10)
    p = start(t, s, first, second)
    until(lambda: len(s.files) == 2 and "exported" in [f.state for f in s.files.values()],
          "the second file is exported while the first one's fin is pending")
    eq(p.poll(), None, "exit status: sluice still waits for the first")


def test_same_name_in_two_directories_is_two_files(t):
    s = server(t)
    for d in ("a", "b"):
        (t.dir / d).mkdir()
        path = t.dir / d / "x"
        path.write_bytes(d.encode())
        os.utime(path, (1, 1))
    check_ok(sluice(t, s, t.dir / "a/x", t.dir / "b/x"))
    eq(sorted(bytes(f.data) for f in s.files.values()), [b"a", b"b"], "files")


@cases(version=BOTH, at=[1, 7, 15])
def test_connection_lost_in_the_middle(t, version, at):
    """Only what did not arrive is sent again."""
    s, path = server(t), make(t, count=4_000_000)

    def drop(command):
        if len(s.segments()) == at and len(s.connections) == 1:
            raise Drop
    s.on_command = drop
    result = sluice(t, s, path, version=version)
    eq(result.returncode, 0, "exit status")
    yes(re.search(r"^sluice: .*(lost|closed).*; trying again$", result.stderr), result.stderr)
    eq(len(s.connections), 2, "connections")
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")
    eq(sorted(c.offset for c in s.segments()).count((at - 1) * 262144), 2, "the lost one: sent twice")
    eq(len(s.segments()), 16 + 1, "segments in all")


@cases(version=BOTH, verb=["init", "status", "fin"])
def test_connection_lost_at_a_command(t, version, verb):
    s, path = server(t), make(t)

    def drop(command):
        if command.verb == verb and len(s.connections) == 1:
            raise Drop
    s.on_command = drop
    eq(sluice(t, s, path, version=version).returncode, 0, "exit status")
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")
    eq(len(s.segments()), 4, "segments: none is sent twice")


@cases(version=BOTH)
def test_answer_to_fin_lost(t, version):
    """Exported, but the client does not know: it asks, and fin is confirmed."""
    s, path = server(t), make(t)

    def lose(command):
        if command.verb == "fin" and len(s.connections) == 1:
            s.handle(command)
            raise Drop
    s.on_command = lose
    eq(sluice(t, s, path, version=version).returncode, 0, "exit status")
    eq((len(s.segments()), s.verbs().count("fin")), (4, 2), "segments, fins")


@cases(version=BOTH, how=[(), ("--async",)])
def test_outcome_is_never_taken_from_a_puback_that_proves_nothing(t, version, how):
    """MQTT 3.1.1 and $file-async: PUBACK of fin is 0 whatever happens."""
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x87, "not_authorized") if c.verb == "fin" else None
    result = sluice(t, s, *how, path, version=version)
    eq(result.returncode, 1, "exit status")
    eq(result.stderr, f"sluice: {path}: the server refused fin: this user may not send files "
       "(not_authorized)\n", "message")


@cases(version=BOTH)
@limit(60)
def test_lost_response_message_is_asked_for(t, version):
    """The PUBACK came, the message does not: after 15 s the client asks, and repeats fin."""
    s, path = server(t), make(t)

    def lose_reply(command):
        s.answers = command.verb != "fin" or s.verbs().count("fin") > 1
    s.on_command = lose_reply
    check_ok(sluice(t, s, "--async", path, version=version))
    eq(s.verbs()[-3:], ["fin", "status", "fin"], "last commands")


@cases(version=BOTH)
def test_second_run_resumes(t, version):
    s, path = server(t), make(t, count=4_000_000)
    s.on_command = lambda c: "ignore" if len(s.segments()) > 5 else None
    p = start(t, s, path, version=version)
    until(lambda: len(s.segments()) > 5, "six segments")
    time.sleep(0.2)
    p.send_signal(signal.SIGINT)
    _, message = p.communicate(timeout=10)
    eq(p.returncode, 128 + signal.SIGINT, "exit status")
    eq(message, f"sluice: interrupted\nsluice: {path}: not finished, 32% of it is stored; "
       "the same command goes on from there\n", "message")
    s.on_command = lambda c: None
    s.commands.clear()
    check_ok(sluice(t, s, path, version=version))
    eq([c.offset for c in s.segments()], [i * 262144 for i in range(5, 16)], "segments of the second run")
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")
    eq(s.commands[-1].checksum, sha256(path.read_bytes()), "checksum of the whole file")
    s.commands.clear()
    check_ok(sluice(t, s, path, version=version))
    eq(s.verbs(), ["status", "fin"], "commands of a third run")


def test_resume_with_more_gaps_than_one_status_lists(t):
    s, path = server(t), make(t, count=1_000_000)
    data = path.read_bytes()
    sluice(t, s, "--file-id", "f", path)
    f = s.files["cli", "f"]
    f.state, f.data = "open", bytearray(len(data))
    f.ranges = []
    for at in range(0, len(data), 10_000):
        f.write(at, data[at:at + 5_000])
    s.commands.clear()
    check_ok(sluice(t, s, "--file-id", "f", path))
    eq(bytes(f.data), data, "bytes")
    eq(sum(len(c.payload) for c in s.segments()), 500_000, "bytes sent")
    eq(s.verbs().count("status"), 4, "questions: 100 gaps, 32 at a time")


def test_incomplete_fin_is_repaired(t):
    """The server has lost acknowledged bytes (a power cut): it says so at fin, and gets them again."""
    s, path = server(t), make(t)

    def forget(command):
        if command.verb == "fin" and s.verbs().count("fin") == 1:
            s.only_file().ranges.remove((262144, 524288))
    s.on_command = forget
    check_ok(sluice(t, s, path))
    eq([c.offset for c in s.segments()], [0, 262144, 524288, 786432, 262144], "segments")
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")


def test_incomplete_for_ever_ends(t):
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x80, "incomplete: [0, 5) is missing") if c.verb == "fin" else None
    result = sluice(t, s, path)
    eq(result.returncode, 1, "exit status")
    yes("parts of the file are missing (incomplete: [0, 5) is missing)" in result.stderr, result.stderr)


def test_wrong_bytes_of_an_earlier_run_are_replaced(t):
    s, path = server(t), make(t)
    f = s.files["cli", "f"] = File()
    f.meta, f.state = {"name": "cam.mp4", "size": 1_000_000}, "open"
    f.write(0, bytes(600_000))
    result = sluice(t, s, "--file-id", "f", path)
    eq(result.returncode, 0, "exit status")
    yes("the server has other bytes than the file" in result.stderr, result.stderr)
    eq(bytes(f.data), path.read_bytes(), "bytes")


def test_damaged_segment_is_sent_again(t):
    s, path = server(t), make(t)
    refused = []

    def damage(command):
        if command.offset == 262144 and not refused:
            refused.append(command)
            return 0x80, "checksum_mismatch"
        return None
    s.on_command = damage
    check_ok(sluice(t, s, "--segment-checksum", path))
    eq([c.offset for c in s.segments()].count(262144), 2, "times it was sent")


def test_file_that_changes_meanwhile(t):
    for how, change in {
        "it grew": lambda path: path.open("ab").write(b"x"),
        "it became shorter": lambda path: os.truncate(path, 500_000),
        "it was written to": lambda path: os.utime(path),
    }.items():
        s, path = server(t), make(t, count=3_000_000)
        changed = []

        def hook(command, path=path, change=change, changed=changed):
            if command.verb == "segment" and not changed:
                changed.append(change(path))
        s.on_command = hook
        result = sluice(t, s, "--window", "2", path)
        eq(result.returncode, 1, "exit status")
        eq(result.stderr, f"sluice: {path}: the file changed while it was being sent: {how}; "
           "send it again\n", "message")
        eq((s.verbs()[-1], s.verbs().count("fin")), ("abort", 0), "last command, fins")


def test_one_bad_file_does_not_stop_the_others(t):
    s, good, last = server(t), make(t, "good", 10), make(t, "last", 300_000)
    s.on_command = lambda c: (0x80, "invalid_filemeta") if b"b:d" in c.payload else None
    result = sluice(t, s, good, t.dir / "absent", make(t, "b:d", 10), t.dir, last)
    eq(result.returncode, 1, "exit status")
    eq(result.stderr, f"sluice: {t.dir}/absent: No such file or directory\n"
       f"sluice: {t.dir}: Is a directory\n"
       f"sluice: {t.dir}/b:d: the server refused init: name has a ':' (invalid_filemeta)\n"
       "sluice: 3 of 5 files failed\n", "messages")
    eq(sorted(f.meta["name"] for f in s.files.values() if f.state == "exported"), ["good", "last"],
       "exported")


@cases(version=BOTH)
def test_no_room_is_waited_out(t, version):
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x97, "enospc") if c.verb == "init" and s.verbs().count("init") < 3 else None
    result = sluice(t, s, path, version=version)
    eq(result.returncode, 0, "exit status")
    eq(result.stderr, f"sluice: {path}: the server refused init: no space is left on the server "
       "(enospc); trying again\n", "message")
    eq(s.verbs().count("init"), 3, "inits")


def test_no_room_for_too_long(t):
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x97, "enospc") if c.verb == "init" else None
    result = sluice(t, s, "-q", "--retry-max-time", "2s", path)
    eq(result.returncode, 1, "exit status")
    yes(re.match(r"sluice: .*\(enospc\), for [2-9] s now\n$", result.stderr), result.stderr)


@cases(version=BOTH, verb=["init", "segment", "fin"],
       refusal=[(0x80, "io_error"), (0x80, "no_memory"), (0x8b, "shutdown"), (0x89, "")])
def test_what_passes_is_tried_again(t, version, verb, refusal):
    s, path = server(t), make(t)
    s.on_command = lambda c: refusal if c.verb == verb and s.verbs().count(verb) == 1 else None
    check_ok(sluice(t, s, "-q", path, version=version))
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")


@cases(version=BOTH)
def test_full_disk_is_not_taken_for_progress(t, version):
    """init succeeds in every round, no segment does."""
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x97, "enospc") if c.verb == "segment" else None
    result = sluice(t, s, "--retry-max-time", "4s", path, version=version)
    eq(result.returncode, 1, "exit status")
    yes(re.fullmatch(r".*; trying again\n.*\(enospc\), for [4-9] s now\n", result.stderr), result.stderr)
    yes(s.verbs().count("status") <= 4, "it tries after 0, 1, 3 and 4 s, and not in a loop")


def test_refused_small_file_leaves_nothing(t):
    s = server(t)
    s.on_command = lambda c: (0x80, "invalid_filemeta") if c.verb == "init" else None
    eq(sluice(t, s, make(t, count=10)).returncode, 1, "exit status")
    eq(s.verbs(), ["init", "segment", "fin", "abort"], "commands")


def test_chosen_file_id_is_never_written_to_in_haste(t):
    """It may belong to another file: nothing is sent before init is accepted."""
    s = server(t)
    s.on_command = lambda c: (0x80, "filemeta_conflict") if c.verb == "init" else None
    result = sluice(t, s, "--file-id", "f", make(t, count=10))
    eq(result.returncode, 1, "exit status")
    yes("a transfer with this file id is open with other metadata" in result.stderr, result.stderr)
    eq(s.verbs(), ["status", "init"], "commands")


@cases(version=BOTH)
def test_outcome_of_another_fin_is_not_ours(t, version):
    """A late success of an earlier run's fin, under the same file id, proves nothing."""
    s, path = server(t), make(t)

    def mislead(connection):
        message = {"vsn": "0.1", "topic": "$file/f/fin/1000000/" + "0" * 64, "packet_id": 1,
                   "reason_code": 0, "reason_description": "success"}
        connection.peer.sendall(publish_packet("$file-response/cli", json.dumps(message), 0, 0, version))
    s.on_packet = mislead
    s.on_command = lambda c: (0x87, "not_authorized") if c.verb == "fin" else None
    eq(sluice(t, s, "--file-id", "f", path, version=version).returncode, 1, "exit status")


def test_too_large_is_final(t):
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x97, "too_large") if c.verb == "init" else None
    result = sluice(t, s, path)
    eq((result.returncode, s.segments()), (1, []), "exit status, segments")
    yes("the file is larger than the server takes (too_large)" in result.stderr, result.stderr)


def test_receive_maximum_is_honoured(t):
    s, path = server(t, connack_props={"receive_maximum": 2}), make(t, count=2_000_000)
    s.is_lazy = True
    check_ok(sluice(t, s, path))
    eq(s.inflight_max, 2, "unacknowledged at once")


def test_maximum_packet_size_is_honoured(t):
    s, path = server(t, connack_props={"maximum_packet_size": 20_000}), make(t)
    check_ok(sluice(t, s, path))
    yes(max(len(c.payload) for c in s.segments()) < 20_000, "segments fit")
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")


@cases(version=BOTH)
def test_server_without_status(t, version):
    """As EMQX: everything is sent; after a loss, everything once more."""
    s, path = server(t, has_status=False), make(t)

    def drop(command):
        if len(s.segments()) == 3 and len(s.connections) == 1:
            raise Drop
    s.on_command = drop
    eq(sluice(t, s, path, version=version).returncode, 0, "exit status")
    eq(bytes(s.only_file().data), path.read_bytes(), "bytes")


def test_server_without_file_transfer(t):
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x10, "")
    result = sluice(t, s, path)
    eq((result.returncode, result.stderr), (1, "sluice: the server has no file transfer: it treats "
       "$file as an ordinary topic\n"), "exit status, message")


def test_silent_server(t):
    s, path = server(t, answers=False), make(t)
    result = sluice(t, s, "--timeout", "1s", path)
    eq(result.returncode, 1, "exit status")
    yes("does not answer on $file-response/cli" in result.stderr, result.stderr)


@cases(version=BOTH)
def test_refused_connection(t, version):
    s = server(t, connack_code=0x86 if version == V5 else 4)
    result = sluice(t, s, make(t), version=version)
    eq(result.returncode, 1, "exit status")
    yes(re.match("sluice: the server refused the connection: .*user ?name", result.stderr, re.I),
        result.stderr)
    eq(len(s.connections), 1, "attempts")


def test_no_server(t):
    s, path = server(t), make(t)
    s.close()
    began = time.monotonic()
    result = sluice(t, s, "--retry-max-time", "2s", path)
    eq(result.returncode, 3, "exit status")
    yes(re.fullmatch(rf"sluice: can't connect to 127.0.0.1:{s.port}: Connection refused; trying again\n"
                     rf"sluice: can't connect to 127.0.0.1:{s.port}: Connection refused "
                     r"\(gave up after [2-5] s\)\n", result.stderr), result.stderr)
    yes(1.5 < time.monotonic() - began < 10, "it took about as long as it was told to")


def test_server_that_accepts_and_says_nothing(t):
    s, path = server(t), make(t)
    hang = threading.Event()
    t.at_end(hang.set)
    s.on_connect = lambda client_id: hang.wait(30)
    result = sluice(t, s, "--retry-max-time", "1s", "--timeout", "1s", path)
    eq(result.returncode, 3, "exit status")
    yes("accepted the connection but did not answer CONNECT" in result.stderr, result.stderr)


@limit(30)
def test_server_that_falls_silent(t):
    """No FIN, no reset: the client notices by its pings, and comes again."""
    s, path = server(t), make(t)
    hang = threading.Event()
    t.at_end(hang.set)

    def stall(connection):
        if len(s.segments()) == 2 and len(s.connections) == 1:
            hang.wait(30)
            raise Drop
    s.on_packet = stall
    result = sluice(t, s, "--timeout", "2s", path)
    eq(result.returncode, 0, "exit status")
    yes("no sign of life for 2 s" in result.stderr, result.stderr)


@cases(attempt=range(5))
def test_the_last_word_is_heard_while_writing(t, attempt):
    """DISCONNECT and a reset right behind it: what the server said is not lost with the connection."""
    s, path = server(t), make(t, count=8_000_000)

    def throw_out(connection):
        if len(s.segments()) == 3 + attempt:
            connection.peer.sendall(disconnect_packet(V5, 0x8e))
            raise Drop
    s.on_packet = throw_out
    result = sluice(t, s, path)
    eq(result.returncode, 1, "exit status")
    yes(result.stderr.startswith("sluice: another client with the id cli has connected;"), result.stderr)
    eq(len(s.connections), 1, "connections")


# --- pipes ---


@cases(version=BOTH, count=[0, 1, 262144, 3_000_000])
def test_pipe(t, version, count):
    s, data = server(t), some_bytes(count)
    p = start(t, s, "-", stdin=subprocess.PIPE, version=version)
    out, message = p.communicate(data, timeout=30)
    eq((p.returncode, out, message), (0, b"", b""), "exit status, output")
    f = s.only_file()
    eq((bytes(f.data), f.meta, f.state), (data, {"name": "stdin"}, "exported"), "file")
    eq(s.commands[-1].checksum, sha256(data), "checksum")


def test_pipe_is_sent_as_it_arrives(t):
    s = server(t)
    p = start(t, s, "--name", "log", "-", stdin=subprocess.PIPE)
    for i in range(1, 4):
        p.stdin.write(b"line %d\n" % i)
        p.stdin.flush()
        until(lambda i=i: s.files and s.only_file().data.count(b"\n") == i, f"line {i} arrived", 5)
    p.stdin.close()
    eq(p.wait(10), 0, "exit status")
    eq(bytes(s.only_file().data), b"line 1\nline 2\nline 3\n", "bytes")


@cases(version=BOTH)
def test_pipe_survives_a_lost_connection(t, version):
    s, data = server(t), some_bytes(5_000_000)

    def drop(command):
        if len(s.segments()) in (6, 12) and len(s.connections) < 3:
            raise Drop
    s.on_command = drop
    p = start(t, s, "-q", "--window", "4", "-", stdin=subprocess.PIPE, version=version)
    _, message = p.communicate(data, timeout=40)
    eq((p.returncode, message), (0, b""), "exit status, message")
    eq(bytes(s.only_file().data), data, "bytes")
    # However many segments that are: a pipe that fills slowly makes small ones.
    sent = sum(len(c.payload) for c in s.segments())
    yes(sent <= 5_000_000 + 2 * 4 * (256 << 10), f"only unacknowledged ones were sent again: {sent}")


def test_pipe_whose_beginning_the_server_lost(t):
    s = server(t)

    def forget(command):
        if len(s.segments()) == 6 and len(s.connections) == 1:
            s.files.clear()
            raise Drop
    s.on_command = forget
    p = start(t, s, "-q", "--window", "1", "-", stdin=subprocess.PIPE)
    try:
        p.stdin.write(some_bytes(5_000_000))
        p.stdin.close()
    except BrokenPipeError:
        pass
    p.wait(30)
    eq((p.returncode, p.stderr.read()), (1, b"sluice: -: the server no longer has what it acknowledged, "
       b"and a pipe can't be read twice\n"), "exit status, message")
    eq(s.verbs().count("fin"), 0, "fins")


@cases(version=BOTH)
def test_failed_pipe_leaves_nothing(t, version):
    """No later run can go on with it; with a file id of the user's own choice it is kept."""
    for how, last in {(): "abort", ("--file-id", "f"): "segment"}.items():
        s = server(t)
        s.on_command = lambda c: ((0x87, "not_authorized")
                                  if c.offset and c.offset + len(c.payload) > 700_000 else None)
        p = start(t, s, "--window", "1", *how, "-", stdin=subprocess.PIPE, version=version)
        _, message = p.communicate(some_bytes(800_000), timeout=30)
        eq(p.returncode, 1, "exit status")
        yes(b"refused the segment at " in message, message)
        eq(s.verbs()[-1], last, "last command")


# --- status, abort, the command line ---


@cases(version=BOTH)
def test_status_and_abort(t, version):
    s, path = server(t), make(t)
    s.on_command = lambda c: (0x87, "not_authorized") if c.verb == "segment" and c.offset else None
    eq(sluice(t, s, path, version=version).returncode, 1, "exit status of send")
    s.on_command = lambda c: None
    result = sluice(t, s, path, version=version, command="status")
    eq((result.returncode, result.stdout), (0, f"{path}: open, 262144 of 1000000 bytes (26%), missing "
       "262144-1000000\n"), "status")
    result = sluice(t, s, path, version=version, command="abort")
    eq((result.returncode, result.stdout), (0, f"{path}: aborted\n"), "abort")
    result = sluice(t, s, "--file-id", "nothing", version=version, command="status")
    eq((result.returncode, result.stdout), (0, "nothing: not known to the server\n"), "status")
    s.on_command = lambda c: (0x87, "not_authorized")
    result = sluice(t, s, "--file-id", "f", version=version, command="abort")
    eq((result.returncode, result.stderr), (1, "sluice: f: the server refused abort: this user may not "
       "send files (not_authorized)\n"), "refused abort")


def test_default_client_id_is_stable_and_exclusive(t):
    s, path = server(t), make(t, count=10)
    command = [t.tool("sluice"), "send", "-h", "127.0.0.1", "-p", s.port, path]
    s.on_command = lambda c: "ignore" if len(s.connections) < 3 else None
    first = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE)
    t.at_end(first.kill)
    until(lambda: len(s.connections) == 1, "the first connects")
    second = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE)
    t.at_end(second.kill)
    until(lambda: len(s.connections) == 2, "the second connects")
    one, two = s.connections
    yes(one.startswith("sluice-") and two.startswith("sluice-") and one != two, f"ids {one}, {two}")
    first.kill()
    first.wait()
    check_ok(t.run(*command))
    eq(s.connections[2], one, "the id of a later run")


def test_usage(t):
    tool = t.tool("sluice")
    for command, message in {
        (): "usage: sluice COMMAND",
        ("fetch",): 'sluice: there is no command "fetch"; sluice --help lists them\n',
        ("send",): 'sluice: which file? ("-" is standard input)\n',
        ("send", "--window", "0", "x"): 'sluice: --window can\'t be "0"\n',
        ("send", "--segment-size", "1TiB", "x"): 'sluice: --segment-size can\'t be "1TiB"\n',
        ("send", "--user-data", "{", "x"): 'sluice: --user-data can\'t be "{"\n',
        ("send", "--file-id", "a/b", "x"): 'sluice: --file-id can\'t be "a/b"\n',
        ("send", "-i", "a+b", "x"): 'sluice: --client-id can\'t be "a+b"\n',
        ("send", "--name", "n", "x", "y"): "sluice: --file-id and --name are for one file\n",
        ("send", "-", "-"): "sluice: standard input can be sent once only\n",
        ("send", "--password", "p", "x"): "sluice: a password needs a --username\n",
        ("status",): "sluice: give either --file-id or the files\n",
    }.items():
        result = t.run(tool, *command)
        eq(result.returncode, 2, f"exit status of {command}")
        yes(result.stderr.startswith(message), result.stderr)
    for command in (("--help",), ("send", "--help"), ("status", "--help"), ("--version",)):
        result = t.run(tool, *command)
        eq((result.returncode, result.stderr), (0, ""), f"exit status of {command}")
        yes("sluice" in result.stdout, result.stdout)
