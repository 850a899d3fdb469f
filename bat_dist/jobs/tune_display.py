"""How a person at the terminal sees a sweep go on: a table in a terminal, otherwise a line for each run that ends."""

import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bat_dist.settings.tune import TuneSettings
from bat_dist.sweep.record import RunOutcome, SweepRun
from bat_dist.sweep.results import Results, summarize
from bat_dist.sweep.space import point_name
from bat_dist.workers.pace import Pace

MOST_ROWS = 30  # points in the table; more would run off the screen
_STATES = {
    "done": "done",
    "stopped": "stopped",
    "failed": "FAILED",
    "diverged": "DIVERGED",
    "waiting": "",
    "unfinished": "",
}


class Display:
    """A context: `epoch` and `ended` tell it what happens.  known: runs that are not run now."""

    def __init__(self, settings: TuneSettings, pace: Pace, known: Iterable[RunOutcome]) -> None:
        self._settings = settings
        self._outcomes = {outcome.run: outcome for outcome in known}
        self._results = self._summary()
        self._at_work: dict[SweepRun, Mapping[str, Any]] = {}
        self._pace = pace
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=1) if sys.stderr.isatty() else None

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
            self._live.update(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def epoch(self, run: SweepRun, row: Mapping[str, Any]) -> None:
        """A run has finished an epoch."""
        self._at_work[run] = row

    def ended(self, outcome: RunOutcome) -> None:
        """A run has come to an end, or was stopped on its way."""
        self._at_work.pop(outcome.run, None)
        self._outcomes[outcome.run] = outcome
        self._results = self._summary()  # not at each redraw, of which there is one a second
        if self._live:
            return
        row = outcome.best or outcome.last or {}
        numbers = ", ".join(f"{name} {row[name]:.1%}" for name in ("val_clean", "val_pgd") if row.get(name) is not None)
        said = outcome.reason or numbers
        line = (
            f"{self._pace.finished}/{self._pace.total} {outcome.run}: {outcome.state}, {said}; {self._pace.describe()}"
        )
        self._console.print(Text(line), soft_wrap=True)

    def _summary(self) -> Results:
        return summarize(list(self._outcomes.values()), metric=self._settings.metric, which=self._settings.which)

    def __rich__(self) -> Group:
        """The points at work and the best that have ended, drawn anew each second: time goes on while no run ends."""
        metric = self._settings.metric[0]
        results = self._results
        ranked = sorted(results.points, key=lambda p: -p.mean(metric) if p.values else 0.0)
        table = Table("point", "seeds", "validation clean", "PGD", "", box=None, header_style="bold", pad_edge=False)
        for run, row in list(self._at_work.items()):
            table.add_row(point_name(run.point), f"seed {run.seed}", *_cells(row), f"epoch {row['epoch']}")
        shown = ranked[: max(0, MOST_ROWS - table.row_count)]
        for point in shown:
            states = sorted({_STATES[outcome.state] for outcome in point.outcomes})
            means = {name: point.mean(name) for name in point.values}
            mark = " (chosen so far)" * (point.name in results.chosen)
            table.add_row(Text(point.name), str(len(point.outcomes)), *_cells(means), Text(", ".join(states) + mark))
        hidden = len(ranked) - len(shown)
        more = [Text(f"... and {hidden} more")] if hidden > 0 else []
        head = Text(f"runs {self._pace.finished}/{self._pace.total}, {self._pace.describe()}")
        return Group(table, *more, head)


def _cells(row: Mapping[str, Any]) -> list[str]:
    found = [row.get(name) for name in ("val_clean", "val_pgd")]
    return [f"{value:.1%}" if value is not None else "" for value in found]
