"""What a sweep will be, checked before anything is written: its points, its scores, and its folder."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bat_dist.config import plain, to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.jobs.auto import Chosen, as_begun, left_to_us, without_auto
from bat_dist.jobs.fresh import check_alone
from bat_dist.jobs.own_parts import method_of, network_of
from bat_dist.jobs.training_plan import TrainingPlan, make_plan, scores_of
from bat_dist.jobs.tune_run import run_settings, score_key
from bat_dist.parts import is_reference
from bat_dist.settings.decides import identity_values
from bat_dist.settings.fields import ARCH_OF_TRAINING
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import OF_SCORES, TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import RunOutcome, SweepRecord, SweepRun, begun_identity, read_run_outcomes
from bat_dist.sweep.space import Point, grid, point_name, without_repetition
from bat_dist.training.score_file import TrainingScores
from bat_dist.wording import counted

VERB = "tune"


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked: its settings and data, its record, and the scores that its runs take."""

    settings: TuneSettings
    dataset: Dataset
    record: SweepRecord
    scores: Mapping[Any, TrainingScores | None]
    num_val: int  # samples of the validation split
    chosen: Chosen

    @property
    def example(self) -> TrainSettings:
        """The settings of one run, for what is the same in all."""
        return self.settings.example

    @property
    def about(self) -> Mapping[str, Any]:
        """What a report says of it."""
        names = ("dataset", "arch", "method")
        shared = {name: plain(getattr(self.example, name)) for name in names if name not in self.settings.space}
        many = dict.fromkeys((name for name in names if name in self.settings.space), "several")
        return {
            **shared,
            **many,
            "dataset": self.dataset.name,
            "num_val": self.num_val,
            "settings": to_dict(self.settings),
        }

    @property
    def folder(self) -> Folder:
        """Where it is kept."""
        return self.record.folder

    def runs(self) -> list[SweepRun]:
        """All that the settings ask for, as far as points are known; seed by seed, so that all points come early."""
        return [SweepRun(point, seed) for seed in self.settings.seeds for point in self.points()]

    def points(self) -> list[Point]:
        """The points of the settings; with TPE those that were proposed so far."""
        known = self.settings.known_points
        return without_repetition([*known, *self.record.points]) if self.settings.search == "tpe" else known

    def outcomes(self) -> list[RunOutcome]:
        """The outcome of every run that counts: see `read_run_outcomes`."""
        return read_run_outcomes(self.folder, self.runs(), self.record.points, self.settings.seeds)

    def num_points(self) -> int:
        """How many points there will be in the end."""
        return len(self.points()) + self.num_wanted()

    def num_wanted(self) -> int:
        """How many points TPE has yet to propose; those that another search took before are not its."""
        if self.settings.search != "tpe":
            return 0
        known = {point_name(point) for point in self.settings.known_points}
        proposed = [point for point in self.record.proposed if point_name(point) not in known]
        return max(0, (self.settings.num_points or 0) - len(proposed))


def plan_sweep(folder: Folder, dataset: Dataset, settings: TuneSettings) -> Sweep:
    """Check every point before anything is written.

    Raises UserError for a point that cannot be trained on these data, or a folder that holds another sweep.
    """
    example = settings.example
    ours = [name for name in left_to_us(example) if name not in settings.space]
    begun = as_begun(begun_identity(folder)) if ours and not settings.fresh else {}
    begun = {name: begun[name] for name in ours if name in begun}
    example, chosen = without_auto(example, lambda: begun, dataset, ARCH_OF_TRAINING)
    settings = with_base(settings, **{name: getattr(example, name) for name in ours}, **_own(settings))
    scores: dict[Any, TrainingScores | None] = {}

    def find(dataset: Dataset, asked: TrainSettings) -> TrainingScores | None:
        key = score_key(asked)
        if key not in scores:
            scores[key] = scores_of(dataset, asked)
        return scores[key]

    num_val = len(make_plan(dataset, settings.example, find_scores=find).held.validation)
    for point in settings.known_points:
        run = SweepRun(point, settings.seeds[0])
        plan = make_plan(dataset, run_settings(settings, str(folder), run), find_scores=find)
        _check_metric(settings, plan, point)
    # Runs that together take all scores that any run can take; TPE's points are not known yet, but their scores are.
    first = {d.name: d.examples[0] for d in settings.dimensions}
    for point in grid([d for d in settings.dimensions if d.name in OF_SCORES and d.values]):
        find(dataset, settings.of_run({**first, **point}, seed=0, out="x"))
    if settings.fresh:
        check_alone(folder, VERB)
    record = SweepRecord(folder, _identity(settings, dataset, scores), replaces=settings.fresh)
    return Sweep(settings, dataset, record, scores, num_val, chosen)


def _check_metric(settings: TuneSettings, plan: TrainingPlan, point: Point) -> None:
    """Raise UserError if a metric is of typical or atypical samples, and the validation split has none of them."""
    for metric in settings.metric:
        kind = metric.rpartition("_")[2]
        members = plan.scores.subsets.get(kind) if plan.scores else None
        if members is not None and not members[plan.held.validation].any():
            raise UserError(
                f"metric {metric}: none of the {counted(len(plan.held.validation), 'validation sample')} is {kind} "
                f"for {point_name(point)}; use another metric, raise num_val, or change sigma or atypical_share"
            )


def _own(settings: TuneSettings) -> dict[str, Any]:
    """The user's own network and method, imported, if the base names any."""
    named = {name: settings.base[name] for name in ("arch", "method") if is_reference(str(settings.base.get(name)))}
    imported = {"arch": network_of, "method": method_of}
    return {name: imported[name](value) for name, value in named.items()}


def with_base(settings: TuneSettings, **found: Any) -> TuneSettings:
    """The settings with other values of what all runs share."""
    return dataclasses.replace(settings, base={**settings.base, **found})


def _identity(settings: TuneSettings, dataset: Dataset, scores: Mapping[Any, TrainingScores | None]) -> dict[str, Any]:
    varies = {*settings.space, *(("alpha", "beta") if settings.is_bat else ())}
    of_runs = identity_values(settings.example)
    shared = {name: value for name, value in of_runs.items() if name not in varies | {"seed"}}
    digests = sorted({found.digest for found in scores.values() if found})
    names = ",".join(sorted(varies))
    return {"varies": names, **shared, "data_fingerprint": dataset.fingerprint, "scores": " ".join(digests)}
