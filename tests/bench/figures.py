#!/usr/bin/env python3
"""Draws what bench.py has written: processor time per GB, the daemon beside floors and peers.

  figures.py OUT.svg BARS.json PEERS.json     (either may be missing; both come from bench.py --json)
"""

import json
import subprocess
import sys
from pathlib import Path

# label, case, figure, colour
FLOOR, OURS, THEIRS = "#9aa5b1", "#1f77b4", "#d98032"
BARS = [
    ("floor: splice", "large", "floor splice", FLOOR),
    ("sluiced, 8 MiB segments", "huge", "daemon", OURS),
    ("sluiced, 1 MiB segments", "large", "daemon", OURS),
    ("sluiced, 256 KiB segments", "256k", "daemon", OURS),
    ("sluiced, 64 KiB segments", "64k", "daemon", OURS),
    ("floor: splice + SHA-256", "fin-sha", "floor splice+sha", FLOOR),
    ("sluiced, 1 MiB, checksum at fin", "fin-sha", "daemon", OURS),
]
PEERS = [
    ("sluiced, 256 KiB, checksum at fin", "peer-sluiced", "CPU", OURS),
    ("nc to a file", "peer-nc", "CPU", THEIRS),
    ("socat to a file", "peer-socat", "CPU", THEIRS),
    ("mosquitto, nothing written", "peer-mosquitto", "CPU", THEIRS),
    ("mosquitto + subscriber's file", "peer-mosquitto-file", "CPU", THEIRS),
    ("nginx, WebDAV PUT", "peer-nginx", "CPU", THEIRS),
]

SCRIPT = """\
set terminal svg size 860,{height} font "sans,13" background "white"
set output "{out}"
set title "server CPU seconds per GB received: median, least, most"
set style fill solid
set xrange [0:*]
set yrange [-0.7:{last}]
set ytics ({tics}) scale 0
set xlabel "CPU s/GB"
set grid xtics
unset key
set bars 0.6
$data << END
{data}
END
plot $data using ($2/2):1:($2/2):(0.36):6 with boxxyerror lc rgb variable, \\
     $data using 2:1:3:4 with xerrorbars pt 0 lc rgb "black", \\
     $data using 4:1:5 with labels left offset 0.8,0
"""


def rows(path, table):
    if not Path(path).exists():
        return []
    cases = {c["name"]: c for c in json.loads(Path(path).read_text(encoding="utf-8"))["cases"]}
    found = []
    for label, case, name, colour in table:
        for figure in cases.get(case, {"figures": []})["figures"]:
            if figure["name"] == name and figure["unit"].startswith("CPU s"):
                found.append((label, figure, int(colour[1:], 16)))
                break
    return found


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    out, bars, peers = sys.argv[1:]
    found = rows(bars, BARS) + rows(peers, PEERS)
    if not found:
        sys.exit(f"figures: neither {bars} nor {peers} has any figure: make bench bench-peers")
    last = len(found) - 1
    # The first one on top.
    data = [f'{last - i} {f["median"]} {f["min"]} {f["max"]} "{f["median"]:.2f}" {colour}'
            for i, (_, f, colour) in enumerate(found)]
    tics = ", ".join(f'"{label}" {last - i}' for i, (label, _, _) in enumerate(found))
    script = SCRIPT.format(height=110 + 30 * len(found), out=out, last=last + 0.7, tics=tics,
                           data="\n".join(data))
    try:
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
    except FileNotFoundError:
        sys.exit("figures: gnuplot is not installed: apt-get install gnuplot-nox")


if __name__ == "__main__":
    main()
