"""What a sweep has found: each point's validation accuracies over its seeds, and which point is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bat_dist.sweep.record import ENDED, RunOutcome
from bat_dist.sweep.space import Point, is_reference, point_name
from bat_dist.sweep.statistics import PointComparison, Spread, against_reference, pareto_front, pooled_spread

VALIDATION = "val_"  # what names of accuracies in a history begin with


@dataclass(frozen=True)
class PointResult:
    """A point and its runs.  values: for each accuracy one value per seed; empty unless all seeds are done."""

    point: Point
    outcomes: list[RunOutcome]
    values: dict[str, list[float]]

    @property
    def name(self) -> str:
        """`alpha=1,beta=0.2`."""
        return point_name(self.point)

    def mean(self, metric: str) -> float:
        """The mean over seeds; NaN unless all of them are done."""
        return float(np.mean(self.values[metric])) if self.values.get(metric) else float("nan")


@dataclass(frozen=True)
class Results:
    """All points, and what can be said of them.  Choices are made on the validation split alone.

    chosen: by name; one, or the Pareto front where there are two metrics. spreads: of each accuracy over seeds.
    reference: the name of PGD-AT's point, if it is done. groups: the values of each done point, by accuracy and point.
    """

    points: list[PointResult]
    metric: tuple[str, ...]
    which: str
    chosen: list[str]
    reference: str | None
    spreads: dict[str, Spread]
    groups: dict[str, dict[str, list[float]]]

    @cached_property
    def against(self) -> dict[str, dict[str, PointComparison]]:
        """For each accuracy the points against the reference; of many points that takes seconds."""
        if self.reference is None:
            return {}
        return {name: against_reference(group, self.reference) for name, group in self.groups.items()}

    @property
    def metrics(self) -> list[str]:
        """Accuracies that the runs have, in their order."""
        return list(dict.fromkeys(name for point in self.points for name in point.values))

    @property
    def outcomes(self) -> list[RunOutcome]:
        """The outcomes of all runs."""
        return [outcome for point in self.points for outcome in point.outcomes]

    @property
    def is_complete(self) -> bool:
        """Whether every run has come to an end, good or bad."""
        return all(outcome.state in ENDED for outcome in self.outcomes)

    def __getitem__(self, name: str) -> PointResult:
        return next(point for point in self.points if point.name == name)


def summarize(outcomes: Sequence[RunOutcome], *, metric: tuple[str, ...], which: str) -> Results:
    """Put runs together by point, and choose.

    Only points whose seeds are all done can be chosen: one of which the worse seed failed would look too good.
    """
    by_point: dict[str, list[RunOutcome]] = {}
    for outcome in outcomes:
        by_point.setdefault(point_name(outcome.run.point), []).append(outcome)
    points = [PointResult(group[0].run.point, group, _values(group, which)) for group in by_point.values()]
    done = [point for point in points if all(name in point.values for name in metric)]
    names = list(dict.fromkeys(name for point in done for name in point.values))
    groups = {name: {point.name: point.values[name] for point in done if name in point.values} for name in names}
    # Where other settings vary too, PGD-AT has several points: the best of them.
    references = [point for point in done if is_reference(point.point)]
    reference = max(references, key=lambda point: point.mean(metric[0])).name if references else None
    return Results(
        points,
        metric,
        which,
        chosen=_choose(done, metric),
        reference=reference,
        spreads={name: pooled_spread(list(group.values())) for name, group in groups.items()},
        groups=groups,
    )


def goal_values(outcomes: Sequence[RunOutcome], metrics: Sequence[str], which: str) -> list[float] | None:
    """Means over a point's seeds, those that were stopped counting as far as they came; None if one has no value."""
    found = []
    for metric in metrics:
        values = [outcome.row(which).get(metric) for outcome in outcomes]
        if any(value is None for value in values) or any(o.state in ("failed", "diverged") for o in outcomes):
            return None
        found.append(float(np.mean([value for value in values if value is not None])))
    return found


def table(results: Results) -> list[dict[str, object]]:
    """A row for each run: the point, the seed, what became of it, and both checkpoints' accuracies."""
    names = list(dict.fromkeys(name for point in results.points for name in point.point))
    metrics = list(
        dict.fromkeys(
            m for o in results.outcomes for row in (o.best, o.last) if row for m in row if m.startswith(VALIDATION)
        )
    )
    rows = []
    for outcome in results.outcomes:
        row: dict[str, object] = {"point": point_name(outcome.run.point)}
        row |= {name: outcome.run.point.get(name) for name in names}
        row |= {"seed": outcome.run.seed, "state": outcome.state, "reason": outcome.reason, "epochs": outcome.epochs}
        row["best_epoch"] = outcome.best["epoch"] if outcome.best else None
        for which, found in (("best", outcome.best or {}), ("last", outcome.last or {})):
            row |= {f"{which}_{metric}": found.get(metric) for metric in metrics}
        rows.append({**row, "seconds": round(outcome.seconds, 1), "folder": outcome.run.name})
    return rows


def summary_table(results: Results) -> list[dict[str, object]]:
    """A row for each point: means over seeds, standard errors from the pooled spread, differences to PGD-AT."""
    names = list(dict.fromkeys(name for point in results.points for name in point.point))
    rows = []
    for point in results.points:
        states = [outcome.state for outcome in point.outcomes]
        row: dict[str, object] = {"point": point.name, **{name: point.point.get(name) for name in names}}
        row |= {"seeds": len(states), "done": states.count("done"), "chosen": point.name in results.chosen}
        for metric in results.metrics:
            row[metric] = point.mean(metric)
            row[f"{metric}_se"] = results.spreads[metric].standard_error(len(states)) if point.values else float("nan")
            if found := results.against.get(metric, {}).get(point.name):
                row |= {f"{metric}_{key}": value for key, value in found._asdict().items()}
        rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def _values(group: Sequence[RunOutcome], which: str) -> dict[str, list[float]]:
    rows = [outcome.row(which) for outcome in group]
    if any(outcome.state != "done" for outcome in group):
        return {}
    names = [name for name in rows[0] if name.startswith(VALIDATION)]
    return {name: [row[name] for row in rows] for name in names if all(row.get(name) is not None for row in rows)}


def _choose(done: Sequence[PointResult], metric: tuple[str, ...]) -> list[str]:
    if not done:
        return []
    means = np.array([[point.mean(name) for name in metric] for point in done])
    if len(metric) == 1:
        return [done[int(means[:, 0].argmax())].name]
    return [point.name for point, on_front in zip(done, pareto_front(means), strict=True) if on_front]
