"""How fast a job goes, and how a person at the terminal sees it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bat_dist.storage.status import duration

LOG_INTERVAL = 30.0  # seconds between progress lines where there is no terminal


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

    @property
    def seconds_left(self) -> float | None:
        """Until all are finished, at this pace; None before the first."""
        rate = self.per_hour
        return 3600 * (self.total - self.finished) / rate if rate else None

    def describe(self, num_failed: int) -> str:
        """E.g. `142 trials/h, 0:26:35 left, 2 failed`."""
        failed = f", {num_failed} failed" if num_failed else ""
        return f"{self.per_hour:,.0f} {self.what}/h, {duration(self.seconds_left or 0)} left{failed}"
