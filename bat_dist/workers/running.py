"""Workers and the units that they have at work.  Imports no ray, so that a training without workers can tell it too."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bat_dist.storage.unit_log import Record


class WorkerPlace(NamedTuple):
    """Where a worker is.  gpus: those it was given, as Ray names them; empty without."""

    node_id: str
    host: str
    pid: int
    gpus: str = ""


UNKNOWN_PLACE = WorkerPlace("", "", 0)


@dataclass(frozen=True)
class Assignment:
    """A unit in a worker's hands.  started: the record of it, for the case that the worker never answers."""

    unit: Any
    attempt: int
    started: Record
    since: float = field(default_factory=time.perf_counter)


@dataclass
class WorkerSlot:
    """The driver's view of one worker: `assignment` is None while it is being set up, or idle.

    since: when it was ready for its first unit, of time.monotonic.
    """

    actor: Any
    assignment: Assignment | None = None
    place: WorkerPlace = UNKNOWN_PLACE
    since: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """What `share` calls the worker: its actor's id."""
        return self.actor._actor_id.hex()


class Running(NamedTuple):
    """A unit at work, where, since how many seconds, and which share of it is done, as far as its worker has told."""

    unit: Any
    host: str
    pid: int
    seconds: float
    share: float = 0.0


def seconds_since(start: float) -> float:
    """The seconds since a time of `time.perf_counter`, to the millisecond."""
    return round(time.perf_counter() - start, 3)
