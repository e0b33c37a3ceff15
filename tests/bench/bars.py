"""The cases with a bar. Each is a function case(lab) that returns figures."""

import os

from lab import Figure, Unavailable, ratios

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


def daemon_against_floor(lab, volume, modes, load, checksum="none", daemon_options=(), runs=None):
    """Rounds of the daemon and of floors under one load: name → reports."""
    from lab import Daemon

    daemon = Daemon(lab, volume, *daemon_options)
    try:
        sides = {mode: (lambda mode=mode: lab.floor(volume, mode, *load)) for mode in modes}
        sides["daemon"] = lambda: daemon.ingest("--checksum", checksum, *load)
        return lab.rounds(volume, sides, runs)
    finally:
        daemon.close()


def load_of(segment, total_mib=2048, connections=16, files=32, window=32):
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
    from lab import Daemon

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
    from lab import Daemon

    cpus = sorted(os.sched_getaffinity(0))
    aside, remark = len(cpus) >= 4, ""
    ours, theirs = (cpus[:2], cpus[2:]) if aside else (cpus, cpus)
    if not aside:
        remark = f"{len(cpus)} processors: the senders can't be pinned aside, so there is no verdict"

    def pinned(to):
        return ("taskset", "-c", ",".join(str(c) for c in to))

    daemons, volumes = {}, lab.volume()
    load = load_of("1M", 2048)
    try:
        found = {}

        def one(reactors):
            daemon = Daemon(lab, volumes, f"reactors={reactors}", f"verify.threads={reactors}",
                            prefix=pinned(ours[:reactors]))
            daemons[reactors] = daemon
            try:
                return daemon.ingest("--checksum", "fin", *load, prefix=pinned(theirs))
            finally:
                daemon.close()
        found = lab.rounds(volumes, {n: (lambda n=n: one(n)) for n in (1, 2)})
    finally:
        for daemon in daemons.values():
            daemon.close()
    rate = {n: pick(found[n], "mb_per_s") for n in (1, 2)}
    return [Figure("one reactor", rate[1], unit="MB/s"), Figure("two reactors", rate[2], unit="MB/s"),
            Figure("one reactor", daemon_cpu(found[1]), unit="CPU s/GB"),
            Figure("two reactors", daemon_cpu(found[2]), unit="CPU s/GB"),
            ratios("two reactors / one", rate[2], rate[1], ">=" if aside else None,
                   1.6 if aside else None, remark)]


CASES = {"large": large, "huge": huge, "256k": s256k, "64k": s64k, "fin-sha": fin_sha,
         "fin-ratio": fin_ratio, "emqx": emqx, "scaling": scaling}
__all__ = ["CASES", "Unavailable"]
