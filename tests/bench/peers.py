"""Other servers under the same bytes."""

CASES = {}
