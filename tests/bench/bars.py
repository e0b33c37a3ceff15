"""The cases with a bar. Each is a function case(lab) that returns figures."""

import os
import resource
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import servers
from lab import Daemon, Figure, Unavailable, raise_descriptors, ratios

GB, GIB = 1e9, 1 << 30

# 64 × 16 MiB over 16 connections, window 32, checksum at fin, on a machine of this kind whose floor
# (splice, IORING_OP_SPLICE) took FLOOR_THEN CPU s/GB. MiB/s on ext4, CPU s per GiB.
EMQX = {"256K": (242, 5.6), "64K": (83, 15.3)}
FLOOR_THEN = 0.205


def pick(reports, key):
    return [r[key] for r in reports]


def daemon_cpu(reports):
    return pick(reports, "daemon_cpu_seconds_per_gb")


def floor_cpu(reports):
    return pick(reports, "cpu_seconds_per_gb")


def daemon_against_floor(lab, volume, modes, load, checksum="none", warm_up=True,
                         bytes_expected=1 << 29):
    """Rounds of the daemon and of floors under one load: name → reports. Where nobody sends a
    checksum nobody hashes, neither the floor nor the daemon."""
    daemon = Daemon(lab, volume, f"verify.digest={'asked' if checksum == 'none' else 'always'}")
    try:
        sides = {mode: (lambda mode=mode: lab.floor(volume, mode, *load)) for mode in modes}
        sides["daemon"] = lambda: daemon.ingest("--checksum", checksum, *load)
        return lab.rounds(volume, sides, warm_up, bytes_expected)
    finally:
        daemon.close()


def load_of(segment, total_mib=512, connections=16, files=16, window=32):
    return ("--connections", connections, "--files", files, "--size",
            f"{max(1, total_mib // files)}M", "--segment", segment, "--window", window)


def against_floor(lab, segment, bar, modes=("splice",), checksum="none"):
    volume = lab.volume()
    found = daemon_against_floor(lab, volume, modes, load_of(segment), checksum)
    figures = [Figure("daemon", daemon_cpu(found["daemon"]), unit="CPU s/GB"),
               Figure("daemon's rate", pick(found["daemon"], "mb_per_s"), unit="MB/s")]
    for mode in modes:
        figures += [Figure(f"floor {mode}", floor_cpu(found[mode]), unit="CPU s/GB"),
                    Figure(f"floor {mode}'s rate", pick(found[mode], "mb_per_s"), unit="MB/s")]
    figures.append(ratios(f"daemon / floor {modes[0]}", daemon_cpu(found["daemon"]),
                          floor_cpu(found[modes[0]]), "<=", bar, volume.remark))
    return figures


def large(lab):
    """1 MiB segments, 16 connections, no checksum"""
    return against_floor(lab, "1M", 1.10, ("splice", "poll-splice", "discard"))


def huge(lab):
    """8 MiB segments, 16 connections, no checksum"""
    return against_floor(lab, "8M", 1.10)


def s256k(lab):
    """256 KiB segments, 16 connections, no checksum"""
    return against_floor(lab, "256K", 1.20)


def s64k(lab):
    """64 KiB segments, 16 connections, no checksum"""
    return against_floor(lab, "64K", 1.5)


def fin_sha(lab):
    """1 MiB segments, 16 connections, checksum at fin"""
    figures = against_floor(lab, "1M", 1.10, ("splice+sha", "splice"), "fin")
    return figures


def fin_ratio(lab):
    """fin of a 4 GiB file against 1 MiB: checksum on, in order, fsync on"""
    volume = lab.volume()
    daemon = Daemon(lab, volume)
    try:
        def upload(size):
            return daemon.ingest("--checksum", "fin", "--connections", 1, "--files", 1, "--size",
                                 size, "--segment", "1M")
        found = lab.rounds(volume, {"1M": lambda: upload("1M"), "4G": lambda: upload("4G")})
    finally:
        daemon.close()
    ms = {size: [r["fin_ms"]["max"] for r in found[size]] for size in found}
    medians = {size: Figure("", values).median for size, values in ms.items()}
    return [Figure("fin of 1 MiB", ms["1M"], unit="ms"), Figure("fin of 4 GiB", ms["4G"], unit="ms"),
            Figure("4 GiB / 1 MiB, of the medians", [medians["4G"] / medians["1M"]], "<=", 3, "x")]


