"""What every end-to-end test stands on: daemons of its own, clients, files, and exact comparison.

A test is a function test_x(t) of a file test_*.py; t is a Context. It starts what it needs
(t.daemon(), t.client()), asserts with eq() and friends, and cleans up nothing: the context ends
every daemon by SIGTERM and fails the test unless each ends with status 0 and a clean log.

@cases(...) runs a function once per set of arguments, @limit(seconds) gives it more (or less)
than the usual time.
"""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

from rawmqtt import PUBACK, PUBREC, V5, V31, V311, VERSION_NAMES, Client

ROOT = Path(__file__).resolve().parents[2]
LISTENING = re.compile(r"^\S+ info listening addr=(?:127\.0\.0\.1|\[?::1\]?):(\d+)(?: durability=power)?$", re.M)
# What sanitizers and our own asserts write; none may be in a log of a test that passes.
CRASHES = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|"
                     r"Assertion .* failed|SUMMARY: \w+Sanitizer")
# Their exit status is none that a program of ours ends with: a client that leaks must not be taken
# for one that refuses.
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:exitcode=99")
os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
TTY_SAFE = {c: f"\\x{c:02x}" for c in range(32) if c not in (9, 10)}


class Skip(Exception):
    """The test can't run here; the reason is shown."""


def eq(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r}, expected {expected!r}")


def yes(condition, what):
    if not condition:
        raise AssertionError(what)


