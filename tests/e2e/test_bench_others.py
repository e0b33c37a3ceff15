"""sluice-bench beside ingest: floors, the plain loop, other servers, idle connections, pings."""

import http.server
import json
import os
import re
import signal
import socket
import threading

from harness import ROOT, cases, eq, sha256, yes

COMMANDS = ("ingest", "publish", "floor", "loop", "put", "idle", "ping")


def bench(t, command, *options, status=0):
    """Runs it with --json: the object."""
    done = t.run(t.tool("sluice-bench"), command, "--json", *options)
    eq(done.returncode, status, f"exit status; it said: {done.stderr}")
    eq(done.stderr == "", status == 0, f"something on stderr: {done.stderr}")
    return json.loads(done.stdout)


# --- floor, loop ---


@cases(mode=["discard", "splice", "poll-splice", "splice+sha", "sha"])
def test_floor(t, mode):
    path = t.dir / "floor"
    path.mkdir()
    result = bench(t, "floor", "--mode", mode, "--dir", path, "--connections", 3, "--files", 11,
                   "--size", "1-9M", "--segment", "64K", "--seed", 4)
    again = bench(t, "ingest", "--port", t.daemon().port, "--connections", 3, "--files", 11,
                  "--size", "1-9M", "--segment", "64K", "--seed", 4)
    eq((result["mode"], result["files"], result["bytes"]), (mode, 11, again["bytes"]),
       "what was received is what ingest sends")
    yes(0 < result["cpu_seconds"] < 60 and 0 < result["seconds"] < 60, f"{result}")
    gb = result["bytes"] / 1e9
    yes(abs(result["cpu_seconds_per_gb"] * gb - result["cpu_seconds"]) < 1e-4, f"{result}")
    eq(result["drains"] > 0, "splice" in mode, f"splices to files: {result}")
    eq(list(path.iterdir()), [], "files left behind")


def test_floor_odd_sizes(t):
    """Empty files, more connections than files, fewer bytes than a write."""
    for sizes in (("--files", 3, "--size", 0), ("--files", 40, "--size", "0-3"),
                  ("--files", 300, "--size", "0-70K")):
        for mode in ("discard", "splice", "poll-splice", "splice+sha"):
            result = bench(t, "floor", "--mode", mode, "--dir", t.dir, "--connections", 7, *sizes)
            eq(result["files"], sizes[1], f"files of {mode} {sizes}")


def test_floor_can_not_write(t):
    done = t.run(t.tool("sluice-bench"), "floor", "--dir", t.dir / "nowhere", "--size", "1M")
    eq((done.returncode, done.stdout), (1, ""), "exit status and output")
    yes("No such file" in done.stderr, done.stderr)


@cases(options=["", "--no-dir-sync", "--together 7", "--together 512"])
def test_loop(t, options):
    path = t.dir / "loop"
    path.mkdir()
    result = bench(t, "loop", "--dir", path, "--files", 30, "--size", "1-9K", *options.split())
    eq(result["files"], 30, "files")
    yes(abs(result["files_per_s"] * result["seconds"] - 30) < 0.1, f"{result}")
    eq(sorted(p.name for p in path.rglob("*")), ["export", "staging"], "left behind")


# --- other servers ---


def test_publish(t):
    """Ordinary messages to an ordinary topic; a subscriber gets every byte."""
    d = t.daemon("mqtt.queue_messages=1000")
    c = t.client()
    c.subscribe("some/topic")
    result = bench(t, "publish", "--port", d.port, "--topic", "some/topic", "--connections", 2,
                   "--files", 4, "--size", "20K", "--segment", "1K", "--window", 10, "--pid",
                   d.process.pid)
    eq((result["segments"], result["bytes"], result["files_failed"]), (80, 80 << 10, 0), "sent")
    got = [c.message() for _ in range(80)]
    eq({(m.topic, m.qos, len(m.payload)) for m in got}, {("some/topic", 1, 1024)}, "messages")
    alone = bench(t, "publish", "--port", d.port, "--files", 2, "--size", "9K", "--segment", "2K")
    eq(alone["segments"], 10, "segments without a subscriber")
    eq(d.exported_files(), [], "files")


