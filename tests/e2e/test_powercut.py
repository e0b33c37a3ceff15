"""A few rounds of fault/powercut.py; by hand it runs hundreds."""

import powercut

from harness import cases, limit


@limit(120)
@cases(level=["power", "crash"])
def test_powercut(t, level):
    print(powercut.run(t, 6, 1, level))
