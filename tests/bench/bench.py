#!/usr/bin/env python3
"""Measures sluiced beside the floors of this machine and beside other servers.

  bench.py --build BUILD bars | matrix | peers | NAME...

Every figure is the median of its rounds; the smallest, the largest and the outliers stand beside
it. The daemon and what it is compared with run by turns on one loop-mounted file system (when
root), and write-back settles before each run.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import bars
import matrix
import peers
from lab import Lab, Unavailable

GROUPS = {"bars": bars.CASES, "matrix": matrix.CASES, "peers": peers.CASES}


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
    result = {"name": name, "title": (case.__doc__ or name).strip(), "figures": []}
    lab.say(f"\n{name}: {result['title']}")
    try:
        figures = case(lab)
        result["figures"] = [f.as_dict() for f in figures]
        for figure in figures:
            lab.say(figure.line())
    except Unavailable as reason:
        result["left_out"] = str(reason)
        lab.say(f"  left out: {reason}")
    except RuntimeError as error:
        result["error"] = str(error)
        lab.say(f"  FAILED: {error}")
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["bars"], help="bars, matrix, peers, or names")
    parser.add_argument("--build", default="build", help="where the programs are (build)")
    parser.add_argument("--work", help="where to make file systems (BUILD/bench)")
    parser.add_argument("--runs", type=int, help="rounds of each case (7; matrix: 3)")
    parser.add_argument("--json", help="also write everything to this file")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="KEY=VALUE",
                        help="for the daemon")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    arguments = parser.parse_args()
    if arguments.list:
        for group, cases in GROUPS.items():
            for name, case in cases.items():
                print(f"{group:<7} {name:<14} {(case.__doc__ or '').strip()}")
        return 0
    cases = chosen(arguments.cases or ["bars"])
    only_matrix = all(name in matrix.CASES for name in cases)
    lab = Lab(arguments.build, arguments.work or Path(arguments.build) / "bench",
              arguments.runs or (3 if only_matrix else 7), arguments.options)
    results = {"machine": machine(), "runs": lab.runs, "daemon_options": arguments.options,
               "cases": []}
    lab.say(f"{results['machine']['cpu']}, {results['machine']['cpus']} processors, "
            f"{results['machine']['memory_gib']} GiB, Linux {results['machine']['kernel']}; "
            f"{lab.runs} rounds; columns: median, least, most")
    try:
        for name, case in cases.items():
            results["cases"].append(measure(lab, name, case))
            if arguments.json:
                Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n",
                                                encoding="utf-8")
    finally:
        lab.close()
    failed = [c["name"] for c in results["cases"] if "error" in c]
    missed = [f"{c['name']}: {f['name']}" for c in results["cases"] for f in c["figures"]
              if f["met"] is False]
    lab.say("\n" + (f"missed: {'; '.join(missed)}" if missed else "no bar was missed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
