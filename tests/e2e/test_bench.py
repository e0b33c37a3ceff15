"""sluice-bench: what it sends arrives, and what goes wrong is noticed and told.

The first half runs it against the daemon. The second half runs it against an impostor: a server of
a few lines that answers as each test wants, since a daemon that works refuses nothing.
"""

import json
import re
import select
import shutil
import socket
import threading
from collections import Counter

from harness import BOTH, ROOT, cases, eq, sha256, some_bytes, yes
from rawmqtt import (CONNACK, CONNECT, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBLISH, SUBACK,
                     SUBSCRIBE, V5, V311, Cursor, ack_packet, packet, properties, publish_packet,
                     string)

VERSION = {V311: "3.1.1", V5: "5"}
KEYS = {"bytes", "seconds", "mb_per_s", "segments", "segments_per_s", "files", "files_failed",
        "ack_ms", "fin_ms", "generator_cpu_seconds", "generator_cpu_seconds_per_gb",
        "connections", "connections_failed", "connect_seconds", "seed"}


def ingest(t, port, *options):
    return t.run(t.tool("sluice-bench"), "ingest", "--port", port, *options)


def ingest_json(t, port, *options, status=0):
    """Runs it with --json: the object, and what it said on stderr."""
    done = ingest(t, port, "--json", *options)
    eq(done.returncode, status, f"exit status; it said: {done.stderr}")
    return json.loads(done.stdout), done.stderr


def ingest_verified(t, d, *options):
    """A run that must succeed, every file compared by sluice-bench itself."""
    result, said = ingest_json(t, d.port, "--verify-dir", d.export_root, *options)
    eq(said, "", "stderr")
    eq((result["files_failed"], result["connections_failed"]), (0, 0), "failures")
    eq(result["files_verified"], result["files"], "files compared equal")
    return result


# --- against the daemon ---


@cases(version=BOTH, checksum=["none", "fin", "segment"])
def test_upload(t, version, checksum):
    d = t.daemon()
    result = ingest_verified(t, d, "--mqtt", VERSION[version], "--checksum", checksum,
                             "--files", 20, "--size", "0-300K", "--segment", "1-20K")
    eq(set(result), KEYS | {"files_verified"}, "keys")
    eq(result["files"], 20, "files")
    files = d.exported_files()
    eq(len(files), 20, "exported files")
    eq(sum(p.stat().st_size for p in files), result["bytes"], "bytes")
    eq(result["connections"], 4, "connections")
    yes(result["ack_ms"]["p50"] <= result["ack_ms"]["p99"] <= result["ack_ms"]["max"] * 1.04,
        f"order of the quantiles: {result['ack_ms']}")
    yes(result["fin_ms"]["max"] > 0, "fin_ms")
    yes(abs(result["mb_per_s"] * result["seconds"] * 1e6 - result["bytes"]) < 1000 +
        result["bytes"] / 1000, "mb_per_s")


@cases(order=["in", "reverse", "random"], duplicate=[0, 40])
def test_order_and_duplicates(t, order, duplicate):
    d = t.daemon()
    result = ingest_verified(t, d, "--order", order, "--duplicate", duplicate, "--files", 4,
                             "--size", "1M", "--segment", "4K", "--window", 100)
    more = result["segments"] - 4 * 256
    yes(250 < more < 580 if duplicate else more == 0, f"{more} duplicates of 1024 segments")


def test_content_differs_everywhere(t):
    """No two files, and no two places of a file, look alike: else misplaced bytes would pass."""
    d = t.daemon()
    ingest_verified(t, d, "--files", 3, "--size", "5M", "--connections", 2)
    blocks = Counter(data[at:at + 4096] for data in (p.read_bytes() for p in d.exported_files())
                     for at in range(0, len(data), 4096))
    eq(len(blocks), 3 * 5 * 256, "different blocks of 4 KiB")


