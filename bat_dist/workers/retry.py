"""Which units of work are tried again, and when a job in which everything fails is to stop.  Imports no ray."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bat_dist.storage.unit_log import Record

MAX_ATTEMPTS = 3
MAX_LOSSES = 30  # of a unit through lost machines, which is not the unit's fault
FAIL_ALIKE = 4  # units that fail for one kind of reason before any is done: the others would fail as well


@dataclass
class UnitHistory:
    """What is known of a unit that is not settled, and came back at least once."""

    attempts: int = 0  # that failed
    losses: int = 0
    reason: str = ""  # of the last attempt
    records: list[Record] = field(default_factory=list)


class RetryPolicy:
    """Decides after each failure whether the unit is tried again, and whether the job should go on at all.

    smaller: makes of a unit whose process died, mostly for want of memory, what is tried in its place.
    """

    def __init__(self, smaller: Callable[[Any], Any] | None = None) -> None:
        self.histories: dict[Any, UnitHistory] = {}  # of units that came back and are not settled
        self.last_reason = ""
        self._smaller = smaller
        self._any_done = False
        self._failures: Counter[tuple[str, str]] = Counter()  # before any is done: by host and kind of reason

    @property
    def num_failures(self) -> int:
        """How many attempts failed before any unit was done."""
        return self._failures.total()

    def history(self, unit: Any) -> UnitHistory:
        """The history of a unit that has come back, to be added to."""
        return self.histories.setdefault(unit, UnitHistory())

    def next_attempt(self, unit: Any) -> int:
        """The number of the unit's next attempt, counted from 1; those that a lost machine ended do not count."""
        return 1 + (self.histories[unit].attempts if unit in self.histories else 0)

    def done(self, unit: Any) -> UnitHistory:
        """The unit is done, and its history is forgotten here."""
        self._any_done = True
        return self.histories.pop(unit)

    def failed(self, unit: Any, reason: str, *, hopeless: bool = False, died: bool = False) -> tuple[Any, UnitHistory]:
        """Count a failed attempt; returns the unit to try next, or None if it is given up, and its history.

        hopeless: another attempt would end alike.  died: the process died in it.
        """
        history = self.histories.pop(unit, UnitHistory())
        history.attempts, history.reason = history.attempts + 1, reason
        if hopeless or history.attempts >= MAX_ATTEMPTS:
            return None, history
        again = self._smaller(unit) if died and self._smaller else unit
        self.histories[again] = history
        return again, history

    def forgives_loss(self, unit: Any) -> bool:
        """Count the loss of the unit's machine; True if that is not held against the unit, as the first MAX_LOSSES."""
        history = self.history(unit)
        if history.losses >= MAX_LOSSES:
            return False
        history.losses += 1
        return True

    def count_failure(self, host: str, reason: str) -> None:
        """A unit has failed there, and not because of its GPU or machine."""
        if not self._any_done:
            self._failures[host, reason.partition(":")[0]] += 1
            self.last_reason = reason

    def all_fail_alike(self, at_work: set[str], waiting: Iterable[Any]) -> bool:
        """Whether nothing but failures of one kind came from every host at work, and more would follow.

        waiting: the units in the queue; without one that was not tried yet nothing is gained by stopping.
        """
        return (
            not self._any_done
            and self.num_failures >= FAIL_ALIKE
            and len({kind for _, kind in self._failures}) == 1
            and at_work <= {host for host, _ in self._failures}
            and any(unit not in self.histories for unit in waiting)
        )
