#!/usr/bin/env python3
"""Kills the daemon with SIGKILL at random moments while files are uploaded, and restarts it.

Each uploader keeps its own list of the bytes whose segments were acknowledged. After every restart it
asks `status`: no acknowledged byte may be missing. It then sends only what is missing, so nothing
acknowledged is ever sent again. At the end every file is exported whole, and exactly once.

By hand: tests/fault/kill9.py --rounds 200 [--seed N] [--build build]
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import Context, eq, sha256, until, yes  # noqa: E402
from rawmqtt import PUBLISH, Client, Closed, Timeout  # noqa: E402

WINDOW = 16


class File:
    """One file on its way, and what the daemon has acknowledged of it."""

    def __init__(self, file_id, rng):
        self.id = file_id
        self.data = rng.randbytes(rng.choice([0, 1, 700, 5000, 60_000, 400_000, 2_000_000]))
        self.digest = sha256(self.data)
        self.is_inited = False
        self.acked = []  # (from, to)

    def check_kept(self, status):
        """Nothing acknowledged may be missing."""
        if self.acked or self.is_inited:
            yes(status["state"] != "none", f"{self.id} is forgotten")
        for a, b in status["missing"]:
            for c, d in self.acked:
                yes(b <= c or d <= a, f"{self.id}: [{c},{d}) was acknowledged, [{a},{b}) is missing")
        if self.is_inited:
            eq(status["size"], len(self.data), f"size of {self.id}")


class Uploader(threading.Thread):
    """A client that uploads one file after the other until it is told that this was the last."""

    def __init__(self, daemon, name, seed, slow):
        super().__init__(name=name, daemon=True)
        self.daemon_under_test, self.rng, self.slow = daemon, random.Random(seed), slow
        self.enough = threading.Event()
        self.files, self.error, self.segments_sent, self.reconnects = [], None, 0, 0
        self.client = None

    def run(self):
        try:
            while not self.enough.is_set() or not self.files:
                self.files.append(File(f"f{len(self.files)}", self.rng))
                self.upload(self.files[-1])
        except Exception:
            self.error = traceback.format_exc()

    def upload(self, file):
        while True:
            try:
                if self.client is None:
                    self.connect()
                if self.go_on(file):
                    return
            except (Closed, ConnectionError, OSError):
                self.client = None

    def connect(self):
        deadline = time.monotonic() + 30 * self.slow
        while True:
            port = self.daemon_under_test.port
            try:
                client = port and Client(port, self.name, timeout=20 * self.slow)
                # While it was dead, another daemon on this machine may have been given its port.
                if client and self.daemon_under_test.port == port:
                    self.client = client
                    break
            except (Closed, ConnectionError, OSError):
                pass
            if time.monotonic() > deadline:
                raise Timeout("the daemon did not come back")
            time.sleep(0.01)
        self.reconnects += 1
        eq(self.client.subscribe(f"$file-response/{self.name}").codes, [1], "SUBACK")

    def status(self, file):
        topic = f"$file/{file.id}/status"
        eq(self.client.publish(topic).reason, 0, "PUBACK of status")
        while True:
            body = json.loads(self.client.wait(PUBLISH).payload)
            if body["topic"] == topic:
                return body["status"]

    def go_on(self, file):
        """Sends what is missing, then fin. True when the file is exported."""
        status = self.status(file)
        file.check_kept(status)
        if status["state"] == "exported":
            return True
        if not file.is_inited:
            meta = f'{{"name":"a.bin","size":{len(file.data)},"checksum":"{file.digest}"}}'
            eq(self.client.publish(f"$file/{file.id}/init", meta).reason, 0, "PUBACK of init")
            file.is_inited = True
            status = self.status(file)
        while status["missing"]:
            self.send_missing(file, status["missing"])
            status = self.status(file)
            file.check_kept(status)
        eq(self.client.publish(f"$file/{file.id}/fin/{len(file.data)}").reason, 0, "PUBACK of fin")
        return True

    def send_missing(self, file, missing):
        pieces = []
        for a, b in missing:
            while a < b:
                end = min(b, a + self.rng.choice([100, 1000, 3000, 40_000, 200_000]))
                pieces.append((a, end))
                a = end
        self.rng.shuffle(pieces)
        pieces = pieces[:200]
        messages = []
        for a, b in pieces:
            piece = file.data[a:b]
            checksum = "/" + sha256(piece) if self.rng.random() < 0.3 else ""
            messages.append((f"$file/{file.id}/{a}{checksum}", piece))
        self.segments_sent += len(messages)
        acks = self.client.publish_each(messages, WINDOW)
        for (a, b), ack in zip(pieces, acks):
            eq(ack.reason, 0, f"PUBACK of {file.id} at {a}")
            file.acked.append((a, b))


def check_exports(daemon, uploader):
    for file in uploader.files:
        places = daemon.generations(uploader.name, file.id)
        eq([p.name for p in places], [file.id], f"exports of {uploader.name} {file.id}")
        found = sorted(p.name for p in places[0].iterdir())
        eq(found, [".manifest.json", "a.bin"], "files of the export")
        eq(sha256((places[0] / "a.bin").read_bytes()), file.digest, f"digest of {file.id}")


def raise_errors(uploaders):
    for uploader in uploaders:
        if uploader.error:
            raise AssertionError(uploader.error)


def finish(context, daemon, uploaders):
    """Lets the uploaders come to their end, and looks at what they have left."""
    for uploader in uploaders:
        uploader.enough.set()
    for uploader in uploaders:
        uploader.join(60 * context.slow)
        yes(not uploader.is_alive(), f"{uploader.name} did not finish")
        raise_errors([uploader])
        check_exports(daemon, uploader)
    until(lambda: not daemon.staged_files(), "staging is empty at the end")


def run(context, rounds, seed=1, uploaders_count=4, *options):
    """Raises on any violation; returns a line that says what was done."""
    rng = random.Random(seed)
    daemon = context.daemon("io.journal_size=1MiB", *options)
    uploaders = [Uploader(daemon, f"k{i}", seed * 1000 + i, context.slow)
                 for i in range(uploaders_count)]
    for uploader in uploaders:
        uploader.start()
    for _ in range(rounds):
        time.sleep(rng.choice([0.002, 0.01, 0.03, 0.1, 0.3]) * rng.random() * context.slow)
        daemon.restart(kill=True)
        raise_errors(uploaders)
    finish(context, daemon, uploaders)
    return (f"{rounds} kills, {sum(len(u.files) for u in uploaders)} files, "
            f"{sum(u.segments_sent for u in uploaders)} segments, "
            f"{sum(u.reconnects for u in uploaders)} connections: nothing lost, nothing doubled")


def command_line(description, name, rounds, run_rounds):
    """Options, a directory, and what is left to see when it fails. run_rounds: of a context, the
    number of rounds, a seed and options of the daemon; returns what to print."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--build", default="build")
    parser.add_argument("-o", dest="options", action="append", default=[])
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"sluice-{name}-") as directory:
        context = Context(Path(options.build).resolve(), directory)
        passed = False
        try:
            print(run_rounds(context, options.rounds, options.seed, *options.options))
            passed = True
        finally:
            if not passed:
                print(context.log_tails())
            context.finish(passed)


if __name__ == "__main__":
    command_line("kill -9 in a loop under load", "kill9", 20,
                 lambda context, rounds, seed, *options: run(context, rounds, seed, 4, *options))
