"""A small round of fault/hostile.py, which by hand floods with 10,000 of each kind: every kind ends,
no honest file suffers, memory is bounded. What an ack waits is only looked at by hand."""

import hostile

from harness import Skip, limit


@limit(200)
def test_floods(t):
    if t.slow > 1:
        raise Skip("sanitizers make the figures meaningless")
    hostile.LEAST_S = 1
    hostile.run(t, 300, quiet_s=0.5, memory_mib=256)
