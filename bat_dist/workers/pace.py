"""How far a job is, how fast it goes, and how a person at the terminal sees it."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from bat_dist.storage.status import duration
from bat_dist.workers.running import Running

FIRST_LOG, LAST_LOG = 5.0, 600.0  # seconds before the first progress line where there is no terminal, and between two
ENOUGH = 0.005  # of a unit must be done before it says how long the rest will take
BAR_WIDTH = 40  # characters


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
        self._is_at_work = False

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
    def done(self) -> float:
        """What is finished, with the shares of what is running."""
        return self._done(list(self.running()))

    @property
    def per_hour(self) -> float:
        """Outcomes per hour since work began, shares of what is running counted."""
        return self._per_hour(self.done)

    @property
    def seconds_left(self) -> float | None:
        """How long it takes until all are finished, at this pace; None as long as there is none."""
        return self._seconds_left(self.done)

    def describe(self) -> str:
        """`142 trials/h, 0:26:35 left, 2 failed`; before the first outcome also what is running, and how far it is."""
        running = list(self.running())
        done, parts = self._done(running), []
        if running and not self.has_begun:
            longest, share = max(now.seconds for now in running), max(now.share for now in running)
            parts.append(
                f"{len(running)} running, the first for {duration(longest)}" + f", {share:.0%} done" * (share > 0)
            )
        if (left := self._seconds_left(done)) is not None:
            rate = self._per_hour(done)
            parts.append(f"{rate:,.0f} {self.what}/h" if rate >= 10 else f"{rate:.2g} {self.what}/h")
            parts.append(f"{duration(left)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join(parts) or "starting workers"

    def _done(self, running: list[Running]) -> float:
        if running and not self._is_at_work:  # the start of the workers says nothing of the speed
            self._is_at_work = True
            if not self.has_begun:
                self._start = max(self._start, self._clock() - max(now.seconds for now in running))
        return min(self.finished + sum(now.share for now in running), self.total)

    def _per_hour(self, done: float) -> float:
        new = done - self._at_start
        return 3600 * new / max(self._clock() - self._start, 1e-9) if new >= ENOUGH else 0.0

    def _seconds_left(self, done: float) -> float | None:
        rate = self._per_hour(done)
        return 3600 * (self.total - done) / rate if rate else None


@contextmanager
def progress(pace: Pace) -> Iterator[None]:
    """Show units per hour and the time left while the block runs: a bar in a terminal, else a line now and then."""
    console, ended = Console(stderr=True), threading.Event()
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), _Bar(pace), MofNCompleteColumn(), _Description(pace))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(pace.what, total=pace.total, completed=pace.finished)
            pace.on_step = lambda: bar.update(task, completed=pace.finished, total=pace.total)
            yield
        return

    def say() -> None:
        console.print(
            f"{pace.what} {pace.finished:,}/{pace.total:,}, {pace.describe()}", highlight=False, soft_wrap=True
        )

    def repeat() -> None:
        waited = FIRST_LOG
        while not ended.wait(waited):
            say()
            waited = min(1.5 * waited, LAST_LOG)

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
        if pace.has_begun:
            say()
    finally:
        ended.set()
        thread.join()


class _OfPace(ProgressColumn):
    """Asked anew with every picture, so that time goes on while no outcome comes."""

    max_refresh = 0.5

    def __init__(self, pace: Pace):
        super().__init__()
        self._pace = pace


class _Bar(_OfPace):
    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(total=self._pace.total, completed=self._pace.done, width=BAR_WIDTH)


class _Description(_OfPace):
    def render(self, task: Task) -> Text:
        return Text(self._pace.describe())
