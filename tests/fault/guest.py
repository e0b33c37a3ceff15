#!/usr/bin/env python3
"""Crashes of the whole machine while files are uploaded: the daemon runs in a virtual one.

The guest is Debian's kernel, busybox and the daemon; its disk loses at each crash whatever the kernel had
not written, and part of what it had not flushed (volatile_disk.py). The uploaders are here, on the host: they
know what was acknowledged. After every boot they ask `status`, send only what it says is missing, and finish.

At `power` no acknowledged byte may be missing afterwards. At `crash` they may; but what `status` says is
there must be: the digest of each file tells, which went along with `init`. At both, what was exported stays.
In the end the disk is looked at: each file is exported whole, and once; nothing else is there.

By hand, as root: tests/fault/guest.py --rounds 100 [--level crash] [--seed N] [--build build]
                  tests/fault/guest.py --case fsync|clock [--level crash]
It needs: qemu-system-x86 busybox-static linux-image-cloud-amd64 (any Debian kernel will do).
"""

import argparse
import contextlib
import errno
import json
import lzma
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import kill9  # noqa: E402
import powercut  # noqa: E402
from harness import Context, Daemon, Skip, eq, sha256, until, yes  # noqa: E402
from rawmqtt import PUBLISH, Client, Timeout  # noqa: E402
from volatile_disk import WRITE, VolatileDisk  # noqa: E402

