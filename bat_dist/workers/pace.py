"""How fast a job goes, and how a person at the terminal sees it."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from bat_dist.storage.status import duration
from bat_dist.workers.running import Running

LOG_INTERVAL = 30.0  # seconds between progress lines where there is no terminal

Ask = Callable[[], Iterable[Running]]


class Listener(Protocol):
    """Who is told of a job's progress."""

    def watch(self, running: Ask, /) -> None:
        """From now on ask this for what is running."""

    def step(self, *, failed: int, by: int = 1, total: int | None = None) -> None:
        """One more outcome (or `by` more), of a `total` that may have changed; so many failed so far."""


class ProgressDisplay:
    """What a person sees of a job: how far it is, and what is at work before the first outcome has come.

    heart: is told the same.
    """

    def __init__(self, what: str, *, total: int, done: int, heart: Listener | None = None):
        self.pace, self._heart = Pace(what, total=total, done=done), heart
        self._failed = 0
        self._running: Ask = tuple
        self._on_step: Callable[[], None] = lambda: None

    def watch(self, running: Ask) -> None:
        """From now on ask this for what is running."""
        self._running = running
        if self._heart:
            self._heart.watch(running)

    def step(self, *, failed: int, by: int = 1, total: int | None = None) -> None:
        """One more outcome (or `by` more), of a `total` that may have changed; so many failed so far."""
        self._failed = failed
        self.pace.step(by, total)
        if self._heart:
            self._heart.step(failed=failed, by=by, total=total)
        self._on_step()

    def describe(self) -> str:
        """The pace once an outcome has come; until then `2 running, the first for 0:01:10`."""
        return self.pace.describe(self._failed) if self.pace.has_begun else at_work(self._running())


def at_work(running: Iterable[Running]) -> str:
    """How many are at work, and how long the first has been."""
    seconds = [now.seconds for now in running]
    return f"{len(seconds)} running, the first for {duration(max(seconds))}" if seconds else "starting workers"


@contextmanager
def progress(what: str, *, total: int, done: int, heart: Listener | None = None) -> Iterator[ProgressDisplay]:
    """Progress with units per hour and the time left: a bar in a terminal, otherwise a line now and then."""
    shown = ProgressDisplay(what, total=total, done=done, heart=heart)
    with _bar(shown) if sys.stderr.isatty() else _lines(shown):
        yield shown


@contextmanager
def _bar(shown: ProgressDisplay) -> Iterator[None]:
    pace = shown.pace
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Description(shown))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(pace.what, total=pace.total, completed=pace.finished)
        shown._on_step = lambda: bar.update(task, completed=pace.finished, total=pace.total)
        yield


class _Description(ProgressColumn):
    """Asked anew with every picture, so that time goes on while no outcome comes."""

    max_refresh = 0.5

    def __init__(self, shown: ProgressDisplay):
        super().__init__()
        self._shown = shown

    def render(self, task: Task) -> Text:
        return Text(self._shown.describe())


@contextmanager
def _lines(shown: ProgressDisplay) -> Iterator[None]:
    console, pace, ended = Console(stderr=True), shown.pace, threading.Event()

    def say() -> None:
        console.print(f"{pace.what} {pace.finished:,}/{pace.total:,}, {shown.describe()}", highlight=False)

    def repeat() -> None:
        while not ended.wait(LOG_INTERVAL):
            say()

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
        if pace.has_begun:
            say()
    finally:
        ended.set()
        thread.join()


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
    def has_begun(self) -> bool:
        """Has an outcome come?"""
        return self.finished > self._at_start

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
