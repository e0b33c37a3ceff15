#!/usr/bin/env python3
"""Runs the end-to-end tests: every test_* function of tests/e2e/test_*.py.

Each test is a process of its own with its own temporary directory, a few at a time (many of them
wait for timers), and has a time limit. A test that fails shows its traceback and the end of its
daemon's log. The last line is "N passed, N failed, N skipped"; the exit status is 1 when any failed or none ran.
"""

import argparse
import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE / "e2e"), str(HERE / "fault")]

from harness import Context, Skip, case_name  # noqa: E402

PASS, FAIL, SKIP = 0, 1, 77
SECONDS = 60


class Test:
    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments
        self.limit = getattr(function, "limit", SECONDS)
        self.name = f"{function.__module__}.{function.__name__}"
        if arguments:
            self.name += f"[{case_name(arguments)}]"
        self.pid = self.dir = self.began = None

    def start(self, build, slow):
        self.dir = Path(tempfile.mkdtemp(prefix="sluice-e2e-"))
        self.began = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.child(build, slow)

    def child(self, build, slow):
        """Never returns. Output goes to a file that the parent shows when the test fails."""
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        out = os.open(self.dir / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        context = Context(build, self.dir, self.limit * slow)
        signal.signal(signal.SIGALRM, over_limit)
        signal.alarm(self.limit * slow)
        status = self.run(context)
        signal.alarm(0)
        try:
            context.finish(status == PASS)
        except Exception:
            traceback.print_exc()
            status = FAIL
        if status == FAIL:
            print(context.log_tails())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def run(self, context):
        try:
            self.function(context, **self.arguments)
            return PASS
        except Skip as reason:
            (self.dir / "skipped").write_text(str(reason))
            return SKIP
        except BaseException:
            traceback.print_exc()
            return FAIL

    def output(self):
        path = self.dir / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    def skip_reason(self):
        path = self.dir / "skipped"
        return path.read_text() if path.exists() else "no reason"


def over_limit(_signal, _frame):
    raise AssertionError("the test is over its time limit")


def end_group(pid):
    """Ends a test's process and all that it started: they are one session."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def discover(pattern):
    tests = []
    for path in sorted((HERE / "e2e").glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in list(vars(module).items()):
            if name.startswith("test_") and callable(function):
                for arguments in getattr(function, "cases", [{}]):
                    test = Test(function, arguments)
                    if re.search(pattern, test.name):
                        tests.append(test)
    # The longest first, so that the end is not spent waiting for one.
    return sorted(tests, key=lambda test: -test.limit)


class Runner:
    def __init__(self, options):
        self.options, self.running = options, {}
        self.slow = Context(options.build, "/").slow
        self.counts = {PASS: 0, FAIL: 0, SKIP: 0}
        self.failed, self.times = [], []

    def run(self, tests):
        waiting = tests[::-1]
        while waiting or self.running:
            while waiting and len(self.running) < self.options.jobs:
                test = waiting.pop()
                test.start(self.options.build, self.slow)
                self.running[test.pid] = test
            self.reap()

    def reap(self):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            for test in self.running.values():
                # The test's own alarm comes first and leaves a traceback.
                if time.monotonic() - test.began > (test.limit + 30) * self.slow:
                    os.kill(test.pid, signal.SIGKILL)
            time.sleep(0.01)
        elif pid in self.running:
            self.finish(self.running.pop(pid), os.waitstatus_to_exitcode(status))

    def finish(self, test, status):
        end_group(test.pid)
        seconds = time.monotonic() - test.began
        status = status if status in self.counts else FAIL
        self.counts[status] += 1
        self.times.append((seconds, test.name))
        note = ""
        if status == SKIP:
            note = f": {test.skip_reason()}"
        if status != PASS or self.options.verbose:
            word = {PASS: "pass", FAIL: "FAIL", SKIP: "skip"}[status]
            print(f"{word} {test.name} ({seconds:.1f} s){note}", flush=True)
        if status == FAIL:
            self.failed.append(test.name)
            self.show_failure(test)
        if self.options.keep and status == FAIL:
            print(f"kept: {test.dir}")
        else:
            shutil.rmtree(test.dir, ignore_errors=True)

    def show_failure(self, test):
        text = test.output() or "no output: it was killed, or ended by itself"
        print("    " + text[-12000:].rstrip().replace("\n", "\n    "), flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="Runs the end-to-end tests.")
    parser.add_argument("--build", default="build", help="directory with sluiced and sluice")
    parser.add_argument("-k", metavar="PATTERN", default="", help="only tests whose name matches")
    parser.add_argument("-j", "--jobs", type=int, default=3, help="tests at once (3)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show passed tests, and times")
    parser.add_argument("--keep", action="store_true", help="keep the directories of failed tests")
    parser.add_argument("--list", action="store_true", help="only list the tests")
    return parser.parse_args()


def main():
    options = arguments()
    options.build = Path(options.build).resolve()
    tests = discover(options.k)
    if options.list:
        print("\n".join(sorted(test.name for test in tests)))
        return 0
    if not (options.build / "sluiced").exists():
        sys.exit(f"{options.build}/sluiced is not built; run make first.")
    runner = Runner(options)
    # A runner that is told to end takes its tests and their daemons with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        runner.run(tests)
    finally:
        for test in runner.running.values():
            end_group(test.pid)
            shutil.rmtree(test.dir, ignore_errors=True)
    if options.verbose:
        for seconds, name in sorted(runner.times, reverse=True)[:10]:
            print(f"{seconds:6.1f} s  {name}")
    for name in runner.failed:
        print(f"failed: {name}")
    passed, failed, skipped = (runner.counts[k] for k in (PASS, FAIL, SKIP))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed and not skipped else 0


if __name__ == "__main__":
    sys.exit(main())