DRIVERS = ("virtio_pci", "virtio_blk", "virtio_net", "ext4", "crc32c_generic")
IMAGE_BYTES = 1 << 30
BUSYBOX = "/bin/busybox"
SKIPPED = 77
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp /data
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for m in {modules}; do insmod /modules/$m.ko; done
stty -echo
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
cd /proc/sys/vm
echo {writeback} >dirty_writeback_centisecs
echo {writeback} >dirty_expire_centisecs
cd /
mount -t ext4 -o commit=1 /dev/vda /data || poweroff -f
echo mounted
{daemon} &
daemon=$!
while read -r line; do eval "$line"; echo "ended: $?"; done
"""


# --- the guest's first file system ---

def newest_kernel():
    found = sorted(Path("/boot").glob("vmlinuz-*"), key=lambda p: p.stat().st_mtime)
    found = [p for p in found if Path("/usr/lib/modules", p.name[8:], "modules.dep").exists()]
    return found[-1] if found else None


def modules_of(release):
    """The files of DRIVERS and what they need, in the order of loading. Those built in are left out."""
    root = Path("/usr/lib/modules", release)
    needs = {}
    for line in (root / "modules.dep").read_text().splitlines():
        path, rest = line.split(":")
        needs[path] = rest.split()
    by_name = {Path(path).name.split(".")[0].replace("-", "_"): path for path in needs}
    order = []

    def add(path):
        for other in needs[path]:
            add(other)
        if path not in order:
            order.append(path)

    for name in DRIVERS:
        if name in by_name:
            add(by_name[name])
    return [root / path for path in order]


def libraries_of(program):
    lines = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", lines)


class Archive:
    """A cpio archive of the kind that the kernel unpacks at boot."""

    def __init__(self):
        self.data, self.names = bytearray(), set()

    def add(self, name, mode, content=b""):
        if name in self.names:
            return
        parent = str(Path(name).parent)
        if parent != "." and name != "TRAILER!!!":
            self.add(parent, 0o40755)
        self.names.add(name)
        encoded = name.encode() + b"\0"
        fields = [len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        for part in (b"070701" + b"".join(b"%08X" % f for f in fields) + encoded, content):
            self.data += part
            self.data += bytes(-len(self.data) % 4)

    def add_file(self, path, name=None):
        self.add(name or str(path).lstrip("/"), 0o100755, Path(path).read_bytes())


def build_archive(sluiced, kernel, arguments):
    archive = Archive()
    modules = modules_of(kernel.name[8:])
    # Written back soon, so that a crash also meets a disk that has much which is not flushed.
    init = INIT.format(modules=" ".join(m.name.split(".")[0] for m in modules), daemon=f"sluiced {arguments}", writeback=20)
    archive.add("dev", 0o40755)
    archive.add("init", 0o100755, init.encode())
    archive.add_file(BUSYBOX, "bin/busybox")
    archive.add_file(sluiced, "bin/sluiced")
    for path in libraries_of(sluiced) + libraries_of(BUSYBOX):
        archive.add_file(path)
    for path in modules:
        content = path.read_bytes()
        archive.add(f"modules/{path.name.split('.')[0]}.ko", 0o100644,
                    lzma.decompress(content) if path.suffix == ".xz" else content)
    archive.add("TRAILER!!!", 0)
    return bytes(archive.data)


# --- the machine ---

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def must_have(context):
    """The kernel's path; skips where a guest can't be run."""
    if os.geteuid() != 0:
        raise Skip("mounting a file system needs root")
    for tool in ("qemu-system-x86_64", BUSYBOX, "mkfs.ext4", "ldd"):
        if not shutil.which(tool):
            raise Skip(f"there is no {tool}")
    kernel = newest_kernel()
    if not kernel:
        raise Skip("there is no kernel with its modules in /boot (linux-image-cloud-amd64)")
    context.tool("sluiced")
    return kernel


class Guest:
    """The virtual machine and its disk. `life` counts its boots, `is_cut` while it has none."""

    def __init__(self, context, *options):
        self.context, self.kernel = context, must_have(context)
        self.image, self.archive = context.dir / "image", context.dir / "initramfs"
        self.console_path = context.dir / "console.log"
        self.arguments = " ".join(["--data /data/sluice --listen 0.0.0.0:1883", *(f"-o {o}" for o in options)])
        self.archive.write_bytes(build_archive(context.tool("sluiced"), self.kernel, self.arguments))
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_BYTES)
        eq(context.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0",
                       self.image).returncode, 0, "mkfs.ext4")
        self.disk = VolatileDisk(self.image, context.dir / "disk.socket")
        self.port, self.process, self.started_at = free_port(), None, 0
        self.life, self.is_cut, self.ready = 0, True, threading.Event()
        context.at_end(self.finish)

    def finish(self):
        self.power_off()
        self.disk.close()

    def power_on(self, wait=True):
        self.started_at = self.console_path.stat().st_size if self.console_path.exists() else 0
        with open(self.console_path, "ab") as console:
            # Without KVM: it is missing, or can't run Debian's kernel, on most machines that are virtual themselves.
            self.process = subprocess.Popen([
                "qemu-system-x86_64", "-M", "pc", "-accel", "tcg,thread=single", "-cpu", "max", "-m", "512",
                "-smp", "1", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
                "-kernel", self.kernel, "-initrd", self.archive,
                "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check",
                "-drive", f"driver=nbd,server.type=unix,server.path={self.disk.path},id=d,if=none,cache=writeback,"
                          "werror=report,rerror=report",
                "-device", "virtio-blk-pci,drive=d",
                "-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:1883",
                "-device", "virtio-net-pci,netdev=n,romfile="],
                stdin=subprocess.PIPE, stdout=console, stderr=console)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self):
        self.expect("info listening", 120)
        self.life += 1
        self.is_cut = False
        self.ready.set()

    def console(self):
        """What was written since the machine was started."""
        with open(self.console_path, "rb") as console:
            console.seek(self.started_at)
            return console.read().decode(errors="replace")

    def expect(self, pattern, seconds=60):
        def look():
            found = re.search(pattern, self.console())
            yes(found or self.process.poll() is None, f"the machine has stopped:\n{self.console()[-3000:]}")
            return found

        return until(look, f"{pattern!r} on the console", seconds * self.context.slow, 0.02)

    def command(self, line, seconds=60):
        """Runs a line of shell in the guest; returns its status."""
        before = len(re.findall(r"ended: \d+", self.console()))
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

        def ends():
            found = re.findall(r"ended: (\d+)", self.console())
            return found if len(found) > before else None

        return int(until(ends, f"{line} ends in the guest", seconds, 0.02)[-1])

    def power_off(self):
        """At once. What the disk has flushed is all that is sure."""
        self.is_cut = True
        self.ready.clear()
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process = None

    def shut_down(self, sigterm=True):
        """SIGTERM, unmounting, off; the daemon must end well and soon. Returns the seconds it took."""
        began = time.monotonic()
        eq(self.command("kill -TERM $daemon; wait $daemon" if sigterm else "true"), 0,
           "exit status of the daemon")
        took = time.monotonic() - began
        eq(self.command("umount /data && sync"), 0, "umount")
        self.power_off()
        return took

    @contextlib.contextmanager
    def mounted(self):
        """The data directory, as a daemon that does not run."""
        place = self.context.dir / "mounted"
        place.mkdir(exist_ok=True)
        if self.context.run("mount", "-o", "loop,ro", self.image, place).returncode:
            raise Skip("mounting a loop device is not permitted here")
        try:
            yield Daemon(self.context, place / "sluice")
        finally:
            self.context.run("umount", place)


class Uploader(powercut.Uploader):
    """One that waits for the machine, and looks again at what it had finished."""

    def connect(self):
        while True:
            yes(self.machine.ready.wait(400 * self.slow), "the machine came up")
            try:
                super().connect()
                break
            except Timeout:
                if self.machine.ready.is_set():
                    raise
        for file in self.rng.sample(self.files[:-1], min(3, len(self.files) - 1)):
            eq(self.status(file)["state"], "exported", f"state of {file.id}, which was acknowledged")


def check_disk(guest, uploaders):
    with guest.mounted() as daemon:
        for uploader in uploaders:
            kill9.check_exports(daemon, uploader)
        eq(len(daemon.exported_files()), sum(len(u.files) for u in uploaders), "number of files exported")
        eq([p.name for p in daemon.staged_files()], [], "what is left in staging")


def finish(guest, uploaders):
    for uploader in uploaders:
        uploader.enough.set()
    for uploader in uploaders:
        uploader.join(300 * guest.context.slow)
        yes(not uploader.is_alive(), f"{uploader.name} did not finish")
    kill9.raise_errors(uploaders)
    took = guest.shut_down()
    check_disk(guest, uploaders)
    return took


def start_uploaders(guest, level, seed, count=3, slow=4):
    uploaders = [Uploader(guest, level == "power", guest, f"g{i}", seed * 1000 + i, slow)
                 for i in range(count)]
    for uploader in uploaders:
        uploader.start()
    return uploaders


def options_of(level):
    # The journal rotates often, so that its files are made of older ones, whose records lie behind their end.
    return ["io.journal_size=64KiB", "transfer.disk_free_min=0", f"durability={level}"]


def under_load(guest, uploaders, rng):
    """Waits for a random moment: after some segments, however slow the machine is."""
    enough = sum(u.segments_sent for u in uploaders) + rng.choice([0, 5, 50, 150])
    deadline = time.monotonic() + 6 * guest.context.slow
    while sum(u.segments_sent for u in uploaders) < enough and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(rng.choice([0.01, 0.1, 1]) * rng.random())


def run(context, rounds, seed=1, level="power"):
    """Raises on any violation; returns a line that says what was done."""
    rng, guest = random.Random(seed), Guest(context, *options_of(level))
    uploaders = start_uploaders(guest, level, seed)
    in_recovery = lost_lines = 0
    for at in range(rounds):
        early = at > 0 and rng.random() < 0.1
        guest.power_on(wait=not early)
        if early:  # while it recovers
            guest.expect("mounted", 120)
            time.sleep(rng.random())
            in_recovery += 1
        else:
            under_load(guest, uploaders, rng)
        kill9.raise_errors(uploaders)
        lost_lines += guest.console().count("did not survive")
        guest.power_off()
        guest.disk.cut(rng)
    guest.power_on()
    took = finish(guest, uploaders)
    return (f"{level}: {rounds} crashes of the machine ({in_recovery} while it recovered), "
            f"{sum(len(u.files) for u in uploaders)} files, {sum(u.segments_sent for u in uploaders)} segments, "
            f"{sum(u.reconnects for u in uploaders)} connections; the disk lost {guest.disk.dropped} of "
            f"{guest.disk.writes} writes; {lost_lines} times content of a transfer was missing; "
            f"ended {took:.1f} s after SIGTERM: nothing wrong, nothing doubled")


# --- single cases ---

def commands(guest, file_id, timeout=60):
    """A connection, and a function that sends a command: its code and the status afterwards."""
    client = Client(guest.port, "case", timeout=timeout)
    client.subscribe("$file-response/case")

    def status():
        while True:
            client.publish(f"$file/{file_id}/status")
            while True:
                body = json.loads(client.wait(PUBLISH).payload)
                if "status" in body:
                    return body["status"]

    def send(command, payload=b""):
        return client.publish(f"$file/{file_id}/{command}", payload).reason

    return client, send, status


def failed_sync(context, level):
    """The disk refuses what is written to one file; the next sync succeeds over what was lost."""
    guest = Guest(context, *options_of(level))
    guest.power_on()
    mark = b"written to a bad block. "
    data = (mark * 20_000)[:400_000]
    bad = sha256(data)
    guest.disk.fault = lambda kind, _offset, payload: errno.EIO if kind == WRITE and mark in payload else 0
    client, send, status = commands(guest, "bad")
    eq(send("init", f'{{"name":"a.bin","checksum":"{bad}"}}'), 0, "init")
    told = [send(str(at), data[at:at + 100_000]) for at in range(0, 400_000, 100_000)]
    told.append(send("fin/400000"))
    found = status()
    eq(found["state"], "open", "state after the sync has failed")
    eq(found["received"], 0, "bytes that status still claims")
    yes(guest.disk.faults > 0, "the disk refused something")
    eq(told[-1] >= 0x80, True, "fin was refused")
    eq([code >= 0x80 for code in told[:-1]], [level == "power"] * 4, "which segments were refused")
    # A second sync of the same file would succeed: nothing may rely on it.
    guest.disk.fault = None
    again = [send(str(at), data[at:at + 100_000]) for at in range(0, 400_000, 100_000)]
    again.append(send("fin/400000"))
    eq(again, [0] * 5, "all again, on a disk that works")
    guest.power_off()
    guest.disk.cut(random.Random(1))
    guest.power_on()
    eq(commands(guest, "bad")[2]()["state"], "exported", "state after a power cut")
    guest.shut_down()
    with guest.mounted() as daemon:
        eq(sha256(daemon.export("case", "bad", "a.bin")), bad, "digest of the export")
    return (f"{level}: {guest.disk.faults} writes refused; told {', '.join(f'0x{c:02x}' for c in told)}; "
            "then all again, exported, whole after a power cut")


def clock_jumps(context, level):
    """The wall clock is set back ten years, and forward, in the middle of an upload."""
    guest = Guest(context, *options_of(level))
    guest.power_on()
    data = random.Random(3).randbytes(600_000)
    client, send, status = commands(guest, "jump")
    other = Client(guest.port, "keeps-alive", keep_alive=300, timeout=60)
    eq(send("init", f'{{"name":"a.bin","checksum":"{sha256(data)}","segments_ttl":86400}}'), 0, "init")
    for step, date in enumerate(["2016-01-01 00:00", "2036-01-01 00:00", "1999-12-31 23:59", "2026-06-01 00:00"]):
        eq(send(str(step * 100_000), data[step * 100_000:(step + 1) * 100_000]), 0, f"segment {step}")
        eq(guest.command(f'date -s "{date}"'), 0, "date -s")
        time.sleep(1.2)  # timers have been looked at
        eq(status()["received"], (step + 1) * 100_000, f"received, with the clock at {date}")
        other.ping()
    # A restart under another clock: open transfers are not taken for old ones.
    for date in ("2016-01-01 00:00", "2036-01-01 00:00"):
        eq(guest.command(f'date -s "{date}"; kill -KILL $daemon; wait $daemon; sluiced {guest.arguments} & daemon=$!'),
           0, "restart in the guest")
        boots = date.count("2036") + 2
        until(lambda boots=boots: guest.console().count("info listening") == boots, "it listens again", 60)
        client, send, status = commands(guest, "jump")
        eq(status()["received"], 400_000, f"received, after a restart at {date}")
    for at in (400_000, 500_000):
        eq(send(str(at), data[at:at + 100_000]), 0, "segment")
    eq(send("fin/600000"), 0, "fin")
    eq(guest.command('date -s "2001-01-01 00:00"'), 0, "date -s")
    eq(status()["state"], "exported", "state with the clock set back")
    guest.shut_down()
    with guest.mounted() as daemon:
        eq(daemon.export("case", "jump", "a.bin"), data, "the export")
    return f"{level}: five jumps and two restarts under another clock: nothing expired, nobody was put off"


CASES = {"fsync": failed_sync, "clock": clock_jumps}


def main():
    parser = argparse.ArgumentParser(description="crashes of a virtual machine under load")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--build", default="build")
    parser.add_argument("--level", choices=["crash", "power"], default="power")
    parser.add_argument("--case", choices=CASES)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-guest-") as directory:
        context = Context(Path(options.build).resolve(), directory)
        passed = False
        try:
            if options.case:
                print(f"{options.case}, {CASES[options.case](context, options.level)}")
            else:
                print(run(context, options.rounds, options.seed, options.level))
            passed = True
        except Skip as reason:
            print(f"skipped: {reason}")
            sys.exit(SKIPPED)
        finally:
            console = context.dir / "console.log"
            if not passed and console.exists():
                print(console.read_bytes()[-6000:].decode(errors="replace"))
            context.finish(passed)


if __name__ == "__main__":
    main()
