"""Filling a row store by Ray: the driver hands out the missing rows and is the only writer."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bat_dist.orchestration.pool import Failed, Resources, Work, run_units
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from bat_dist.storage.status import failure_name

log = logging.getLogger(__name__)
LOG_INTERVAL = 30.0  # seconds between progress lines where there is no terminal


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
) -> Filled:
    """Compute every row below `num_rows` that `store` lacks; damaged rows are computed again.

    A row that fails is noted with its reason in the result folder's `failed/`, and the others go on; a later call tries
    it again.  Raises as `run_units`.
    """
    status = store.status()
    missing = [row for row in range(num_rows) if not status.complete[row]]
    damaged = tuple(row for row in status.damaged if row < num_rows)
    if damaged:
        log.warning("%s %s damaged in the store: computing again", what, ", ".join(map(str, damaged)))
    start, failed = time.monotonic(), {}
    kept = num_rows - len(missing)
    with progress(what, total=num_rows, done=kept) as tick:
        for outcome in run_units(
            missing, build, args, resources=resources, num_workers=num_workers, give_up_on=give_up_on
        ):
            if isinstance(outcome, Failed):
                failed[outcome.unit] = outcome.reason
                note_failure(folder, what, outcome.unit, outcome)
            else:
                store.write(outcome.unit, outcome.row)
                folder.remove(failure_name(what, outcome.unit))
            tick(len(failed))
    return Filled(kept, len(missing) - len(failed), damaged, failed, time.monotonic() - start)


def conclude(filled: Filled, what: str) -> int:
    """The exit code, 1 if some rows failed; then the reasons go to stderr with the way on."""
    if not filled.failed:
        return 0
    for row, reason in sorted(filled.failed.items()):
        print(f"{what} {row} failed: {reason}", file=sys.stderr)
    print(
        f"{len(filled.failed)} {what} failed; the same command tries them again and keeps the others",
        file=sys.stderr,
    )
    return 1


def note_failure(folder: Folder, what: str, row: int, outcome: Failed) -> None:
    """Write down in the result folder's `failed/` why a row was given up."""
    note = {"row": row, "reason": outcome.reason, "attempts": outcome.attempts}
    folder.write_json(failure_name(what, row), note)
    log.error("%s %d failed after %d attempt(s): %s", what, row, outcome.attempts, outcome.reason)


class Tick(Protocol):
    """Called after each outcome with the number of failures so far."""

    def __call__(self, num_failed: int, *, by: int = 1, total: int | None = None) -> None:
        """Count one more outcome (or `by` more), of a `total` that may have changed, and show it."""
        ...


@contextmanager
def progress(what: str, *, total: int, done: int) -> Iterator[Tick]:
    """Progress with units per hour and the time left: a bar in a terminal, otherwise a line now and then."""
    pace = Pace(what, total=total, done=done)
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        last = time.monotonic()

        def tick(num_failed: int, *, by: int = 1, total: int | None = None) -> None:
            nonlocal last
            pace.step(by, total)
            ended = total is None and pace.finished == pace.total  # one that changes may reach its end many times
            if time.monotonic() - last >= LOG_INTERVAL or ended:
                last = time.monotonic()
                console.print(f"{what} {pace.finished:,}/{pace.total:,}, {pace.describe(num_failed)}", highlight=False)

        yield tick
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, completed=done, pace="starting workers")

        def tick(num_failed: int, *, by: int = 1, total: int | None = None) -> None:
            pace.step(by, total)
            bar.update(task, completed=pace.finished, total=pace.total, pace=pace.describe(num_failed))

        yield tick


class Pace:
    """How fast outcomes arrive.  Those that were there at the start do not count."""

    def __init__(self, what: str, *, total: int, done: int, clock: Callable[[], float] = time.monotonic):
        self.what, self.total, self.finished = what, total, done
        self._clock = clock
        self._start, self._at_start = clock(), done

    def step(self, by: int = 1, total: int | None = None) -> None:
        """One more is finished, or `by` more."""
        self.finished += by
        self.total = self.total if total is None else total

    @property
    def per_hour(self) -> float:
        """Outcomes per hour since the start."""
        elapsed = max(self._clock() - self._start, 1e-9)
        return 3600 * (self.finished - self._at_start) / elapsed

    def describe(self, num_failed: int) -> str:
        """E.g. `142 trials/h, 0:26:35 left, 2 failed`."""
        rate = self.per_hour
        left = round(3600 * (self.total - self.finished) / rate) if rate else 0
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        failed = f", {num_failed} failed" if num_failed else ""
        return f"{rate:,.0f} {self.what}/h, {clock} left{failed}"
