#!/usr/bin/env python3
"""A small real file system that runs full, runs out of inodes, or becomes read-only, under uploads.

For each case a table says what the clients were told, what was kept and how it went on. Required is: what was
acknowledged stays, everybody else is served all the time, and when the cause is gone the uploads end well,
without a restart where one is not said to be needed.

By hand, as root: tests/fault/disk.py [--build build] [full] [inodes] [readonly]
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import Context, Skip, Uploader, eq, sha256, some_bytes, until, yes  # noqa: E402
from rawmqtt import Closed, Timeout  # noqa: E402

MIB = 1 << 20
PIECE = 100_000
SKIPPED = 77


class SmallDisk:
    """An ext4 of its own in a file."""

    def __init__(self, context, mebibytes, *mkfs):
        self.context, self.place, self.image = context, context.dir / "small", context.dir / "image"
        if os.geteuid() != 0:
            raise Skip("mounting a file system needs root")
        if not shutil.which("mkfs.ext4"):
            raise Skip("there is no mkfs.ext4")
        self.place.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(mebibytes * MIB)
        eq(context.run("mkfs.ext4", "-q", "-F", "-m", "0", *mkfs, self.image).returncode, 0, "mkfs.ext4")
        self.mount()
        context.at_end(lambda: context.run("umount", "-l", self.place))

    def mount(self):
        if self.context.run("mount", "-o", "loop,errors=remount-ro", self.image, self.place).returncode:
            raise Skip("mounting a loop device is not permitted here")

    def unmount(self):
        until(lambda: self.context.run("umount", self.place).returncode == 0, "the file system can be unmounted",
              20 * self.context.slow, 0.02)

    def device(self):
        return next(line.split()[0] for line in Path("/proc/self/mounts").read_text().splitlines()
                    if line.split()[1] == str(self.place))


class Case:
    """A daemon on a small disk, two uploads in progress, a bystander; and the lines of a table."""

    def __init__(self, context, name, mebibytes, *mkfs):
        self.t, self.name, self.lines = context, name, []
        self.disk = SmallDisk(context, mebibytes, *mkfs)
        self.daemon = context.daemon("transfer.disk_free_min=0", "io.journal_size=1MiB", "reactors=1",
                                     "transfer.preallocate=sparse", data=self.disk.place / "data")
        self.data = some_bytes(4 * MIB)
        self.acked = Counter()
        self.connect()
        for file_id in ("one", "two"):
            self.up.init(file_id)
            self.send(file_id, 0, MIB)

    def connect(self):
        self.up = Uploader(self.t.client("small"))
        self.bystander = self.t.client("bystander")
        self.bystander.subscribe("news/#")

    def line(self, what, told):
        self.lines.append((what, told))

    def ask(self, topic, payload=b""):
        """The outcome of a command, in words; (code, reason) when it was refused."""
        ack = self.up.client.publish(topic, payload)
        body = self.up.response()
        eq(body["reason_code"], ack.reason, f"response to {topic}")
        return ack.reason, body["reason_description"]

    def send(self, file_id, start, end):
        """Segments; what is acknowledged is remembered. The outcomes, counted."""
        told = Counter()
        for at in range(start, end, PIECE):
            piece = self.data[at:min(at + PIECE, end)]
            code, reason = self.ask(f"$file/{file_id}/{at}", piece)
            told[f"0x{code:02x} {reason}"] += 1
            if code == 0:
                self.acked[file_id, at, at + len(piece)] = 1
        return ", ".join(f"{count} × {text}" for text, count in told.items())

    def others_are_served(self):
        self.bystander.ping()
        self.bystander.publish("news/today", b"still here")
        eq(self.bystander.message().payload, b"still here", "an ordinary message")

    def check_kept(self):
        for file_id in ("one", "two"):
            missing = self.up.status(file_id)["missing"]
            for name, a, b in self.acked:
                yes(name != file_id or all(b <= c or d <= a for c, d in missing),
                    f"{file_id}: [{a},{b}) was acknowledged; missing are {missing}")

    def export(self, file_id):
        size = len(self.data)
        code, reason = self.ask(f"$file/{file_id}/fin/{size}/{sha256(self.data)}")
        return f"0x{code:02x} {reason}"

    def finish(self, how):
        """The cause is gone: both uploads end well."""
        begin = time.monotonic()
        for file_id in ("one", "two"):
            until(lambda file_id=file_id: self.send(file_id, 0, len(self.data)).endswith("× 0x00 success")
                  and self.export(file_id) == "0x00 success", f"{file_id} is exported", 30 * self.t.slow, 0.1)
            yes(self.daemon.export("small", file_id, "a.bin") == self.data, f"the export of {file_id} differs")
            eq(len(self.daemon.generations("small", file_id)), 1, f"exports of {file_id}")
        until(lambda: not self.daemon.staged_files(), "staging is empty")
        self.line(how, f"both exported, equal, after {time.monotonic() - begin:.1f} s")
        self.daemon.stop()

    def table(self):
        width = max(len(what) for what, _ in self.lines)
        return "\n".join(f"{self.name:9} {what:{width}}  {told}" for what, told in self.lines)


def take_all(path):
    with open(path, "wb", buffering=0) as out:
        for step in (65536, 4096, 1):
            try:
                while True:
                    out.write(b"x" * step)
            except OSError:
                pass


def start_without_room(case):
    ended = case.t.run(*case.daemon.command())
    said = re.search(r"No space left on device: free space there", ended.stderr)
    yes(ended.returncode == 1 and said, f"status {ended.returncode}: {ended.stderr}")
    return f"ends with {ended.returncode}, \"{said[0]}\""


def full(context):
    """No space, taken by somebody else."""
    case = Case(context, "full", 48)
    case.daemon.stats()
    take_all(case.disk.place / "filler")
    case.line("segments that need space", case.send("one", MIB, 2 * MIB))
    case.line("the same segments as before", case.send("one", 0, MIB))
    case.line("fin of what is not whole", case.export("one"))
    case.line("init of another, of 1 MiB", "0x{:02x} {}".format(
        *case.ask("$file/three/init", b'{"name":"a","size":1048576}')))
    case.line("abort of a third", "0x{:02x} {}".format(*case.ask("$file/three/abort")))
    case.others_are_served()
    case.check_kept()
    # A start writes a new journal before the old one goes; without room for it, it says so and leaves all as it is.
    case.daemon.kill()
    case.line("kill -9, start while it is full", start_without_room(case))
    (case.disk.place / "filler").unlink()
    case.daemon.start()
    case.connect()
    case.check_kept()
    case.line("start with space", "all that was acknowledged is there")
    case.finish("space is back")
    return case.table()


def inodes(context):
    """No inodes: segments still have room, but nothing new can be made."""
    case = Case(context, "inodes", 64, "-N", "128")
    case.line("the rest of one", case.send("one", MIB, len(case.data)))
    fillers = case.disk.place / "fillers"
    fillers.mkdir()
    for at in range(200):
        try:
            (fillers / str(at)).touch()
        except OSError:
            break
    yes(os.statvfs(case.disk.place).f_favail == 0, "no inodes are left")
    case.line("segments of two", case.send("two", MIB, 2 * MIB))
    case.line("fin of one", case.export("one"))
    case.line("init of another", "0x{:02x} {}".format(*case.ask("$file/three/init", b'{"name":"a"}')))
    case.line("segment of another", "0x{:02x} {}".format(*case.ask("$file/three/0", b"abc")))
    case.others_are_served()
    case.check_kept()
    shutil.rmtree(fillers)
    case.ask("$file/three/abort")
    case.finish("inodes are back")
    return case.table()


def readonly(context):
    """An error makes ext4 read-only; there is no way back but mounting it anew."""
    case = Case(context, "readonly", 64)
    refused = context.run("mount", "-o", "remount,ro", case.disk.place)
    case.line("mount -o remount,ro, by hand", "the kernel: " + (
        "mounted" if refused.returncode == 0 else re.sub(r".*: ", "", refused.stderr.strip().splitlines()[0])))
    yes(refused.returncode != 0, "a file system with a journal that is being written can't be remounted")
    case.line("segments after that", case.send("one", MIB, 2 * MIB))
    trigger = Path("/sys/fs/ext4", Path(case.disk.device()).name, "trigger_fs_error")
    if not trigger.exists():
        raise Skip(f"there is no {trigger}")
    trigger.write_text("sluice's test")
    case.line("segments, ext4 has gone read-only", case.send("two", MIB, 2 * MIB))
    case.line("fin", case.export("one"))
    case.others_are_served()
    case.line("everybody else", "is served")
    said = case.daemon.log().count("Read-only file system")
    yes(said, "the operator is told")
    case.line("the log", f"says so {said} times")
    case.daemon.kill()
    case.disk.unmount()
    context.run("e2fsck", "-fy", case.disk.image)
    case.disk.mount()
    case.daemon.start()
    case.connect()
    for file_id in ("one", "two"):
        status = case.up.status(file_id)
        yes(status["state"] in ("open", "none"), f"{file_id}: {status['state']}")
        if status["state"] == "none":
            case.up.init(file_id)
        case.line(f"mounted anew, status of {file_id}", f"{status['state']}, {status['received']} bytes of "
                  f"{sum(b - a for name, a, b in case.acked if name == file_id)} acknowledged are there")
    case.finish("sent again")
    return case.table()


CASES = {"full": full, "inodes": inodes, "readonly": readonly}


def main():
    parser = argparse.ArgumentParser(description="a small file system in trouble")
    parser.add_argument("--build", default="build")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    options = parser.parse_args()
    skipped = 0
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory(prefix="sluice-disk-") as directory:
            context = Context(Path(options.build).resolve(), directory)
            passed = False
            try:
                print(CASES[name](context), flush=True)
                passed = True
            except Skip as reason:
                print(f"{name}: skipped: {reason}")
                skipped += 1
            finally:
                if not passed:
                    print(context.log_tails())
                context.finish(passed)
    if skipped == len(options.cases or CASES):
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
