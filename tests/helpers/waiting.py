"""Waiting for what must come, with a limit: tests that count on a machine's speed fail on another machine."""

import time
from collections.abc import Callable

PATIENCE = 900.0  # seconds for what must come: far more than any machine needs, and less than the limit of a test
# Times to try what Chromium is to keep over a reload: on two cores with ten busy processes it forgot 8 of 180 times.
CHROMIUM_FORGETS = 5


def until(
    there: Callable[[], object], *, seconds: float = PATIENCE, what: str = "sign of it", every: float = 0.1
) -> float:
    """Seconds until it is so.  Raises AssertionError after so many."""
    start = time.monotonic()
    while not there():
        assert time.monotonic() - start < seconds, f"no {what} within {seconds:g} s"
        time.sleep(every)
    return time.monotonic() - start
