"""TPE's proposals: the points that a sweep takes next."""

from collections.abc import Mapping

from bat_dist.config import to_dict
from bat_dist.jobs.tune_plan import Sweep
from bat_dist.sweep.proposals import Proposals
from bat_dist.sweep.record import ENDED, RunOutcome, SweepRun
from bat_dist.sweep.results import goal_values
from bat_dist.sweep.space import Point


class PointProposer:
    """TPE between the queue and the record: a proposed point is on record before any of its runs begins."""

    def __init__(self, sweep: Sweep, known: Mapping[SweepRun, RunOutcome]) -> None:
        self._sweep, self._outcomes = sweep, dict(known)
        settings = sweep.settings
        seed = settings.search_seed + len(sweep.record.points)
        self._proposals = Proposals(settings.dimensions, num_goals=len(settings.metric), seed=seed)
        for point in sweep.points():
            if self._is_ended(point):
                self._proposals.know(point, self._values(point))
            else:
                self._proposals.begun(point)

    def more(self) -> list[SweepRun]:
        """The runs of another point, as long as there are to be more."""
        settings, record = self._sweep.settings, self._sweep.record
        if not self._sweep.num_wanted():
            return []
        point = self._proposals.propose(record.points)
        if point is None:
            return []
        full = {**{n: settings.base_values[n] for n in ("alpha", "beta") if settings.is_bat}, **point}
        record.add([full], to_dict(settings), proposed=True)
        return [SweepRun(full, seed) for seed in settings.seeds]

    def ended(self, outcome: RunOutcome) -> None:
        """Tell the model once the last seed of a point has ended."""
        self._outcomes[outcome.run] = outcome
        if self._is_ended(outcome.run.point):
            self._proposals.ended(outcome.run.point, self._values(outcome.run.point))

    def _of(self, point: Point) -> list[RunOutcome | None]:
        return [self._outcomes.get(SweepRun(point, seed)) for seed in self._sweep.settings.seeds]

    def _is_ended(self, point: Point) -> bool:
        return all(outcome is not None and outcome.state in ENDED for outcome in self._of(point))

    def _values(self, point: Point) -> list[float] | None:
        settings = self._sweep.settings
        return goal_values([o for o in self._of(point) if o], settings.metric, settings.which)
