#!/usr/bin/env python3
"""Lets each allocation of the daemon's start fail, one after the other, alone or with all that follow.

It must not die of a signal: it ends with status 1 and a word about memory, or starts all the same and serves; and
the next start, with memory, finds everything.

By hand: tests/fault/alloc.py [--build build] [--step N]
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import LISTENING, Context, eq, sha256, some_bytes, yes  # noqa: E402


class Starts:
    """Starts a daemon again and again."""

    def __init__(self, context):
        self.context, self.library = context, context.dir / "alloc_nth.so"
        source = Path(__file__).with_name("alloc_nth.c")
        built = context.run("gcc", "-O1", "-shared", "-fPIC", "-o", self.library, source, "-ldl")
        eq(built.returncode, 0, f"gcc: {built.stderr}")
        self.daemon = context.daemon("io.journal_size=64KiB", "reactors=1")
        up = context.uploader("memory")
        up.upload("done", some_bytes(5000))
        up.init("open", size=5000)
        up.segment("open", 0, some_bytes(3000))
        up.client.close()
        self.daemon.stop()

    def one(self, nth, and_on=False):
        """(what happened, the status, the allocations there were)"""
        log_path, count_path = self.context.dir / "log", self.context.dir / "count"
        env = dict(os.environ, LD_PRELOAD=str(self.library), SLUICE_ALLOC_NTH=str(nth),
                   SLUICE_ALLOC_COUNT=str(count_path), **({"SLUICE_ALLOC_AND_ON": "1"} if and_on else {}))
        with open(log_path, "wb") as log:
            process = subprocess.Popen(self.daemon.command(), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20 * self.context.slow
        while process.poll() is None and not LISTENING.search(log_path.read_text(errors="replace")):
            yes(time.monotonic() < deadline, f"allocation {nth}: neither ended nor started")
            time.sleep(0.002)
        started = process.poll() is None
        if started:
            process.send_signal(signal.SIGTERM)
        status = process.wait(20 * self.context.slow)
        said = log_path.read_text(errors="replace").strip().splitlines()
        count = int(count_path.read_text()) if count_path.exists() and count_path.stat().st_size else 0
        return "started" if started else "refused", status, count, said[-1] if said else ""

    def check(self):
        self.daemon.start()
        up = self.context.uploader("memory")
        eq(up.status("done")["state"], "exported", "the file that was exported")
        eq(up.status("open")["received"], 3000, "the file that was being sent")
        up.client.close()
        self.daemon.stop()
        eq(sha256(self.daemon.export("memory", "done", "a.bin")), sha256(some_bytes(5000)), "the export")


def run(context, step=1):
    """Raises on any violation; returns a line that says what was done."""
    starts, outcomes, bad = Starts(context), Counter(), []
    _, _, count, _ = starts.one(0)
    yes(count > 20, "allocations are counted")
    for and_on in (False, True):
        for nth in range(1, count + 1, step):
            what, status, _, said = starts.one(nth, and_on)
            fine = status in (0, 1)  # 1: the stop met it, and ended at once
            if what == "refused":
                fine = status == 1 and said
            outcomes[what] += 1
            if not fine:
                bad.append(f"allocation {nth}{' and on' if and_on else ''}: {what}, status {status}, \"{said}\"")
        starts.check()
    yes(not bad, "\n".join([f"{len(bad)} bad ends:", *bad[:40]]))
    return (f"{count} allocations: {outcomes['refused']} starts refused with a reason, {outcomes['started']} "
            "started all the same; everything is there afterwards")


def main():
    parser = argparse.ArgumentParser(description="allocation failures at start")
    parser.add_argument("--build", default="build")
    parser.add_argument("--step", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-alloc-") as directory:
        context = Context(Path(options.build).resolve(), directory)
        passed = False
        try:
            print(run(context, options.step))
            passed = True
        finally:
            context.finish(passed)


if __name__ == "__main__":
    main()
