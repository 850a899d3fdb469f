"""Filling a row store by Ray: the driver hands out the missing rows and is the only writer."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bat_dist.storage.computed_on import HardwareLog
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from bat_dist.storage.status import failure_name
from bat_dist.storage.unit_log import append_log, log_name
from bat_dist.wording import counted, one_of
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.pace import progress
from bat_dist.workers.pool import Done, Failed, Work, run_units
from bat_dist.workers.resources import Resources

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filled:
    """What `fill_rows` did: rows found sound, computed now, and failed (number -> reason)."""

    kept: int
    computed: int
    damaged: tuple[int, ...]
    failed: dict[int, str]
    seconds: float


def fill_rows(
    store: RowStore,
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
    expected_source: str | None = None,
    first: int = 0,
) -> Filled:
    """Compute the `num_rows` rows from `first` on that `store` lacks; damaged rows are computed again.

    A row that fails is noted with its reason in the result folder's `failed/`, and the others go on; a later call tries
    it again.  What happened to each row is added to its file in `logs/`, and there too (`HardwareLog`) what the rows
    were computed on.  Raises as `run_units`.
    """
    status = store.status()
    wanted = range(first, first + num_rows)
    missing = [row for row in wanted if not status.complete[row]]
    damaged = tuple(row for row in status.damaged if row in wanted)
    if damaged:
        log.warning("%s %s damaged in the store: computing again", what, ", ".join(map(str, damaged)))
    start, failed = time.monotonic(), {}
    kept = num_rows - len(missing)
    hardware = HardwareLog(folder, what)
    pace = heart.begin(done=kept)
    with progress(pace):
        outcomes = run_units(
            missing,
            build,
            args,
            resources=resources,
            what=what,
            num_workers=num_workers,
            give_up_on=give_up_on,
            expected_source=expected_source,
            watch=pace.watch,
        )
        for outcome in outcomes:
            row = outcome.unit
            if isinstance(outcome, Failed):
                failed[row] = outcome.reason
            else:
                hardware.note(outcome.records)
                store.write(row, outcome.row)
            note_outcome(folder, what, row, outcome)
            pace.step(failed=len(failed))
    return Filled(kept, len(missing) - len(failed), damaged, failed, time.monotonic() - start)


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
