"""Waiting for a condition with a deadline."""

import time

POLL_SECONDS = 0.1
DEADLINE_SECONDS = 60


def until(what: str, check):
    """Calls `check` until it returns something true, and returns that."""
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        if seen := check():
            return seen
        assert time.monotonic() < end, f"{what}: not within {DEADLINE_SECONDS} s"
        time.sleep(POLL_SECONDS)