def raises(kind, function, *args, **kwargs):
    """The exception, which must come."""
    try:
        function(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def until(condition, what, seconds=10, every=0.01):
    """Waits until condition() is true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(every)


def cases(**lists):
    """Runs the test once for each combination, e.g. @cases(version=[V311, V5], qos=[0, 1])."""
    def mark(function):
        combinations = [{}]
        for name, values in lists.items():
            combinations = [{**c, name: v} for c in combinations for v in values]
        function.cases = combinations
        return function
    return mark


def limit(seconds):
    def mark(function):
        function.limit = seconds
        return function
    return mark


BOTH = [V311, V5]
ALL = [V31, V311, V5]


def case_name(arguments):
    return ",".join(VERSION_NAMES[v] if k == "version" else f"{k}={v}"
                    for k, v in arguments.items())


def cover_rest(size, covered):
    """What is missing of [0, size) when the ranges of `covered` are there."""
    missing, at = [], 0
    for a, b in sorted(covered) + [(size, size)]:
        if a > at:
            missing.append([at, min(a, size)])
        at = max(at, b)
    return missing


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def some_bytes(count, seed=1):
    return random.Random(seed).randbytes(count)


def escape_id(text):
    """The directory name of a client or file id (names_escape_id, ids that need no shortening)."""
    out = ""
    for at, c in enumerate(text):
        plain = c.isascii() and (c.isalnum() or c in "_-") or c == "." and at > 0 or ord(c) >= 0x80
        out += c if plain else f"%{ord(c):02X}"
    return out


class Daemon:
    def __init__(self, context, data, options=(), listen=("127.0.0.1:0",), arguments=()):
        self.context, self.data = context, Path(data)
        self.options, self.listen, self.arguments = tuple(options), tuple(listen), tuple(arguments)
        self.log_path = context.dir / f"{self.data.name}.log"
        self.log_start, self.process, self.port, self.is_expected_dead = 0, None, None, False

    def command(self):
        line = [str(self.context.tool("sluiced")), "--data", str(self.data)]
        for address in self.listen:
            line += ["--listen", address]
        for option in self.options:
            line += ["-o", option]
        return line + list(self.arguments)

    def start(self):
        with open(self.log_path, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        found = until(lambda: self.process.poll() is not None or LISTENING.search(self.new_log()),
                      "the daemon listens", 20 * self.context.slow, 0.005)
        if found is True:
            raise AssertionError(f"the daemon ended with {self.process.returncode} at start")
        self.port = int(found[1])
        return self

    def log(self):
        return self.log_path.read_bytes().decode(errors="replace") if self.log_path.exists() else ""

    def new_log(self):
        """The log since the last start."""
        with open(self.log_path, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def stop(self):
        """SIGTERM; the exit status must be 0."""
        if self.process is None:
            return
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(20 * self.context.slow)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("the daemon did not end after SIGTERM") from None
        eq(status, 0, "exit status of the daemon")

    def kill(self):
        """SIGKILL: what a crash leaves behind. The port may now be anybody's."""
        process, self.process, self.port = self.process, None, None
        eq(process.poll(), None, "exit status of the daemon before it was killed")
        process.kill()
        process.wait()

    def restart(self, kill=False):
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def stats(self):
        """The counters of the log line that SIGUSR1 asks for."""
        def lines():
            return re.findall(r"^\S+ info stats (.*)$", self.new_log(), re.M)

        before = len(lines())
        self.process.send_signal(signal.SIGUSR1)
        until(lambda: len(lines()) > before, "a line with stats after SIGUSR1")
        return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", lines()[-1])}

    def rss_bytes(self, key="VmRSS"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M)[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # --- what it leaves in the file system ---

    @property
    def export_root(self):
        return self.data / "export"

    def export_dir(self, client_id, file_id):
        return self.export_root / escape_id(client_id) / escape_id(file_id)

    def export(self, client_id, file_id, name):
        """The bytes of an exported file."""
        return (self.export_dir(client_id, file_id) / name).read_bytes()

    def generations(self, client_id, file_id):
        """Export directories of a file id, the first one first."""
        parent, stem = self.export_root / escape_id(client_id), escape_id(file_id)
        if not parent.is_dir():
            return []
        found = [p for p in parent.iterdir() if p.name == stem or p.name.startswith(stem + "~")]
        return sorted(found, key=lambda p: int(p.name[len(stem) + 1:] or 0))

    def exported_files(self):
        """Every file below export/, manifests and the daemon's lock not counted. Directories may go
        meanwhile, as with export.retention."""
        return sorted(Path(parent) / name for parent, _, names in os.walk(self.export_root)
                      for name in names if name not in (".manifest.json", ".sluice-lock"))

    def staged_files(self):
        staging = self.data / "staging"
        return sorted(p for p in staging.rglob("*") if p.is_file()) if staging.is_dir() else []


class Context:
    """One running test."""

    def __init__(self, build, directory, limit_seconds=60):
        self.build, self.dir = Path(build), Path(directory)
        # Sanitizers cost a factor; every wait for the daemon gets it, too.
        self.is_sanitized = bool(re.search("asan|tsan", str(build)))
        self.slow = 4 if self.is_sanitized or re.search(r"debug|\bcov\b", str(build)) else 1
        self.limit = limit_seconds
        self.daemons, self.clients, self.undo, self.client_count = [], [], [], 0

    def tool(self, name):
        path = self.build / name
        if not path.exists():
            raise Skip(f"{path} is not built")
        return path

    def daemon(self, *options, data=None, start=True, **more):
        d = Daemon(self, data or self.dir / f"data{len(self.daemons) or ''}", options, **more)
        self.daemons.append(d)
        return d.start() if start else d

    def client(self, client_id=None, version=V5, daemon=None, **options):
        """Connects to the first daemon unless another is named."""
        if client_id is None:
            self.client_count += 1
            client_id = f"c{self.client_count}"
        options.setdefault("timeout", 15 * self.slow)
        c = Client((daemon or self.daemons[0]).port, client_id, version, **options)
        self.clients.append(c)
        return c

    def uploader(self, client_id=None, version=V5, **options):
        """A client that is subscribed to its response topic."""
        return Uploader(self.client(client_id, version, **options))

    def run(self, *command, **options):
        """Runs a program to its end; its output is in .stdout and .stderr."""
        options.setdefault("timeout", 60 * self.slow)
        return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, **options)

    def at_end(self, function):
        self.undo.append(function)

    def finish(self, passed):
        """Ends everything. Raises when a daemon does not end as it must."""
        errors = []
        for c in self.clients:
            c.close()
        for d in self.daemons:
            try:
                d.stop()
            except AssertionError as error:
                errors.append(str(error))
            crash = CRASHES.search(d.log())
            if crash:
                errors.append(f"the daemon's log has: {crash[0]}")
        for function in reversed(self.undo):
            function()
        if passed and errors:
            raise AssertionError("; ".join(errors))

    def log_tails(self, lines=40):
        """For a failure: the end of each daemon's log, made safe for a terminal."""
        text = ""
        for d in self.daemons:
            tail = d.log().splitlines()[-lines:]
            text += f"--- {d.log_path}\n" + "\n".join(tail).translate(TTY_SAFE) + "\n"
        return text


class Uploader:
    """A client with its response topic subscribed: each command is checked on every channel.

    check() sends one command and compares all that the protocol says about its outcome: the ack's
    reason code and reason string (v5), the absence of both (v3), and the five keys of the response
    message. It returns the response message as a dict.
    """

    def __init__(self, client):
        self.client = client
        self.topic = f"$file-response/{client.client_id}"
        eq(client.subscribe(self.topic).codes, [1], "SUBACK of the response topic")
        self.version = client.version

    def response(self, topic=None, timeout=None):
        """The next response message: a dict."""
        message = self.client.message(timeout)
        eq(message.topic, topic or self.topic, "topic of the response message")
        eq((message.qos, message.retain), (1, 0), "QoS and RETAIN of the response message")
        body = json.loads(message.payload)
        for key in ("vsn", "topic", "packet_id", "reason_code", "reason_description"):
            yes(key in body, f"response message without {key}: {body}")
        eq(body["vsn"], "0.1", "vsn")
        return body

    def check(self, topic, payload=b"", qos=1, code=0, description="success", reason_string=None,
              ack_code=None, **options):
        """reason_string: what the ack says when it is not the description alone, as text or as a
        pattern. ack_code: the ack's reason when it is not the response's (async fin)."""
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        ack = self.client.publish(topic, payload, qos, **options)
        packet_id = options.get("packet_id", self.client.last_id) if qos else 0
        if ack is not None:
            eq(ack.type, PUBACK if qos == 1 else PUBREC, "type of the ack")
            check_ack(ack, self.version, code if ack_code is None else ack_code,
                      reason_string or description)
        body = self.response()
        five = {k: body[k] for k in ("topic", "packet_id", "reason_code", "reason_description")}
        eq(five, {"topic": topic, "packet_id": packet_id, "reason_code": code,
                  "reason_description": description}, "response message")
        return body

    # --- the commands, by name ---

    def init(self, file_id, name="a.bin", mode="$file", qos=1, code=0, description="success",
             **meta):
        return self.check(f"{mode}/{file_id}/init", {"name": name, **meta}, qos, code, description)

    def segment(self, file_id, offset, data, checksum=None, mode="$file", qos=1, code=0,
                description="success", **options):
        """checksum: True for the right one, or any text."""
        topic = f"{mode}/{file_id}/{offset}"
        if checksum:
            topic += "/" + (sha256(data) if checksum is True else checksum)
        return self.check(topic, data, qos, code, description, **options)

    def fin(self, file_id, size, checksum=None, qos=1, code=0, description="success", **options):
        topic = f"$file/{file_id}/fin/{size}" + (f"/{checksum}" if checksum else "")
        return self.check(topic, b"", qos, code, description, **options)

    def fin_incomplete(self, file_id, size, missing, **options):
        """A fin that must be refused; missing is the whole list of ranges."""
        first = "^incomplete"
        if missing:
            first += r"\b.*\b{}\b.*\b{}\b".format(*missing[0])
        body = self.fin(file_id, size, code=0x80, description="incomplete",
                        reason_string=re.compile(first), **options)
        eq(body["missing"], missing[:32], "missing")
        eq(body["missing_bytes"], sum(b - a for a, b in missing), "missing_bytes")
        return body

    def response_of_fin(self, file_id, size):
        """Publishes fin, whatever comes of it; the response message."""
        self.client.publish(f"$file/{file_id}/fin/{size}")
        return self.response()

    def abort(self, file_id, mode="$file", qos=1):
        return self.check(f"{mode}/{file_id}/abort", b"", qos)

    def status(self, file_id, mode="$file", qos=1):
        """What the daemon says of a transfer: the object under "status"."""
        body = self.check(f"{mode}/{file_id}/status", b"", qos)
        eq(sorted(body["status"]), ["frontier", "missing", "received", "size", "state",
                                    "truncated"], "keys of status")
        return body["status"]

    def upload(self, file_id, data, name="a.bin", segment_bytes=1024, window=64, fin=True, **meta):
        """A whole file in order, all acks 0x00; the response messages are read and checked."""
        messages = [(f"$file/{file_id}/init", json.dumps({"name": name, **meta}))]
        messages += segments(file_id, data, segment_bytes)
        if fin:
            messages.append((f"$file/{file_id}/fin/{len(data)}", b""))
        for at, ack in enumerate(self.client.publish_all(messages, window)):
            check_ack(ack, self.version, 0, None, messages[at][0])
        for _ in messages:
            body = self.response()
            eq(body["reason_description"], "success", body["topic"])


def segments(file_id, data, segment_bytes, mode="$file"):
    return [(f"{mode}/{file_id}/{at}", data[at:at + segment_bytes])
            for at in range(0, len(data), segment_bytes)]


def check_ack(ack, version, code, reason_string, what="ack"):
    """v5: the code, and for a refusal its reason string. v3 has neither: four bytes, no more."""
    if version == V5:
        eq(f"0x{ack.reason:02x}", f"0x{code:02x}", f"reason code of the {what}")
        if code < 0x80:
            return
        if isinstance(reason_string, re.Pattern):
            yes(reason_string.search(ack.reason_string or ""),
                f"reason string of the {what}: {ack.reason_string!r}, not {reason_string.pattern}")
        else:
            eq(ack.reason_string, reason_string, f"reason string of the {what}")
    else:
        eq(len(ack.body), 2, f"length of a v3 {what}")