def emqx(lab):
    """64 x 16 MiB over 16 connections, window 32, checksum at fin, against EMQX scaled"""
    volume, figures = lab.volume(), []
    for segment, cpu_part, wall_times in (("256K", 8, 5), ("64K", 20, 12)):
        mib_per_s, cpu_per_gib = EMQX[segment]
        load = load_of(segment, 1024, 16, 64)
        found = daemon_against_floor(lab, volume, ("splice",), load, "fin")
        scale = [f / FLOOR_THEN for f in floor_cpu(found["splice"])]
        cpu = [c * GIB / GB for c in daemon_cpu(found["daemon"])]
        rate = [r * 1e6 / (1 << 20) for r in pick(found["daemon"], "mb_per_s")]
        figures += [
            Figure(f"{segment}: daemon", cpu, unit="CPU s/GiB"),
            Figure(f"{segment}: daemon's rate", rate, unit="MiB/s"),
            Figure(f"{segment}: today's floor / then", scale, unit="x"),
            ratios(f"{segment}: daemon's CPU / EMQX's", cpu, [s * cpu_per_gib for s in scale], "<=",
                   1 / cpu_part),
            ratios(f"{segment}: daemon's rate / EMQX's", rate, [mib_per_s / s for s in scale], ">=",
                   wall_times)]
    return figures


def scaling(lab):
    """two reactors against one, hashing on, the senders pinned aside"""
    cpus = sorted(os.sched_getaffinity(0))
    aside, remark = len(cpus) >= 4, ""
    ours, theirs = (cpus[:2], cpus[2:]) if aside else (cpus, cpus)
    if not aside:
        remark = f"{len(cpus)} processors: the senders can't be pinned aside, so there is no verdict"

    def pinned(to):
        return ("taskset", "-c", ",".join(str(c) for c in to))

    volume, load = lab.volume(), load_of("1M")

    def one(reactors):
        daemon = Daemon(lab, volume, f"reactors={reactors}", f"verify.threads={reactors}",
                        prefix=pinned(ours[:reactors]))
        try:
            return daemon.ingest("--checksum", "fin", *load, prefix=pinned(theirs))
        finally:
            daemon.close()
    found = lab.rounds(volume, {n: (lambda n=n: one(n)) for n in (1, 2)})
    rate = {n: pick(found[n], "mb_per_s") for n in (1, 2)}
    return [Figure("one reactor", rate[1], unit="MB/s"), Figure("two reactors", rate[2], unit="MB/s"),
            Figure("one reactor", daemon_cpu(found[1]), unit="CPU s/GB"),
            Figure("two reactors", daemon_cpu(found[2]), unit="CPU s/GB"),
            ratios("two reactors / one", rate[2], rate[1], ">=" if aside else None,
                   1.6 if aside else None, remark, is_rate=True)]