class PutServer(http.server.ThreadingHTTPServer):
    """Takes PUTs; answer is the status of each."""

    def __init__(self, t, answer=201):
        self.files, self.requests_by_connection = {}, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                self.count = 0

            def do_PUT(self):  # pylint: disable=invalid-name
                data = self.rfile.read(int(self.headers["Content-Length"]))
                self.server.files[self.path] = data
                self.count += 1
                self.send_response(answer)
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(b"taken")

            def finish(self):
                super().finish()
                self.server.requests_by_connection.append(self.count)

            def log_message(self, *_args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()
        t.at_end(self.shutdown)
        t.at_end(self.server_close)


def test_put(t):
    """The files of ingest, each in one request; connections are used again."""
    server = PutServer(t)
    options = ("--connections", 3, "--files", 10, "--size", "0-2100K", "--seed", 0x2a)
    result = bench(t, "put", "--port", server.port, "--path", "/up/", *options)
    eq((result["files"], result["files_failed"]), (10, 0), "files")
    eq(sum(map(len, server.files.values())), result["bytes"], "bytes")
    d = t.daemon()
    bench(t, "ingest", "--port", d.port, *options)
    wanted = {f"/up/{p.parent.name}": sha256(p.read_bytes()) for p in d.exported_files()}
    eq({name: sha256(data) for name, data in server.files.items()}, wanted, "contents")


def test_put_refused(t):
    server = PutServer(t, 507)
    done = t.run(t.tool("sluice-bench"), "put", "--port", server.port, "--connections", 2,
                 "--files", 6, "--size", "1K", "--json")
    eq((done.returncode, json.loads(done.stdout)["files_failed"]), (1, 6), "status, failed files")
    yes("the server answered: HTTP/1.1 507" in done.stderr, done.stderr)


def test_put_raw(t):
    listener = socket.create_server(("127.0.0.1", 0))
    t.at_end(listener.close)
    got = []

    def serve():
        for _ in range(5):
            connection, _ = listener.accept()
            with connection:
                data = b""
                while piece := connection.recv(1 << 16):
                    data += piece
                got.append(data)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    result = bench(t, "put", "--raw", "--port", listener.getsockname()[1], "--connections", 2,
                   "--files", 5, "--size", "1-90K")
    thread.join(10)
    eq((result["files"], result["files_failed"]), (5, 0), "files")
    eq(sum(map(len, got)), result["bytes"], "bytes")


# --- connections that send no files ---


def test_idle(t):
    d = t.daemon()
    result = bench(t, "idle", "--port", d.port, "--connections", 200, "--seconds", 2,
                   "--keep-alive", 1, "--pid", d.process.pid)
    eq((result["connections"], result["connections_failed"]), (200, 0), "connections")
    # Every connection pings twice; the last moment may or may not count.
    yes(390 <= result["pings"] <= 401, f"pings: {result}")
    eq(result["pongs"], result["pings"], "answers")
    yes(result["rss_bytes"] > 0 and result["rss_kib_per_connection"] < 100, f"{result}")
    yes(0 < result["daemon_cpu_percent"] < 100, f"{result}")


def test_idle_is_refused(t):
    """The daemon takes fewer connections: told, counted, and the exit status says so."""
    d = t.daemon("mqtt.connections_max=10")
    result = bench(t, "idle", "--port", d.port, "--connections", 15, "--seconds", 1, "--keep-alive",
                   1, "--timeout", 3, status=1)
    eq((result["connections"], result["connections_failed"]), (10, 5), "connections")


def test_ping(t):
    d = t.daemon()
    result = bench(t, "ping", "--port", d.port, "--seconds", 1, "--interval", 5)
    yes(199 <= result["pings"] <= 201, f"pings: {result}")
    yes(0 < result["ping_ms"]["p50"] <= result["ping_ms"]["max"] * 1.04, f"{result}")


def test_ping_sees_a_standstill(t):
    """A daemon that stands still for 0.3 s is late with every ping of that time, not with one."""
    d = t.daemon()
    stopped = threading.Timer(0.3, lambda: os.kill(d.process.pid, signal.SIGSTOP))
    again = threading.Timer(0.6, lambda: os.kill(d.process.pid, signal.SIGCONT))
    stopped.start()
    again.start()
    result = bench(t, "ping", "--port", d.port, "--seconds", 1, "--interval", 10)
    again.join()
    yes(result["ping_ms"]["max"] > 200, f"{result}")
    yes(result["slow"] >= 20, f"{result}")


# --- the command line ---


def test_every_option_is_in_the_manual(t):
    tool = t.tool("sluice-bench")
    manual = (ROOT / "bench/sluice-bench.1").read_text()
    parts = re.split(r"^\.Ss (\w+)$", manual, flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2]))
    eq(set(COMMANDS) - set(sections), set(), "commands without a section")
    for command in COMMANDS:
        done = t.run(tool, command, "--help")
        eq((done.returncode, done.stderr), (0, ""), "exit status and stderr")
        listed = set(re.findall(r"--([a-z-]+)", done.stdout))
        text = sections[command] + (sections["ingest"] if command == "publish" else "")
        named = set(re.findall(r"(?:Fl -|, -)([a-z-]+)", text))
        eq(listed - named, set(), f"options of {command} without a word in the manual")


@cases(options=["floor --mode fast", "floor --port 1", "loop --dir", "publish --topic a/#",
                "publish --size 0-9", "publish --checksum fin", "put --window 3", "idle --seconds 0",
                "ping --pid 1", "ping --interval 0"])
def test_refused_options(t, options):
    done = t.run(t.tool("sluice-bench"), *options.split())
    eq((done.returncode, done.stdout), (2, ""), "exit status and output")
    yes(done.stderr.startswith("sluice-bench: "), done.stderr)
