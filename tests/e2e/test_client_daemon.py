"""sluice against sluiced: the two together, through crashes of either."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

from harness import BOTH, V5, cases, eq, limit, sha256, some_bytes, until, yes
from rawmqtt import V311

MQTT = {V5: "5", V311: "3.1.1"}


class Proxy:
    """Stands between client and daemon, so that a test can act at an exact byte of the stream.

    at maps a number of bytes from client to daemon (in all connections together) to a function, which is
    called when so many have passed, before the next one does. target is the daemon's port."""

    def __init__(self, t, daemon, at=None):
        self.daemon, self.at, self.passed = daemon, dict(at or {}), 0
        self.peers = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.socket()
            port = self.daemon.port  # None while it starts
            try:
                far.connect(("127.0.0.1", port or 1))
            except OSError:
                near.close()
                continue
            self.peers += [near, far]
            threading.Thread(target=self.forward, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self.forward, args=(far, near, False), daemon=True).start()

    def forward(self, source, sink, is_up):
        try:
            while data := source.recv(1 << 16):
                while is_up and self.at and self.passed + len(data) >= min(self.at):
                    step = min(self.at) - self.passed
                    sink.sendall(data[:step])
                    self.passed += step
                    data = data[step:]
                    self.at.pop(self.passed)()
                sink.sendall(data)
                self.passed += len(data) if is_up else 0
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        for s in self.peers:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.peers.clear()


def arguments(t, port, *more, version=V5, client_id="cli", command="send"):
    return [str(a) for a in (t.tool("sluice"), command, "-h", "127.0.0.1", "-p", port, "-i", client_id,
                             "--mqtt", MQTT[version], *more)]


def sluice(t, port, *more, **options):
    return t.run(*arguments(t, port, *more, **options))


def make(t, name="cam.mp4", count=1_000_000, seed=1):
    path = t.dir / name
    path.write_bytes(some_bytes(count, seed))
    return path


def check_ok(result):
    eq((result.returncode, result.stdout, result.stderr), (0, "", ""), "exit status, output")


def only_export(d):
    files = d.exported_files()
    eq(len(files), 1, f"exports ({files})")
    return files[0]


@cases(version=BOTH, count=[0, 1, 5_000, 262_145, 20_000_000],
       how=[(), ("--async",), ("--no-checksum",), ("--segment-checksum",)])
def test_one_file(t, version, count, how):
    d, path = t.daemon(), make(t, count=count)
    check_ok(sluice(t, d.port, *how, path, version=version))
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")
    eq(only_export(d).name, "cam.mp4", "name")
    eq(d.staged_files(), [], "staging")


@cases(version=BOTH)
def test_many_files(t, version):
    d = t.daemon()
    paths = [make(t, f"f{i}", i * 37, seed=i) for i in range(500)]
    check_ok(sluice(t, d.port, *paths, version=version))
    eq({p.name: p.read_bytes() for p in d.exported_files()}, {p.name: p.read_bytes() for p in paths},
       "exports")


def test_mixed_sizes(t):
    d = t.daemon()
    rng = random.Random(7)
    paths = [make(t, f"f{i}", rng.choice([0, 10, 100_000, 300_000, 3_000_000]), seed=i)
             for i in range(40)]
    check_ok(sluice(t, d.port, *paths))
    eq({p.name: p.read_bytes() for p in d.exported_files()}, {p.name: p.read_bytes() for p in paths},
       "exports")


@cases(segment=["1", "700", "65536", "65537", "8MiB", "200MiB"])
def test_segment_sizes(t, segment):
    d, path = t.daemon(), make(t, count=2_000 if segment == "1" else 1_000_000 if segment == "700"
                               else 20_000_000)
    check_ok(sluice(t, d.port, "--segment-size", segment, path))
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")


@cases(version=BOTH)
def test_second_send_exports_nothing_new(t, version):
    d, paths = t.daemon(), [make(t, "large", 2_000_000), make(t, "small", 50)]
    for _ in range(3):
        check_ok(sluice(t, d.port, *paths, version=version))
    eq(len(d.exported_files()), 2, "exports")


@cases(version=BOTH)
def test_same_id_with_other_bytes_is_a_second_export(t, version):
    d = t.daemon()
    one, two = make(t, "a", 2_000_000, seed=1), make(t, "b", 2_000_000, seed=2)
    check_ok(sluice(t, d.port, "--file-id", "f", "--name", "n", one, version=version))
    eq(sluice(t, d.port, "--file-id", "f", "--name", "n", two, version=version).returncode, 0, "status")
    eq(sorted(sha256(p.read_bytes()) for p in d.exported_files()),
       sorted(sha256(p.read_bytes()) for p in (one, two)), "exports")


