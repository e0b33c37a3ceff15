#!/usr/bin/env python3
"""Measures sluiced beside the floors of this machine and beside other servers.

  bench.py --build BUILD bars | levels | matrix | peers | NAME...

Every figure is the median of its rounds; the smallest, the largest and the outliers stand beside
it. The daemon and what it is compared with run by turns on one loop-mounted file system (when
root), and write-back settles before each run.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import bars
import durability
import matrix
import peers
from lab import Lab, Unavailable

RUNS, RUNS_OF_MATRIX = 7, 3
GROUPS = {"bars": bars.CASES, "levels": durability.CASES, "matrix": matrix.CASES,
          "peers": peers.CASES}


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "memory_gib": round(memory, 1),
            "kernel": platform.release(), "date": time.strftime("%Y-%m-%d")}


def chosen(names):
    """name → function, in the order of the tables."""
    known = {name: case for group in GROUPS.values() for name, case in group.items()}
    cases = {}
    for name in names:
        if name in GROUPS:
            cases.update(GROUPS[name])
        elif name in known:
            cases[name] = known[name]
        else:
            sys.exit(f"bench: no case {name}; there are {', '.join([*GROUPS, *known])}")
    return cases


def measure(lab, name, case):
    began = time.monotonic()
    result = {"name": name, "title": (case.__doc__ or name).strip(), "rounds": lab.runs,
              "figures": []}
    lab.say(f"\n{name}: {result['title']}: {lab.runs} rounds")
    lab.begun = lab.disturbed = 0
    try:
        figures = case(lab)
        result["figures"] = [f.as_dict() for f in figures]
        for figure in figures:
            if not figure.is_told:
                lab.say(figure.line())
    except Unavailable as reason:
        result["left_out"] = str(reason)
        lab.say(f"  left out: {reason}")
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        result["error"] = str(error)
        lab.say(f"  FAILED: {error}")
    result["seconds"] = round(time.monotonic() - began, 1)
    result["runs_begun"], result["runs_disturbed"] = lab.begun, lab.disturbed
    if lab.disturbed:
        lab.say(f"  {lab.disturbed} of {lab.begun} runs began while others used the processors")
    return result


def write(path, results):
    """Cases of earlier runs stay, unless they were measured anew."""
    merged = dict(results)
    if path.exists():
        measured = {c["name"] for c in results["cases"]}
        earlier = json.loads(path.read_text(encoding="utf-8"))
        merged["cases"] = [c for c in earlier["cases"] if c["name"] not in measured]
        merged["cases"] += results["cases"]
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["bars"], help="bars, levels, matrix, peers, or names")
    parser.add_argument("--build", default="build", help="where the programs are (build)")
    parser.add_argument("--work", help="where to make file systems (BUILD/bench)")
    parser.add_argument("--runs", type=int, help="rounds of each case (7; matrix: 3)")
    parser.add_argument("--json", help="also write to this file, beside what it has of other cases")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="KEY=VALUE",
                        help="for the daemon")
    parser.add_argument("--patience", type=float, default=5, metavar="SECONDS",
                        help="to wait, before each run, until others are done (5)")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    arguments = parser.parse_args()
    if arguments.list:
        for group, cases in GROUPS.items():
            for name, case in cases.items():
                print(f"{group:<7} {name:<14} {(case.__doc__ or '').strip()}")
        return 0
    cases = chosen(arguments.cases or ["bars"])
    # So that what is mounted and running ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A user's PATH may lack what mkfs and the servers lie in.
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    lab = Lab(arguments.build, arguments.work or Path(arguments.build) / "bench", RUNS,
              arguments.options, patience=arguments.patience)
    results = {"machine": machine(), "daemon_options": arguments.options, "cases": []}
    lab.say(f"{results['machine']['cpu']}, {results['machine']['cpus']} processors, "
            f"{results['machine']['memory_gib']} GiB, Linux {results['machine']['kernel']}; "
            "columns: median, least, most")
    try:
        for name, case in cases.items():
            lab.runs = arguments.runs or (RUNS_OF_MATRIX if name in matrix.CASES else RUNS)
            results["cases"].append(measure(lab, name, case))
            if arguments.json:
                write(Path(arguments.json), results)
    finally:
        lab.close()
    failed = [c["name"] for c in results["cases"] if "error" in c]
    missed = [f"{c['name']}: {f['name']}" for c in results["cases"] for f in c["figures"]
              if f["met"] is False]
    lab.say("\n" + (f"missed: {'; '.join(missed)}" if missed else "no bar was missed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
