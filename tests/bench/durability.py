"""What durability: power costs beside crash, over connections and sizes of segments."""

from bars import pick
from lab import Daemon, Figure, ratios

LEVELS = ("crash", "power")
LOADS = [(connections, segment) for connections in (1, 16, 256) for segment in ("64K", "1M")]
SYNCS = ("journal_syncs", "file_syncs", "dir_syncs")


def upload(daemon, load):
    """A report, and in it how many syncs were waited for while it ran."""
    before = daemon.counters()
    report = daemon.ingest(*load)
    after = daemon.counters()
    report["syncs"] = sum(after[name] - before[name] for name in SYNCS)
    report["journal_syncs"] = after["journal_syncs"] - before["journal_syncs"]
    return report


def durability(lab):
    """durability: power beside crash, 512 MiB, window 32, ext4: 1, 16 and 256 connections"""
    volume, daemons, figures = lab.volume(), {}, []
    try:
        for level in LEVELS:
            daemons[level] = Daemon(lab, volume, f"durability={level}", name=level)
        for connections, segment in LOADS:
            load = ("--connections", connections, "--files", max(16, connections), "--size",
                    f"{512 // max(16, connections)}M", "--segment", segment, "--window", 32)
            sides = {level: (lambda level=level: upload(daemons[level], load)) for level in LEVELS}
            found = lab.rounds(volume, sides, bytes_expected=1 << 29)
            where = f"{connections} x {segment}"
            for level in LEVELS:
                figures += [Figure(f"{where}, {level}", pick(found[level], "mb_per_s"), unit="MB/s")]
                figures += [Figure(f"{where}, {level}: ack {p}",
                                   [r["ack_ms"][p] for r in found[level]], unit="ms")
                            for p in ("p50", "p99")]
            power = found["power"]
            figures += [
                Figure(f"{where}, power: syncs", [r["syncs"] / r["seconds"] for r in power],
                       unit="per s"),
                Figure(f"{where}, power: segments per sync of the journal",
                       [r["segments_per_s"] * r["seconds"] / max(1, r["journal_syncs"])
                        for r in power]),
                ratios(f"{where}: power / crash, rate", pick(power, "mb_per_s"),
                       pick(found["crash"], "mb_per_s"), remark=volume.remark, is_rate=True)]
    finally:
        for daemon in daemons.values():
            daemon.close()
    return figures


CASES = {"durability": durability}
