"""What every measurement stands on: a file system, a daemon, runs of sluice-bench, medians.

A run is worth something only beside another one: cases run the two sides by turns on one mount,
let write-back settle before each, and compare the two of one round.
"""

import contextlib
import fcntl
import json
import mmap
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

SETTLED_BYTES = 64 << 20
SETTLE_SECONDS_MAX = 4
BALLAST_LEAVES = 10 << 30
CALM_SHARE = 0.25  # of the processors may others use when a run begins
DESCRIPTORS = 1 << 18
MADV_POPULATE_WRITE = 23
WRITE_BPS = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")
LOCK = Path(tempfile.gettempdir()) / "sluice-bench.lock"


class Unavailable(Exception):
    """The case can't run here; the reason is shown."""


def median(values):
    return statistics.median(values)


def outliers(values):
    """Indices of values farther from the median than five times the median distance."""
    if len(values) < 5:
        return []
    middle = median(values)
    spread = median([abs(v - middle) for v in values])
    return [i for i, v in enumerate(values) if abs(v - middle) > 5 * spread > 0]


def raise_descriptors():
    """In a child before it becomes the program: as many descriptors as we may have."""
    for most in (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return
        except (ValueError, PermissionError):
            pass


def dirty_bytes():
    text = Path("/proc/meminfo").read_text()
    return sum(int(re.search(rf"^{k}:\s+(\d+) kB", text, re.M)[1]) * 1024
               for k in ("Dirty", "Writeback"))


def busy_share(seconds=0.3):
    """How much of all processors is used just now, by anybody; stolen time counts."""
    def read():
        with open("/proc/stat", encoding="ascii") as f:
            fields = [int(x) for x in f.readline().split()[1:9]]
        return sum(fields), fields[3] + fields[4]
    (all_before, idle_before), _ = read(), time.sleep(seconds)
    all_after, idle_after = read()
    return 1 - (idle_after - idle_before) / max(all_after - all_before, 1)


def touched(wanted):
    """Memory that is there."""
    memory = mmap.mmap(-1, wanted & -mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # before Linux 5.14
        memory.madvise(MADV_POPULATE_WRITE)
    return memory


def free_memory():
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(re.search(r"^MemFree:\s+(\d+) kB", text, re.M)[1]) << 10


def warm_memory(most):
    """A virtual machine's host takes free pages back, and fetching one again was seen to cost ten
    times what copying into it does. So that this is no part of the figures, as many free pages as
    the run will want are touched first, twice over, as it may get others. They stay for some
    seconds: runs should be short."""
    wanted = min(2 * most, int(free_memory() * 0.8))
    if wanted > mmap.PAGESIZE:
        touched(wanted).close()


class Volume:
    """A directory to measure in: a loop mount of its own when root, else a plain directory."""

    def __init__(self, lab, kind):
        self.kind, self.lab = kind, lab
        self.dir = Path(tempfile.mkdtemp(prefix=f"{kind}.", dir=lab.work))
        self.image, self.device, self.is_mounted, self.remark = None, None, False, ""
        self.throttled = None
        if os.geteuid() != 0:
            self.remark = f"not root: no {kind} of its own, but what {lab.work} lies on"
            return
        try:
            self.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise Unavailable(f"{kind}: can't be mounted: {error}") from error

    def mount(self):
        self.is_mounted = False
        if self.kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", "size=60%", "tmpfs", self.dir)
            self.is_mounted = True
            return
        self.image = self.lab.work / (self.dir.name + ".img")
        with open(self.image, "wb") as f:
            f.truncate(self.lab.volume_bytes)
        if self.kind == "ext4":
            # Nothing is to be initialised lazily, in the middle of a run.
            run("mkfs.ext4", "-q", "-F", "-i", "65536", "-E",
                "lazy_itable_init=0,lazy_journal_init=0,nodiscard", self.image)
        else:
            run("mkfs.xfs", "-q", "-K", self.image)
        # Direct: the pages of the image are not to be dirty a second time.
        self.device = run("losetup", "--find", "--show", "--direct-io=on", self.image).strip()
        run("mount", self.device, self.dir)
        self.is_mounted = True

    def settle(self, bytes_expected=3 << 29):
        """Until nothing is written back any more, ours for certain, others' for a while; then
        there are free pages for so many bytes."""
        run("sync", "-f", self.dir)
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while dirty_bytes() > SETTLED_BYTES and time.monotonic() < deadline:
            time.sleep(0.1)
        self.lab.wait_for_calm()
        warm_memory(bytes_expected)

    def throttle(self, dirty_mib=64, mb_per_s=150):
        """From now on the kernel lets few pages of this volume be dirty, and writes no faster, where
        it can: so that a load waits for the disk itself, and not for a processor. Without a device of
        its own: as it is."""
        if not self.device:
            return
        minor = os.minor(os.stat(self.device).st_rdev)
        bdi = Path(f"/sys/class/bdi/7:{minor}")
        for knob, value in (("strict_limit", 1), ("max_bytes", dirty_mib << 20)):
            if (bdi / knob).exists():
                (bdi / knob).write_text(f"{value}\n")
        if WRITE_BPS.exists():
            WRITE_BPS.write_text(f"7:{minor} {mb_per_s * 1000000}\n")
            self.throttled = f"7:{minor} 0\n"
            self.remark = f"disk held to {mb_per_s} MB/s"

    def subdir(self, name):
        path = self.dir / name
        path.mkdir(exist_ok=True)
        return path

    def close(self):
        if self.throttled:
            WRITE_BPS.write_text(self.throttled)
        if self.is_mounted:
            for _ in range(50):
                if subprocess.run(["umount", self.dir], capture_output=True,
                                  check=False).returncode == 0:
                    break
                time.sleep(0.2)
        if self.device:
            subprocess.run(["losetup", "--detach", self.device], check=False)
        if self.image:
            self.image.unlink(missing_ok=True)
        shutil.rmtree(self.dir, ignore_errors=True)


def run(*command, **options):
    return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, check=True,
                          capture_output=True, text=True, **options).stdout


class Server:
    """A program that serves, its processor time, and its end."""

    def __init__(self, command, log, **options):
        self.log = Path(log)
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                                            stdout=options.pop("stdout", out), stderr=out,
                                            preexec_fn=raise_descriptors, **options)

    @property
    def pid(self):
        return self.process.pid

    def wait_for(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text(errors="replace")[-2000:]
                self.close()
                raise RuntimeError(f"{self.process.args[0]} does not serve:\n{text}")
            time.sleep(0.02)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Daemon(Server):
    """sluiced on a volume; further options as text KEY=VALUE."""

    LISTENING = re.compile(r"info listening addr=127\.0\.0\.1:(\d+)( .*)?$", re.M)

    def __init__(self, lab, volume, *options, prefix=(), name="sluice"):
        self.lab, self.volume, self.data = lab, volume, volume.subdir(name)
        command = [*prefix, lab.build / "sluiced", "--data", self.data, "--listen", "127.0.0.1:0"]
        for option in (*lab.daemon_options, *options):
            command += ["-o", option]
        super().__init__(command, lab.work / f"{name}.{volume.kind}.log")
        found = self.wait_for(lambda: self.LISTENING.search(self.log.read_text(errors="replace")))
        self.port = int(found[1])

    def rss_bytes(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)[1]) * 1024

    def counters(self):
        """name → number, as SIGUSR1 has them logged."""
        before = len(self.log.read_bytes())
        self.process.send_signal(signal.SIGUSR1)

        def told():
            return re.search(rb"info stats (.+)\n", self.log.read_bytes()[before:])
        text = self.wait_for(told)[1].decode()
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}

    def ingest(self, *options, prefix=()):
        """A load; the exports are gone afterwards."""
        try:
            return self.lab.tool("ingest", "--port", self.port, "--pid", self.pid, "--timeout",
                                 120, *options, prefix=prefix)
        finally:
            for path in (self.data / "export").iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)

    def close(self):
        super().close()
        shutil.rmtree(self.data, ignore_errors=True)


