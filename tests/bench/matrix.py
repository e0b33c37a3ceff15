"""The matrix: segment sizes × connections × checksums × file systems, each against its floor.

A load is bounded by bytes and by segments, so that the small ones do not take all the time.
"""

from bars import daemon_against_floor, daemon_cpu, floor_cpu, pick
from lab import Figure, ratios

SEGMENTS = {"1K": 1, "16K": 16, "64K": 64, "256K": 256, "1M": 1024, "8M": 8192}
CONNECTIONS = (1, 16, 256)
CHECKSUMS = ("none", "fin", "segment")
TOTAL_MIB, SEGMENTS_MAX = 512, 65536


def cell(lab, volume, segment, connections, checksum):
    total_kib = min(TOTAL_MIB << 10, SEGMENTS_MAX * SEGMENTS[segment])
    files = max(connections, 1)
    # A file has at least one segment; more connections send more, not smaller ones.
    size_kib = max(total_kib // files, SEGMENTS[segment])
    load = ("--connections", connections, "--files", files, "--size", f"{size_kib}K", "--segment",
            segment)
    mode = "splice" if checksum == "none" else "splice+sha"
    return daemon_against_floor(lab, volume, (mode,), load, checksum, warm_up=False,
                                bytes_expected=3 * total_kib << 9), mode


def row_of(kind):
    def case(lab):
        volume, figures = lab.volume(kind), []
        for checksum in CHECKSUMS:
            for connections in CONNECTIONS:
                for segment in SEGMENTS:
                    if segment == "8M" and connections == 256:
                        continue  # 2 GiB would be in flight
                    found, mode = cell(lab, volume, segment, connections, checksum)
                    cpu, floor = daemon_cpu(found["daemon"]), floor_cpu(found[mode])
                    name = f"{segment} x {connections}, {checksum}"
                    figure = ratios(name, cpu, floor)
                    figure.remark = ("%.3f against %.3f CPU s/GB, %.0f MB/s" % (
                        Figure("", cpu).median, Figure("", floor).median,
                        Figure("", pick(found["daemon"], "mb_per_s")).median))
                    figures.append(figure)
                    lab.say(figure.line())
                    figure.is_told = True  # a matrix takes long: each line when it is known
        lab.drop_volume(kind)
        return figures
    case.__doc__ = f"daemon / floor on {kind}: segment x connections, checksum"
    return case


CASES = {f"matrix-{kind}": row_of(kind) for kind in ("ext4", "xfs", "tmpfs")}
