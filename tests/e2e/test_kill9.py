"""A few rounds of fault/kill9.py; by hand it runs hundreds."""

import kill9

from harness import cases, limit


@limit(120)
@cases(seed=[1, 2])
def test_kill9(t, seed):
    print(kill9.run(t, 12, seed))
