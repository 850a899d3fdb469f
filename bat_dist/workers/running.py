"""What is at work now.  Imports no ray, so that a training without workers can tell it too."""

from typing import Any, NamedTuple


class Running(NamedTuple):
    """A unit at work, where, and since how many seconds."""

    unit: Any
    host: str
    pid: int
    seconds: float