def small(lab):
    """1 KiB segments, window 64, 16 connections: against mosquitto's QoS 1 without subscriber"""
    volume = lab.volume()
    load = ("--connections", 16, "--files", 64, "--size", "4M", "--segment", "1K", "--window", 64)
    broker = servers.Mosquitto(lab)
    # Nobody sends a checksum: as elsewhere, nobody hashes; beside it, what a digest of all costs.
    daemon = Daemon(lab, volume, "verify.digest=asked")
    hashing = Daemon(lab, volume, name="hashing")
    try:
        found = lab.rounds(volume, {"mosquitto": lambda: broker.publish(*load),
                                    "daemon": lambda: daemon.ingest(*load),
                                    "hashing": lambda: hashing.ingest(*load)},
                           bytes_expected=1 << 29)
    finally:
        hashing.close()
        daemon.close()
        broker.close()
    rate = {name: [r["segments"] / r["daemon_cpu_seconds"] for r in found[name]] for name in found}
    return [Figure("daemon", rate["daemon"], unit="segments/CPU s"),
            Figure("daemon that hashes all the same", rate["hashing"], unit="segments/CPU s"),
            Figure("mosquitto", rate["mosquitto"], unit="segments/CPU s"),
            Figure("daemon", pick(found["daemon"], "segments_per_s"), unit="segments/s"),
            Figure("mosquitto", pick(found["mosquitto"], "segments_per_s"), unit="segments/s"),
            ratios("daemon that hashes / mosquitto", rate["hashing"], rate["mosquitto"],
                   is_rate=True),
            ratios("daemon / mosquitto", rate["daemon"], rate["mosquitto"], ">=", 4,
                   volume.remark)]


def nginx(lab):
    """64 x 16 MiB over 16 connections: daemon with checksum at fin against nginx's PUT without"""
    volume = lab.volume()
    load = ("--connections", 16, "--files", 64, "--size", "16M")
    server = servers.Nginx(lab, volume)
    daemon = Daemon(lab, volume)
    try:
        found = lab.rounds(volume, {
            "nginx": lambda: server.put(*load),
            "daemon": lambda: daemon.ingest("--checksum", "fin", "--segment", "1M", *load)})
    finally:
        daemon.close()
        server.close()
    cpu = pick(found["nginx"], "server_cpu_seconds_per_gb")
    return [Figure("daemon, with checksum and fsync", daemon_cpu(found["daemon"]), unit="CPU s/GB"),
            Figure("nginx, with neither", cpu, unit="CPU s/GB"),
            Figure("daemon's rate", pick(found["daemon"], "mb_per_s"), unit="MB/s"),
            Figure("nginx's rate", pick(found["nginx"], "mb_per_s"), unit="MB/s"),
            ratios("daemon / nginx", daemon_cpu(found["daemon"]), cpu, "<=", 1, volume.remark)]


def many_files(lab):
    """10,000 files of 1 to 16 KiB over 64 connections, checksum at fin: against a plain loop"""
    volume = lab.volume()
    size = ("--size", "1K-16K")
    daemon = Daemon(lab, volume)
    try:
        # The loop takes long, and each of its files is like the next: fewer of them will do.
        path = volume.subdir("loop")
        sides = {
            "daemon": lambda: daemon.ingest("--checksum", "fin", "--connections", 64, "--files",
                                            10000, "--segment", "16K", *size),
            "loop": lambda: lab.tool("loop", "--files", 1000, "--dir", path, "--no-dir-sync",
                                     *size),
            "calls": lambda: lab.tool("loop", "--files", 10000, "--dir", path, "--together", 512,
                                      *size),
            "loop+dir": lambda: lab.tool("loop", "--files", 1000, "--dir", path, *size)}
        found = lab.rounds(volume, sides, bytes_expected=1 << 29)
    finally:
        daemon.close()
    rate = [r["files"] / r["seconds"] for r in found["daemon"]]
    per_cpu = [r["files"] / r["daemon_cpu_seconds"] for r in found["daemon"]]
    return [Figure("daemon", rate, unit="files/s"),
            Figure("loop: fsync, rename", pick(found["loop"], "files_per_s"), unit="files/s"),
            Figure("loop: and fsync of the directory", pick(found["loop+dir"], "files_per_s"),
                   unit="files/s"),
            ratios("daemon / loop", rate, pick(found["loop"], "files_per_s"), ">=", 5,
                   volume.remark),
            Figure("daemon", per_cpu, ">=", 10000, "files/CPU s"),
            Figure("its calls to the file system alone", pick(found["calls"], "files_per_cpu_second"),
                   unit="files/CPU s"),
            Figure("the same", pick(found["calls"], "files_per_s"), unit="files/s"),
            ratios("daemon's CPU / that of its calls", [1 / r for r in per_cpu],
                   [1 / r for r in pick(found["calls"], "files_per_cpu_second")])]


