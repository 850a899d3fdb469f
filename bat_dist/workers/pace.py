"""How far a job is, how fast it goes, and how a person at the terminal sees it."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from bat_dist.storage.status import duration
from bat_dist.workers.running import Running

LOG_INTERVAL = 30.0  # seconds between progress lines where there is no terminal


class Pace:
    """How far a job is, how fast outcomes arrive, and what is at work.

    what: the units are called.  done: those that were there at the start, which say nothing of the speed.
    """

    def __init__(self, what: str, *, total: int, done: int, clock: Callable[[], float] = time.monotonic):
        self.what, self.total, self.finished = what, total, done
        self.failed, self.lost = 0, 0  # outcomes that are failures, and for how much of `finished` they stand
        self.running: Callable[[], Iterable[Running]] = tuple
        self.on_step: Callable[[], None] = lambda: None
        self._clock = clock
        self._start, self._at_start = clock(), done

    def watch(self, running: Callable[[], Iterable[Running]]) -> None:
        """From now on this is asked for what is running."""
        self.running = running

    def step(self, *, failed: int, by: int = 1, total: int | None = None) -> None:
        """One more outcome (or `by` more), of a `total` that may have changed; so many failed so far."""
        if failed > self.failed:
            self.lost += by
        self.failed = failed
        self.finished += by
        self.total = self.total if total is None else total
        self.on_step()

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
        """How long it takes until all are finished, at this pace; None before the first."""
        rate = self.per_hour
        return 3600 * (self.total - self.finished) / rate if rate else None

    def describe(self) -> str:
        """`142 trials/h, 0:26:35 left, 2 failed`; before the first outcome `2 running, the first for 0:01:10`."""
        if self.has_begun:
            failed = f", {self.failed} failed" if self.failed else ""
            return f"{self.per_hour:,.0f} {self.what}/h, {duration(self.seconds_left or 0)} left{failed}"
        seconds = [now.seconds for now in self.running()]
        return f"{len(seconds)} running, the first for {duration(max(seconds))}" if seconds else "starting workers"


@contextmanager
def progress(pace: Pace) -> Iterator[None]:
    """Show units per hour and the time left while the block runs: a bar in a terminal, else a line now and then."""
    console, ended = Console(stderr=True), threading.Event()
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Description(pace))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(pace.what, total=pace.total, completed=pace.finished)
            pace.on_step = lambda: bar.update(task, completed=pace.finished, total=pace.total)
            yield
        return

    def say() -> None:
        console.print(f"{pace.what} {pace.finished:,}/{pace.total:,}, {pace.describe()}", highlight=False)

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


class _Description(ProgressColumn):
    """Asked anew with every picture, so that time goes on while no outcome comes."""

    max_refresh = 0.5

    def __init__(self, pace: Pace):
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        return Text(self._pace.describe())