@cases(version=BOTH, kill=[False, True])
@limit(90)
def test_daemon_restarts_in_the_middle(t, version, kill):
    """Three times; what was acknowledged is not sent again."""
    d, path = t.daemon(), make(t, count=24_000_000)
    restart = lambda: d.restart(kill=kill)  # noqa: E731
    proxy = Proxy(t, d, {5_000_000: restart, 11_000_001: restart, 20_000_002: restart})
    result = sluice(t, proxy.port, path, version=version)
    eq(result.returncode, 0, f"exit status; {result.stderr}")
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")
    eq(proxy.at, {}, "restarts that did not happen")
    # At most a window of segments is lost each time.
    yes(proxy.passed < 24_000_000 + 3 * 33 * 262_300 + 100_000, f"bytes sent: {proxy.passed}")


@cases(version=BOTH, how=[(), ("--async",), ("--window", "3")])
@limit(90)
def test_many_files_through_crashes(t, version, how):
    """Each is exported once and whole, whatever was pending when the daemon died."""
    d, rng = t.daemon(), random.Random(version)
    paths = [make(t, f"f{i}", rng.choice([0, 100, 5_000, 70_000, 262_144, 300_000, 900_000]), seed=i)
             for i in range(120)]
    total = sum(p.stat().st_size for p in paths)
    crash = lambda: d.restart(kill=True)  # noqa: E731
    proxy = Proxy(t, d, {total * i // 6 + 17: crash for i in range(1, 6)})
    result = sluice(t, proxy.port, *how, *paths, version=version)
    eq(result.returncode, 0, f"exit status; {result.stderr}")
    eq(proxy.at, {}, "crashes that did not happen")
    found = d.exported_files()
    eq(sorted(p.name for p in found), sorted(p.name for p in paths), "names of the exports")
    eq({p.name: sha256(p.read_bytes()) for p in found}, {p.name: sha256(p.read_bytes()) for p in paths},
       "exports")
    eq(d.staged_files(), [], "staging")


@cases(version=BOTH)
def test_connection_cut_often(t, version):
    d, path = t.daemon(), make(t, count=6_000_000)
    proxy = Proxy(t, d)
    proxy.at = {n: proxy.cut for n in range(700_000, 6_000_000, 1_300_001)}
    result = sluice(t, proxy.port, "--window", "4", path, version=version)
    eq(result.returncode, 0, f"exit status; {result.stderr}")
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")


@cases(version=BOTH, how=[signal.SIGINT, signal.SIGKILL])
def test_client_ends_in_the_middle(t, version, how):
    d, path = t.daemon(), make(t, count=8_000_000)
    stalled = threading.Event()
    proxy = Proxy(t, d, {5_000_000: lambda: stalled.set() or time.sleep(3600)})
    p = subprocess.Popen(arguments(t, proxy.port, path, version=version), stderr=subprocess.PIPE)
    yes(stalled.wait(20), "the upload got half-way")
    status = lambda: sluice(t, d.port, path, client_id="other", command="status")  # noqa: E731
    eq(status().stdout, f"{path}: not known to the server\n", "another client id is another world")
    time.sleep(0.3)
    p.send_signal(how)
    p.wait(10)
    text = sluice(t, d.port, path, version=version, command="status").stdout
    match = re.fullmatch(rf"{path}: open, (\d+) of 8000000 bytes \(\d+%\), missing \1-8000000\n", text)
    yes(match, f"status: {text!r}")
    stored = int(match[1])
    yes(4_000_000 < stored < 5_000_000, f"{stored} bytes are stored")
    second = Proxy(t, d)
    check_ok(sluice(t, second.port, path, version=version))
    yes(second.passed < 8_000_000 - stored + 50_000, f"bytes of the second run: {second.passed}")
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")


@cases(version=BOTH, kill=[False, True])
def test_pipe_through_a_restart(t, version, kill):
    d, data = t.daemon(), some_bytes(12_000_000)
    proxy = Proxy(t, d, {4_000_003: lambda: d.restart(kill=kill)})
    p = subprocess.Popen(arguments(t, proxy.port, "-q", "--name", "dump", "-", version=version),
                         stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    _, message = p.communicate(data, timeout=40)
    eq((p.returncode, message), (0, b""), "exit status, message")
    eq(only_export(d).read_bytes(), data, "bytes")
    eq(only_export(d).name, "dump", "name")


def test_slow_pipe_arrives_at_once(t):
    d = t.daemon()
    p = subprocess.Popen(arguments(t, d.port, "--file-id", "log", "--name", "log", "-"),
                         stdin=subprocess.PIPE)
    t.at_end(p.kill)
    up = t.uploader("watcher")
    yes(up is not None, "another client is served meanwhile")
    for i in range(3):
        p.stdin.write(b"0123456789")
        p.stdin.flush()
        until(lambda i=i: sum(f.stat().st_size for f in d.staged_files()) >= 10 * (i + 1),
              f"{10 * (i + 1)} bytes are staged")
    p.stdin.close()
    eq(p.wait(10), 0, "exit status")
    eq(only_export(d).read_bytes(), b"0123456789" * 3, "bytes")


@cases(version=BOTH)
def test_refused_name(t, version):
    d = t.daemon()
    for name, cause in {"a:b": "name has a ':'", "a/b": "name has a '/'", "..": "the name is not acceptable",
                        "x" * 241: "the name is longer than 240 bytes"}.items():
        path = make(t, "plain", 5)
        result = sluice(t, d.port, "--name", name, "--file-id", f"id{len(name)}", path, version=version)
        eq((result.returncode, result.stderr), (1, f"sluice: {path}: the server refused init: {cause} "
           "(invalid_filemeta)\n"), f"refusal of {name!r}")
    eq(d.exported_files(), [], "exports")


@cases(version=BOTH)
def test_conflict_and_abort(t, version):
    d = t.daemon()
    up = t.uploader("cli")
    up.init("f", "other name", size=1_000_000)
    up.client.disconnect()
    path = make(t)
    result = sluice(t, d.port, "--file-id", "f", path, version=version)
    eq(result.returncode, 1, "exit status")
    yes("is open with other metadata" in result.stderr, result.stderr)
    result = sluice(t, d.port, "--file-id", "f", version=version, command="abort")
    eq((result.returncode, result.stdout), (0, "f: aborted\n"), "abort")
    check_ok(sluice(t, d.port, "--file-id", "f", path, version=version))
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")
    result = sluice(t, d.port, "--file-id", "f", version=version, command="status")
    yes(result.stdout.startswith("f: exported, 1000000 of 1000000 bytes (100%)"), result.stdout)


@cases(version=BOTH)
def test_leftovers_of_another_file_are_replaced(t, version):
    """The same id and metadata, other bytes: the digest tells, and all of it is sent once more."""
    d, path = t.daemon(), make(t)
    up = t.uploader("cli")
    up.init("f", "cam.mp4", size=1_000_000)
    up.segment("f", 0, bytes(300_000))
    up.client.disconnect()
    result = sluice(t, d.port, "--file-id", "f", path, version=version)
    eq(result.returncode, 0, f"exit status; {result.stderr}")
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")


@cases(version=BOTH)
def test_too_large(t, version):
    d, path = t.daemon("transfer.file_max=512KiB"), make(t)
    result = sluice(t, d.port, path, version=version)
    eq((result.returncode, result.stderr), (1, f"sluice: {path}: the server refused init: the file is "
       "larger than the server takes (too_large)\n"), "refusal")


def test_changed_file_leaves_nothing(t):
    d, path = t.daemon(), make(t, count=8_000_000)
    proxy = Proxy(t, d, {4_000_000: lambda: os.truncate(path, 6_000_000)})
    result = sluice(t, proxy.port, "--window", "4", path)
    eq(result.returncode, 1, "exit status")
    yes("the file changed while it was being sent: it became shorter" in result.stderr, result.stderr)
    eq(d.exported_files(), [], "exports")
    until(lambda: not d.staged_files(), "staging is empty")  # behind the answer to the abort


def test_user_data_reaches_the_manifest(t):
    d, path = t.daemon(), make(t, count=10)
    check_ok(sluice(t, d.port, "--user-data", '{"cam": 12345678901234567890}', "--file-id", "f", path))
    manifests = [p for p in d.export_root.rglob("*.manifest.json")]
    eq(len(manifests), 1, "manifests")
    text = manifests[0].read_text()
    yes("12345678901234567890" in text, text)
    eq(json.loads(text)["sha256"], sha256(path.read_bytes()), "digest")


def test_two_clients_with_one_id(t):
    """The one that is thrown out says so and ends; it does not fight."""
    d, path = t.daemon(), make(t, count=4_000_000)
    stalled = threading.Event()
    proxy = Proxy(t, d, {1_000_000: lambda: stalled.set() or time.sleep(3600)})
    p = subprocess.Popen(arguments(t, proxy.port, path), stderr=subprocess.PIPE, text=True)
    t.at_end(p.kill)
    yes(stalled.wait(20), "the upload got half-way")
    check_ok(sluice(t, d.port, path))
    _, message = p.communicate(timeout=20)
    eq(p.returncode, 1, "exit status")
    yes(message.startswith("sluice: another client with the id cli has connected;"), message)
    eq(only_export(d).read_bytes(), path.read_bytes(), "bytes")