class Lab:
    def __init__(self, build, work, runs, daemon_options=(), volume_gib=12, patience=5):
        self.build, self.runs = Path(build).resolve(), runs
        self.daemon_options, self.patience = tuple(daemon_options), patience
        self.disturbed, self.begun = 0, 0  # runs
        Path(work).mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="run.", dir=work)).resolve()
        free = shutil.disk_usage(self.work).free
        self.volume_bytes = min(volume_gib << 30, int(free * 0.8))
        self.volumes, self.seed = {}, int(time.time()) << 8
        # What stays free is little enough to be touched before each run. An image in memory will
        # take its own.
        spare = free_memory() - BALLAST_LEAVES
        if run("stat", "--file-system", "--format=%T", self.work).strip() == "tmpfs":
            spare -= self.volume_bytes
        self.ballast = touched(spare) if spare > mmap.PAGESIZE else None

    def volume(self, kind="ext4"):
        if kind not in self.volumes:
            self.volumes[kind] = Volume(self, kind)
        return self.volumes[kind]

    def drop_volume(self, kind):
        if kind in self.volumes:
            self.volumes.pop(kind).close()

    def say(self, text):
        print(text, flush=True)

    def wait_for_calm(self):
        """Others on this machine make everything dearer: waits a little for them."""
        deadline = time.monotonic() + self.patience
        self.begun += 1
        while busy_share() > CALM_SHARE:
            if time.monotonic() > deadline:
                self.disturbed += 1
                return

    def next_seed(self):
        self.seed += 1
        return self.seed

    def tool(self, command, *options, prefix=()):
        """A command of sluice-bench: what it reports."""
        line = [*prefix, self.build / "sluice-bench", command, "--json", *options]
        if command in ("ingest", "publish", "put", "floor", "loop"):
            line += ["--seed", self.next_seed()]
        done = subprocess.run([str(x) for x in line], stdin=subprocess.DEVNULL, check=False,
                              capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(str(x) for x in line)}: status {done.returncode}: "
                               f"{done.stderr.strip()[-500:]} {done.stdout[-500:]}")
        return json.loads(done.stdout)

    def floor(self, volume, mode, *options, prefix=()):
        path = volume.subdir("floor")
        return self.tool("floor", "--mode", mode, "--dir", path, *options, prefix=prefix)

    @contextlib.contextmanager
    def alone(self):
        """Two benchmarks on one machine go by turns, run by run."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # another user's
                lock = stack.enter_context(open(LOCK, "ab"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def rounds(self, volume, sides, warm_up=True, bytes_expected=3 << 29):
        """Runs the sides (name → function) by turns, each round in the other direction than the
        one before: name → the reports of all rounds. A first round, to warm up, is thrown away."""
        found = {name: [] for name in sides}
        for at in range(-1 if warm_up else 0, self.runs):
            names = list(sides) if at % 2 == 0 else list(reversed(sides))
            for name in names:
                with self.alone():
                    volume.settle(bytes_expected)
                    report = sides[name]()
                if at >= 0:
                    found[name].append(report)
        return found

    def close(self):
        if self.ballast:
            self.ballast.close()
        for kind in list(self.volumes):
            self.drop_volume(kind)
        shutil.rmtree(self.work, ignore_errors=True)


class Figure:
    """One figure of a case: a value per round, compared with its bar, if it has one.

    sign is what the bar is: "<=" or ">="."""

    def __init__(self, name, values, sign=None, bar=None, unit="", remark=""):
        self.name, self.values, self.unit, self.remark = name, list(values), unit, remark
        self.sign, self.bar = sign, bar
        self.is_told = False

    @property
    def median(self):
        return median(self.values)

    def is_met(self):
        if self.bar is None:
            return None
        return self.median <= self.bar if self.sign == "<=" else self.median >= self.bar

    def as_dict(self):
        return {"name": self.name, "unit": self.unit, "values": self.values,
                "median": self.median, "min": min(self.values), "max": max(self.values),
                "outliers": outliers(self.values), "sign": self.sign, "bar": self.bar,
                "met": self.is_met(), "remark": self.remark}

    def line(self):
        verdict = {None: "", True: "met", False: "MISSED"}[self.is_met()]
        bar = f"{self.sign} {self.bar:g}" if self.bar is not None else ""
        odd = [f"{self.values[i]:.4g}" for i in outliers(self.values)]
        text = (f"  {self.name:<46} {self.median:>10.4g}  {min(self.values):>9.4g} "
                f"{max(self.values):>9.4g}  {self.unit:<14} {bar:<9} {verdict}")
        if odd:
            text += f"  outliers: {', '.join(odd)}"
        return text + (f"  ({self.remark})" if self.remark else "")


def ratios(name, above, below, sign=None, bar=None, remark="", is_rate=False):
    """Round by round. What disturbs makes a cost larger and a rate smaller: so the ratio of the
    undisturbed ends is told, too."""
    best, end = ("most", max) if is_rate or sign == ">=" else ("least", min)
    least = f"{best} / {best} {end(above) / end(below):.3g}"
    return Figure(name, [a / b for a, b in zip(above, below)], sign, bar, "x",
                  f"{least}; {remark}" if remark else least)
