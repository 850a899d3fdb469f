"""Waiting for what must come, with a limit: tests that count on a machine's speed fail on another machine."""

import time
from collections.abc import Callable
from typing import Any


def until(there: Callable[[], Any], *, seconds: float = 60) -> None:
    """Return once it is true; AssertionError if that takes longer."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"not true within {seconds:g} s"
        time.sleep(0.02)
