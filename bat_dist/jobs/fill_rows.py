"""Filling a row store by Ray: the driver hands out the missing rows and is the only writer."""

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bat_dist.jobs.until_enough import UntilEnough
from bat_dist.memorization.stopping import OrderedTrials
from bat_dist.storage.computed_on import HardwareLog
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStatus
from bat_dist.storage.status import failure_name
from bat_dist.storage.unit_log import append_log, log_name
from bat_dist.wording import counted, one_of
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.pace import progress
from bat_dist.workers.pool import run_units
from bat_dist.workers.resources import Resources
from bat_dist.workers.terms import PRIVATE_RAY, ClusterTerms
from bat_dist.workers.units import Done, Failed, Work

log = logging.getLogger(__name__)


class Rows(Protocol):
    """What `fill_rows` fills: a `RowStore`, or other files that know which of them are there and sound."""

    def status(self) -> RowStatus:
        """Check every row."""
        ...

    def write(self, row: int, values: Mapping[str, Any]) -> None:
        """Write one whole row."""
        ...


@dataclass(frozen=True)
class Filled:
    """What `fill_rows` did: rows found sound, computed now, and failed (number -> reason).

    enough: which trials count, and what they say, if a rule decided how many are needed.
    """

    kept: int
    computed: int
    damaged: tuple[int, ...]
    failed: dict[int, str]
    seconds: float
    enough: OrderedTrials | None = None


def fill_rows(
    store: Rows,
    folder: Folder,
    num_rows: int,
    build: Callable[..., Work],
    args: Sequence[Any],
    *,
    what: str,
    resources: Resources,
    num_workers: int | None,
    give_up_on: tuple[type[Exception], ...],
    heart: Heartbeat,
    terms: ClusterTerms = PRIVATE_RAY,
    first: int = 0,
    until: UntilEnough | None = None,
) -> Filled:
    """Compute the `num_rows` rows from `first` on that `store` lacks; damaged rows are computed again.

    A row that fails is noted with its reason in the result folder's `failed/`, and the others go on; a later call tries
    it again.  What happened to each row is added to its file in `logs/`, and there too (`HardwareLog`) what the rows
    were computed on.  until: begun with the store, is told of each row, and ends the work when there are enough; what
    is finished beyond stays in the store, and what is at work is given up.  Raises as `run_units`.
    """
    status = store.status()
    wanted = range(first, first + num_rows)
    missing = [row for row in wanted if not status.complete[row]]
    damaged = tuple(row for row in status.damaged if row in wanted)
    if damaged:
        log.warning("%s %s damaged in the store: computing again", what, ", ".join(map(str, damaged)))
    start, failed, kept = time.monotonic(), {}, num_rows - len(missing)
    hardware, pace = HardwareLog(folder, what), heart.begin(done=kept)
    with progress(pace):
        outcomes = run_units(
            [] if until and until.is_over else missing,
            build,
            args,
            resources=resources,
            what=what,
            num_workers=num_workers,
            give_up_on=give_up_on,
            terms=terms,
            watch=pace.watch,
            in_order=until is not None,
        )
        for outcome in outcomes:
            row = outcome.unit
            if isinstance(outcome, Failed):
                failed[row] = outcome.reason
            else:
                hardware.note(outcome.records)
                store.write(row, outcome.row)
            note_outcome(folder, what, row, outcome)
            is_over = until is not None and until.settled(row, outcome)
            pace.step(failed=len(failed), total=pace.finished + 1 if is_over else None)
            if is_over:
                outcomes.close()
    computed, seconds = pace.finished - kept - len(failed), time.monotonic() - start
    if until:
        failed = {row: reason for row, reason in failed.items() if row in until.trials.given_up}
    return Filled(kept, computed, damaged, failed, seconds, until and until.trials)


def conclude(filled: Filled, what: str) -> int:
    """The exit code, 1 if some rows failed; then the reasons go to stderr with the way on."""
    if not filled.failed:
        return 0
    for row, reason in sorted(filled.failed.items()):
        print(f"{one_of(what)} {row} failed: {reason} (its log: {log_name(what, row)})", file=sys.stderr)
    many = counted(len(filled.failed), one_of(what))
    print(f"{many} failed; the same command tries again and keeps the others", file=sys.stderr)
    return 1


def note_outcome(folder: Folder, what: str, row: int, outcome: Done | Failed) -> None:
    """Write down in the result folder's `failed/` why a row was given up, if so, and in `logs/` what happened to it."""
    if isinstance(outcome, Failed):
        note = {"row": row, "reason": outcome.reason, "attempts": outcome.attempts}
        folder.write_json(failure_name(what, row), note)
        log.error("%s %d failed after %s: %s", one_of(what), row, counted(outcome.attempts, "attempt"), outcome.reason)
    else:
        folder.remove(failure_name(what, row))
    append_log(folder, what, row, outcome.records)