def idle(lab):
    """50,000 idle MQTT 5 connections with keep alive, pinged once a minute"""
    wanted, seconds, remark = 50000, 60, ""
    raise_descriptors()
    # The daemon keeps some for its files and pipes.
    connections = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 4500)
    if connections < 1000:
        raise Unavailable("not allowed so many descriptors: ulimit -n")
    if connections < wanted:
        remark = f"{connections} connections: more descriptors are not allowed here"
    memory, share, worst = [], [], []
    # A minute a round, and what is counted hardly varies.
    for _ in range(min(lab.runs, 3)):
        daemon = Daemon(lab, lab.volume())
        try:
            report = lab.tool("idle", "--port", daemon.port, "--pid", daemon.pid, "--connections",
                              connections, "--seconds", seconds, "--keep-alive", 60)
        finally:
            daemon.close()
        memory.append(report["rss_kib_per_connection"])
        share.append(report["daemon_cpu_percent"] * wanted / connections)
        worst.append(report["ping_ms"]["p99"])
    return [Figure("memory of a connection", memory, "<=", 0.7, "KiB", remark),
            Figure("daemon's CPU for 50,000 pings", share, "<=", 5, "% of a core",
                   "of fewer, scaled" if remark else ""),
            Figure("ping, p99", worst, unit="ms")]


def ping(lab):
    """a ping every 10 ms beside a load that saturates the disk"""
    volume = lab.volume()
    daemon = Daemon(lab, volume)
    # What a daemon without any load answers meanwhile is the machine's own delay.
    idle_one = Daemon(lab, volume, name="idle")
    # The one who asks is not to be late itself.
    prefix = ("chrt", "-r", "1") if os.geteuid() == 0 and shutil.which("chrt") else ()
    found, control = [], []
    try:
        volume.throttle()
        for _ in range(lab.runs):
            with lab.alone(), ThreadPoolExecutor(2) as pool:
                volume.settle()

                def ask(of):
                    return lab.tool("ping", "--port", of.port, "--seconds", 5, "--client-prefix",
                                    "honest", prefix=prefix)
                load = pool.submit(daemon.ingest, *load_of("1M", 1024, 16, 64))
                time.sleep(0.5)
                other = pool.submit(ask, idle_one)
                report = ask(daemon)
                control.append(other.result())
                report["mb_per_s"] = load.result()["mb_per_s"]
                found.append(report)
    finally:
        daemon.close()
        idle_one.close()
        lab.drop_volume("ext4")  # it stays throttled
    part = [r["slow"] / r["pings"] * 100 for r in found]
    return [Figure("load", pick(found, "mb_per_s"), unit="MB/s"),
            Figure("ping, p50", [r["ping_ms"]["p50"] for r in found], unit="ms"),
            Figure("ping, p99", [r["ping_ms"]["p99"] for r in found], "<=", 20, "ms"),
            Figure("ping, longest", [r["ping_ms"]["max"] for r in found], unit="ms"),
            Figure("pings over 20 ms", part, unit="%", remark=volume.remark),
            Figure("of an idle daemon meanwhile, p99", [r["ping_ms"]["p99"] for r in control],
                   unit="ms"),
            Figure("of an idle daemon meanwhile, longest", [r["ping_ms"]["max"] for r in control],
                   unit="ms")]


CASES = {"large": large, "huge": huge, "256k": s256k, "64k": s64k, "fin-sha": fin_sha,
         "fin-ratio": fin_ratio, "small": small, "nginx": nginx, "many-files": many_files,
         "idle": idle, "emqx": emqx, "scaling": scaling, "ping": ping}