@cases(checksum=["none", "fin", "segment"])
def test_real_files(t, checksum):
    d = t.daemon()
    source = t.dir / "source"
    names = {"plain.txt": 10_000, ".hidden": 1, "100%.bin": 70_000, "with:colon": 500, "empty": 0,
             "deep/er/ünï😀.dat": 300_000}
    for at, (name, count) in enumerate(names.items()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(some_bytes(count, at))
    (source / "link").symlink_to(source / "plain.txt")
    result = ingest_verified(t, d, "--dir", source, "--checksum", checksum, "--segment", "7K",
                             "--connections", 2)
    eq(result["files"], len(names), "files")
    wanted = Counter(sha256((source / name).read_bytes()) for name in names)
    eq(Counter(sha256(p.read_bytes()) for p in d.exported_files()), wanted, "contents")
    kept = {p.name for p in d.exported_files()}
    yes({"plain.txt", "ünï😀.dat", "empty"} <= kept, f"names: {kept}")

    some = ingest_verified(t, d, "--dir", source, "--files", 2, "--client-prefix", "other")
    eq(some["files"], 2, "files with --files")


def test_many_connections(t):
    d = t.daemon()
    result = ingest_verified(t, d, "--connections", 300, "--files", 400, "--size", "1-3000",
                             "--segment", "1K", "--spread", "--client-prefix", "dev")
    eq((result["connections"], result["files"]), (300, 400), "connections and files")
    eq(len(list(d.export_root.glob("dev-*"))), 300, "clients")


@cases(version=BOTH)
def test_window_of_one(t, version):
    d = t.daemon()
    ingest_verified(t, d, "--window", 1, "--files", 3, "--size", "100K", "--segment", "10K",
                    "--connections", 1, "--mqtt", VERSION[version])


def test_measures_the_daemon(t):
    d = t.daemon()
    result, _ = ingest_json(t, d.port, "--pid", d.process.pid, "--size", "30M", "--segment", "64K",
                            "--checksum", "fin")
    yes(result["daemon_rss_peak_bytes"] >= d.rss_bytes() / 2, f"memory: {result}")
    # The kernel keeps VmHWM by counters that lag behind on each processor; VmRSS is exact.
    yes(result["daemon_rss_peak_bytes"] <= 1.1 * d.rss_bytes("VmHWM"), f"memory: {result}")
    yes(0 < result["daemon_cpu_seconds"] < 60, f"processor time: {result}")
    gb = result["bytes"] / 1e9
    yes(abs(result["daemon_cpu_seconds_per_gb"] * gb - result["daemon_cpu_seconds"]) < 0.001,
        f"processor time per GB: {result}")


def test_table(t):
    d = t.daemon()
    done = ingest(t, d.port, "--files", 2, "--size", "10K", "--pid", d.process.pid, "--seed", 77)
    eq((done.returncode, done.stderr), (0, ""), "exit status and stderr")
    words = [line.split()[0] for line in done.stdout.splitlines()]
    eq(words, ["files", "payload", "time", "rate", "ack", "fin", "daemon", "generator", "seed"],
       "lines of the table")
    yes("2 of 2, 0 failed" in done.stdout and "77" in done.stdout, done.stdout)


def test_same_seed_is_a_replay(t):
    d = t.daemon()
    options = ("--seed", 5, "--files", 3, "--size", "50K-90K", "--segment", "9K", "--order",
               "random")
    first = ingest_verified(t, d, *options)
    files = d.exported_files()
    again = ingest_verified(t, d, *options)
    eq((again["bytes"], again["segments"]), (first["bytes"], first["segments"]), "the same again")
    eq(d.exported_files(), files, "exported files")
    other = ingest_verified(t, d, "--seed", 6, *options[2:])
    yes(other["bytes"] != first["bytes"], "another seed makes other files")


def test_sha256(t):
    done = t.run(t.tool("sluice-bench"), "sha256", "--json")
    eq(done.returncode, 0, f"exit status; it said: {done.stderr}")
    result = json.loads(done.stdout)
    eq(result["runs"], 7)
    streams = {(s["name"], s["streams"]) for s in result["subjects"]}
    yes({("portable", 1), ("wolfssl", 1), ("lanes", 1), ("lanes", 16)} <= streams, streams)
    eq(("openssl", 1) in streams, result["openssl"])
    for subject in result["subjects"]:
        yes(subject["gb_per_cpu_second"] > 0, subject)
        eq("to_openssl" in subject, result["openssl"])
    for wrong in (("--runs", "6"), ("--runs", "x"), ("--runs",), ("--lanes",)):
        done = t.run(t.tool("sluice-bench"), "sha256", *wrong)
        eq(done.returncode, 2, f"{wrong}")
        yes(done.stderr.startswith("sluice-bench: "), done.stderr)


def test_comparison_finds_damage(t):
    d = t.daemon()
    options = ("--seed", 9, "--files", 4, "--size", "1100K", "--connections", 1)
    ingest_verified(t, d, *options)
    copy = t.dir / "copy"
    shutil.copytree(d.export_root, copy)
    damaged = [copy / "bench-0" / f"9-{i}" / f"file-{i}.bin" for i in range(4)]
    data = bytearray(damaged[0].read_bytes())
    data[1_048_580] ^= 1
    damaged[0].write_bytes(data)
    damaged[1].write_bytes(damaged[1].read_bytes()[:-1])
    damaged[2].unlink()
    result, said = ingest_json(t, d.port, *options, "--verify-dir", copy, status=1)
    eq((result["files_failed"], result["files_verified"]), (3, 1), "failed and equal")
    for cause in ("file 0: .* differs from what was sent at byte 1048580",
                  "file 1: .* has 1126399 bytes, 1126400 were sent", "file 2: .*No such file"):
        yes(re.search(cause, said), f"{cause} is not in {said}")


# --- against an impostor ---


class Impostor:
    """A server that serves each connection in a thread. handler(topic, packet id, payload) returns
    the bytes to answer a PUBLISH with; None closes the connection."""

    def __init__(self, t, handler, version=V5, connack=b"\0\0\0"):
        self.handler, self.version = handler, version
        self.connack = packet(CONNACK, 0, connack if version == V5 else b"\0\0")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.error, self.connection, self.buffer = None, None, None
        self.pings, self.on_ping = 0, lambda: b""
        threading.Thread(target=self.serve, daemon=True).start()
        t.at_end(self.listener.close)

    def serve(self):
        try:
            while True:
                self.connection, _ = self.listener.accept()
                threading.Thread(target=self.talk, args=(self.connection,), daemon=True).start()
        except OSError:
            pass

    def talk(self, connection):
        self.buffer = buffer = bytearray()

        def read(count):
            while len(buffer) < count:
                data = connection.recv(1 << 16)
                if not data:
                    raise EOFError
                buffer.extend(data)
            piece = bytes(buffer[:count])
            del buffer[:count]
            return piece

        with connection:
            try:
                while (answer := self.answer(read)) is not None:
                    connection.sendall(answer)
            except (EOFError, ConnectionError):
                pass
            except Exception as error:
                self.error = error

    def answer(self, read):
        first, length, shift = read(1)[0], 0, 0
        while True:
            byte = read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        body, kind = Cursor(read(length)), first >> 4
        if kind == CONNECT:
            return self.connack
        if kind == SUBSCRIBE:
            return packet(SUBACK, 0, body.take(2) + b"\1")
        if kind == DISCONNECT:
            return None
        if kind == PINGREQ:
            self.pings += 1
            return packet(PINGRESP, 0) + self.on_ping()
        if kind != PUBLISH:
            return b""
        topic, packet_id = body.blob().decode(), body.number(2)
        if self.version == V5:
            eq(body.properties(), {}, "properties of a PUBLISH")
        return self.handler(topic, packet_id, body.rest())

    def has_more(self, seconds):
        """Has the newest connection sent, or does it now send, more than was taken?"""
        return bool(self.buffer or select.select([self.connection], [], [], seconds)[0])


def puback(packet_id, reason=0, text=None):
    return ack_packet(PUBACK, packet_id, V5, reason, {"reason_string": text} if text else None)


def response(topic, code, text):
    body = json.dumps({"vsn": "0.1", "topic": topic, "packet_id": 1, "reason_code": code,
                       "reason_description": text})
    return publish_packet("$file-response/bench-0", body, 1, 9, V311)


ONE = ("--connections", 1, "--size", "10K", "--segment", "1K", "--seed", 3)


def test_refused_segment(t):
    """It fails its file, the fin of that file is never sent, and the others go on."""
    topics = []

    def handler(topic, packet_id, _payload):
        topics.append(topic)
        return puback(packet_id, 0x97, "enospc") if topic == "$file/3-1/4096" else puback(packet_id)

    result, said = ingest_json(t, Impostor(t, handler).port, *ONE, "--files", 3, status=1)
    eq((result["files_failed"], result["connections_failed"]), (1, 0), "failures")
    eq(said, "sluice-bench: file 1: bench-0: segment [4096, 5120): 0x97 Quota exceeded: enospc\n",
       "cause")
    eq([x for x in topics if "/fin/" in x], ["$file/3-0/fin/10240", "$file/3-2/fin/10240"], "fins")


@cases(reason=[0x80, 0x10])
def test_refused_fin(t, reason):
    """0x10, nobody subscribes, is what a server says that knows nothing of files."""
    def handler(topic, packet_id, _payload):
        return puback(packet_id, reason if "/fin/" in topic else 0)

    result, said = ingest_json(t, Impostor(t, handler).port, *ONE, "--files", 7, status=1)
    eq(result["files_failed"], 7, "failed files")
    eq(len(said.splitlines()), 6, f"five causes and one line more: {said}")
    yes(f"fin: 0x{reason:02x} " in said, said)


def test_refusal_by_response_message(t):
    """MQTT 3.1.1: each PUBACK looks like success; only the message tells."""
    def handler(topic, packet_id, _payload):
        if topic == "$file/3-1/fin/10240":
            return response(topic, 0x80, "checksum_mismatch") + puback(packet_id)
        return response(topic, 0, "success") + puback(packet_id)

    result, said = ingest_json(t, Impostor(t, handler, V311).port, *ONE, "--files", 3, "--mqtt",
                               "3.1.1", status=1)
    eq(result["files_failed"], 1, "failed files")
    yes("$file/3-1/fin/10240: 0x80 checksum_mismatch" in said, said)


def test_no_response_message(t):
    """MQTT 3.1.1: a file whose outcome is never told has not arrived."""
    result, said = ingest_json(t, Impostor(t, lambda _t, i, _p: puback(i), V311).port, *ONE,
                               "--mqtt", "3.1.1", "--timeout", 1, status=1)
    eq(result["files_failed"], 1, "failed files")
    yes("silent for 1 seconds" in said, said)


@cases(receive_maximum=[1, 3, None])
def test_window(t, receive_maximum):
    """Never more unacknowledged commands than the daemon's Receive Maximum, nor than --window."""
    window, unacked, count, problems = receive_maximum or 5, [], [0], []

    def handler(topic, packet_id, _payload):
        count[0] += 1
        unacked.append(packet_id)
        # The last of the segments before the fin, and the fin, may be alone.
        if len(unacked) < window and count[0] < 30:
            return b""
        if imp.has_more(0.02):
            problems.append(f"more than {window} unacknowledged at {topic}")
        answer = b"".join(puback(i) for i in unacked)
        unacked.clear()
        return answer

    props = {"receive_maximum": receive_maximum} if receive_maximum else {}
    imp = Impostor(t, handler, V5, b"\0\0" + properties(props))
    # init, 29 segments, fin: of 30 commands each batch is full, whatever the window.
    result, said = ingest_json(t, imp.port, "--connections", 1, "--size", "29K", "--segment", "1K",
                               "--window", 5, "--timeout", 10)
    eq((problems, imp.error, count[0]), ([], None, 31), "problems, error, commands")
    eq(result["segments"], 29, "segments")
    eq("narrowed the window to" in said, receive_maximum is not None, "the word about the window")


@cases(connack=["refused", "small packets"])
def test_connack(t, connack):
    body, cause = {
        "refused": (b"\0\x87" + properties({"reason_string": "who are you"}),
                    "refused the connection: 0x87 Not authorized: who are you"),
        "small packets": (b"\0\0" + properties({"maximum_packet_size": 1000}),
                          "takes packets of at most 1000 bytes"),
    }[connack]
    result, said = ingest_json(t, Impostor(t, None, V5, body).port, *ONE, status=1)
    eq((result["files_failed"], result["connections_failed"]), (1, 1), "failures")
    yes(cause in said, said)


@cases(answered=[True, False])
def test_server_keep_alive(t, answered):
    """It pings when the daemon wants that; but a daemon that only answers pings is silent."""
    waiting = []

    def handler(topic, packet_id, _payload):
        if "/fin/" not in topic:
            return puback(packet_id)
        waiting.append(packet_id)
        return b""

    imp = Impostor(t, handler, V5, b"\0\0" + properties({"server_keep_alive": 1}))
    imp.on_ping = lambda: puback(waiting.pop()) if answered and imp.pings == 3 else b""
    result, said = ingest_json(t, imp.port, *ONE, "--timeout", 20 if answered else 2,
                               status=0 if answered else 1)
    yes(2 <= imp.pings <= 6, f"{imp.pings} pings")
    yes(result["seconds"] < 8, f"{result['seconds']} s")
    eq("silent for 2 seconds" in said, not answered, said)


def test_fin_waits_for_its_segments(t):
    """While an acknowledgement of a file is missing, its fin waits and the next file goes on."""
    held, topics = [], []

    def handler(topic, packet_id, _payload):
        topics.append(topic)
        if topic == "$file/3-0/2048":
            held.append(packet_id)
            return b""
        if topic == "$file/3-1/fin/10240":
            return puback(packet_id) + puback(held.pop())
        return puback(packet_id)

    ingest_json(t, Impostor(t, handler).port, *ONE, "--files", 2)
    yes(topics.index("$file/3-1/fin/10240") < topics.index("$file/3-0/fin/10240"), f"{topics}")
    eq(len(topics), len(set(topics)), "nothing is sent twice")


def test_content_is_what_the_digests_say(t):
    """The payloads, put together by their offsets, hash to what fin says; so do single segments."""
    content, digests = bytearray(300_000), []

    def handler(topic, packet_id, payload):
        words = topic.split("/")
        if words[2] == "fin":
            if len(words) > 4:
                digests.append((sha256(content), words[4]))
        elif words[2] != "init":
            content[int(words[2]):int(words[2]) + len(payload)] = payload
            if len(words) > 3:
                digests.append((sha256(payload), words[3]))
        return puback(packet_id)

    imp = Impostor(t, handler)
    options = ("--connections", 1, "--size", 300_000, "--segment", "1-9K", "--order", "random",
               "--duplicate", 50)
    for checksum in ("fin", "segment"):
        digests.clear()
        ingest_json(t, imp.port, *options, "--checksum", checksum)
        eq(imp.error, None, "error in the impostor")
        eq([a for a, b in digests if a != b], [], "wrong digests")
        yes(len(digests) == 1 if checksum == "fin" else len(digests) > 60, f"{len(digests)}")


@cases(how=["close", "disconnect", "silence", "stranger", "early"])
def test_broken_daemon(t, how):
    count = []

    def handler(_topic, packet_id, _payload):
        count.append(packet_id)
        if len(count) < 5:
            return puback(packet_id)
        return {"close": None, "disconnect": packet(DISCONNECT, 0, b"\x8e\0"), "silence": b"",
                "stranger": puback(31), "early": packet(PUBLISH, 0, string("a") + b"\0x")}[how]

    result, said = ingest_json(t, Impostor(t, handler).port, *ONE, "--files", 3, "--window", 8,
                               "--timeout", 1, status=1)
    eq((result["files_failed"], result["connections_failed"]), (3, 1), "failures")
    cause = {"close": "the daemon closed the connection", "silence": "silent for 1 seconds",
             "disconnect": "closed the connection: 0x8e Session taken over",
             "stranger": "PUBACK for packet id 31, which is not in flight",
             "early": "a message that is no response"}[how]
    yes(cause in said and "(with 3 of its files)" in said, said)


def test_nobody_listens(t):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    result, said = ingest_json(t, port, "--connections", 2, status=1)
    eq((result["files_failed"], result["connections_failed"]), (2, 2), "failures")
    yes("Connection refused" in said, said)


@cases(options=["--size 5-1", "--segment 0", "--segment 256M", "--window 0", "--window 65536",
                "--checksum md5", "--mqtt 4", "--order up", "--duplicate 101", "--port",
                "--unknown", "extra", "--connections 0", "--dir /nonexistent", "--pid 4194304",
                "--host name.invalid", "--client-prefix a/b"])
def test_refused_options(t, options):
    done = ingest(t, 1, *options.split())
    eq((done.returncode, done.stdout), (2, ""), "exit status and output")
    yes(done.stderr.startswith("sluice-bench: "), done.stderr)


def test_help_and_version(t):
    tool = t.tool("sluice-bench")
    for arguments in (["--help"], ["ingest", "--help"]):
        done = t.run(tool, *arguments)
        eq((done.returncode, done.stderr), (0, ""), "exit status and stderr")
        yes(done.stdout.startswith("usage: sluice-bench "), done.stdout)
    listed = set(re.findall(r"--[a-z-]+", t.run(tool, "ingest", "--help").stdout))
    manual = (ROOT / "bench/sluice-bench.1").read_text()
    named = {"--" + x for x in re.findall(r"Fl -([a-z-]+)", manual)}
    eq(listed - named, set(), "options without a word in the manual")
    yes(t.run(tool, "--version").stdout.startswith("sluice-bench "), "--version")
    eq(t.run(tool, "nothing").returncode, 2, "exit status for an unknown command")
