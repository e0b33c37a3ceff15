"""tests/bench: what it makes of its figures. The measuring itself is `make bench`."""

import json
import re
import shutil
import sys

from harness import ROOT, Skip, eq, yes

BENCH = ROOT / "tests/bench"


def lab():
    sys.path.insert(0, str(BENCH))
    try:
        import lab as module  # pylint: disable=import-outside-toplevel
    finally:
        sys.path.remove(str(BENCH))
    return module


def test_figures_and_bars(_t):
    m = lab()
    eq([m.Figure("", [3, 1, 2], sign, bar).is_met() for sign, bar in
        (("<=", 2), ("<=", 1.9), (">=", 2), (">=", 2.1), (None, None))],
       [True, False, True, False, None], "verdicts on the median")
    eq(m.ratios("", [2, 9], [1, 3]).values, [2, 3], "ratios round by round")
    yes("least / least 2" in m.ratios("", [2, 9], [1, 3]).remark, "the least ones")
    yes("most / most 3" in m.ratios("", [2, 9], [1, 3], ">=", 1).remark, "the most, of rates")
    eq(m.outliers([10, 11, 10, 9, 30, 10, 11]), [4], "outliers")
    eq(m.outliers([1, 100, 1]), [], "outliers of three")


def test_list_and_names(t):
    done = t.run(sys.executable, BENCH / "bench.py", "--list")
    eq((done.returncode, done.stderr), (0, ""), "exit status and stderr")
    names = {line.split()[1] for line in done.stdout.splitlines()}
    yes({"large", "64k", "fin-ratio", "idle", "ping", "matrix-xfs", "peer-nginx"} <= names, f"{names}")
    done = t.run(sys.executable, BENCH / "bench.py", "nothing")
    yes(done.returncode == 1 and "no case nothing" in done.stderr, done.stderr)


def test_chart(t):
    if not shutil.which("gnuplot"):
        raise Skip("no gnuplot")
    figure = {"unit": "CPU s/GB", "median": 0.25, "min": 0.2, "max": 0.3}
    cases = [{"name": "large", "figures": [{"name": "daemon", **figure},
                                           {"name": "floor splice", **figure, "median": 0.125}]}]
    (t.dir / "bars.json").write_text(json.dumps({"cases": cases}))
    done = t.run(sys.executable, BENCH / "figures.py", t.dir / "out.svg", t.dir / "bars.json",
                 t.dir / "none.json")
    eq((done.returncode, done.stderr), (0, ""), "exit status and stderr")
    texts = re.findall(r"<text>(?:<tspan[^>]*>)?([^<]+)", (t.dir / "out.svg").read_text())
    yes(any("sluiced, 1 MiB segments" in x for x in texts), f"labels: {texts}")
    yes({"0.25", "0.12"} <= {x.strip() for x in texts} or "0.13" in str(texts), f"values: {texts}")
