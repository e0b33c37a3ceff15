#!/usr/bin/env python3
"""Cuts the power at random moments while files are uploaded, and starts again.

The data directory is on a file system of its own in a loop device. FS_IOC_SHUTDOWN without a flush of
its log stops that at once: what had not reached the device is gone, in the journal and in the files.
Then the daemon is killed and the file system mounted anew, on the same boot.

At `power` no acknowledged byte may be missing afterwards. At `crash` they may; but what `status` says is
there must be: only the rest is sent again, and the digests of the exported files tell. At both, what
was exported stays, once.

By hand, as root: tests/fault/powercut.py --rounds 100 [--level crash] [--fs xfs] [--seed N] [--build build]
"""

import argparse
import array
import fcntl
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import kill9  # noqa: E402
from harness import Context, Skip, until, yes  # noqa: E402

FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
IMAGE_BYTES = 512 << 20


class Disk:
    """A file system in a file."""

    def __init__(self, context, kind="ext4"):
        self.context, self.place, self.image = context, context.dir / "disk", context.dir / "image"
        if os.geteuid() != 0:
            raise Skip("mounting a file system needs root")
        if not shutil.which(f"mkfs.{kind}"):
            raise Skip(f"there is no mkfs.{kind}")
        self.place.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_BYTES)
        force = "-F" if kind == "ext4" else "-f"
        if context.run(f"mkfs.{kind}", "-q", force, self.image).returncode:
            raise Skip(f"mkfs.{kind} does not work here")
        self.mount()
        context.at_end(lambda: context.run("umount", "-l", self.place))

    def mount(self):
        if self.context.run("mount", "-o", "loop", self.image, self.place).returncode:
            raise Skip("mounting a loop device is not permitted here")

    def cut(self):
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, array.array("I", [NO_LOG_FLUSH]))
        finally:
            os.close(fd)

    def mount_again(self):
        # The kernel lets go of a killed daemon's files when its last operations have ended.
        until(lambda: self.context.run("umount", self.place).returncode == 0, "the file system can be unmounted",
              20 * self.context.slow, 0.02)
        self.mount()


class Machine:
    """Counts its lives; `is_cut` while it has none."""

    def __init__(self):
        self.life, self.is_cut = 0, False


class Uploader(kill9.Uploader):
    """One that knows that a command may fail when the disk has gone."""

    def __init__(self, machine, is_power, *arguments):
        super().__init__(*arguments)
        self.machine, self.is_power, self.life = machine, is_power, 0

    def connect(self):
        super().connect()
        self.life = self.machine.life

    def go_on(self, file):
        life = self.life
        if not self.is_power and getattr(file, "life", life) != life:
            file.acked, file.is_inited = [], False
        file.life = life
        try:
            return super().go_on(file)
        except AssertionError:
            if not self.machine.is_cut and self.machine.life == life:
                raise
            self.client = None
            raise ConnectionError("the disk has gone") from None


def run(context, rounds, seed=1, level="power", kind="ext4", uploaders_count=4):
    """Raises on any violation; returns a line that says what was done."""
    rng, disk, machine = random.Random(seed), Disk(context, kind), Machine()
    daemon = context.daemon("io.journal_size=1MiB", "transfer.disk_free_min=0", f"durability={level}",
                            data=disk.place / "data")
    uploaders = [Uploader(machine, level == "power", daemon, f"p{i}", seed * 1000 + i, context.slow)
                 for i in range(uploaders_count)]
    for uploader in uploaders:
        uploader.start()
    for _ in range(rounds):
        time.sleep(rng.choice([0.01, 0.1, 0.3, 1]) * rng.random() * context.slow)
        machine.is_cut = True
        disk.cut()
        time.sleep(rng.choice([0, 0.005, 0.03]))
        daemon.kill()
        disk.mount_again()
        machine.life += 1
        machine.is_cut = False
        daemon.start()
        kill9.raise_errors(uploaders)
    kill9.finish(context, daemon, uploaders)
    lost = sum("did not survive" in line for line in daemon.log().splitlines())
    return (f"{level} on {kind}: {rounds} power cuts, {sum(len(u.files) for u in uploaders)} files, "
            f"{sum(u.segments_sent for u in uploaders)} segments, {lost} times content of a transfer was missing")


def main():
    parser = argparse.ArgumentParser(description="power cuts in a loop under load")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--build", default="build")
    parser.add_argument("--level", choices=["crash", "power"], default="power")
    parser.add_argument("--fs", choices=["ext4", "xfs"], default="ext4")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-powercut-") as directory:
        context = Context(Path(options.build).resolve(), directory)
        passed = False
        try:
            print(run(context, options.rounds, options.seed, options.level, options.fs))
            passed = True
        finally:
            if not passed:
                print(context.log_tails())
            context.finish(passed)
            yes(not os.path.ismount(Path(directory) / "disk"), "the disk is unmounted")


if __name__ == "__main__":
    main()
