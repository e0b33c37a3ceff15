"""A little of fault/: sigterm.py, disk.py, alloc.py, guest.py. By hand they run hundreds (make fault)."""

import alloc
import disk
import guest
import sigterm

from harness import Skip, cases, limit


@limit(120)
@cases(level=["crash", "power"])
def test_sigterm(t, level):
    print(sigterm.run(t, 8, 1, f"durability={level}"))


@limit(90)
@cases(case=list(disk.CASES))
def test_disk(t, case):
    print(disk.CASES[case](t))


@limit(120)
def test_allocations_at_start(t):
    if t.is_sanitized:
        raise Skip("sanitizers allocate by themselves")
    print(alloc.run(t, 9))


@limit(300)
@cases(level=["crash", "power"])
def test_machine_crashes(t, level):
    print(guest.run(t, 2, 1, level))


@limit(200)
@cases(case=list(guest.CASES))
def test_in_a_guest(t, case):
    print(guest.CASES[case](t, "power"))
