"""One run of a sweep, in a Tune worker."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from bat_dist.data.datasets import Dataset
from bat_dist.errors import RunError, describe_error, is_gpu_full
from bat_dist.jobs.train import carry_out
from bat_dist.jobs.training_plan import make_plan
from bat_dist.jobs.tune_queue import RunRequest, defined
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import OF_SCORES, TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import work_for
from bat_dist.sweep.record import FAILURE, STOPPED, SweepRun, note_failure
from bat_dist.training.score_file import TrainingScores
from bat_dist.workers.gpu_share import gpu_full, keep_to_part
from bat_dist.workers.terms import ClusterTerms, kept_terms

ScoreKey = tuple[Any, ...]


@dataclass(frozen=True)
class SharedByRuns:
    """What all runs share, shipped once to each node.

    dataset: Ray's reference. scores: as read by the driver, whose files other machines may not have.
    terms: of the driver's session. command: the driver's. gpus: of one worker.
    """

    settings: TuneSettings
    out: str
    dataset: Any
    scores: Mapping[ScoreKey, TrainingScores | None]
    terms: ClusterTerms
    command: str
    gpus: float

    def find_scores(self, _dataset: Dataset, asked: TrainSettings) -> TrainingScores | None:
        """Those that the driver has read."""
        return self.scores[score_key(asked)]


def score_key(asked: TrainSettings) -> ScoreKey:
    """What decides the scores of a run."""
    return tuple(getattr(asked, name) for name in OF_SCORES)


def run_settings(settings: TuneSettings, out: str, run: SweepRun) -> TrainSettings:
    """The settings of a run in its own folder below the sweep's."""
    return settings.of_run(run.point, seed=run.seed, out=f"{out.rstrip('/')}/{run.name}")


def train_run(config: RunRequest, *, shared: SharedByRuns) -> None:
    """Train the run that `config` names (point, seed), from where it stands, and tell Tune of each epoch.

    A run that raises leaves the reason in its folder; one whose process dies, or whose GPU was full, leaves none and
    may be tried again.
    """
    shared.terms.check_here()
    work_for(shared.command)
    run = SweepRun(config["point"], config["seed"])
    asked = run_settings(shared.settings, shared.out, run)
    place = Folder(asked.out)
    for name in (FAILURE, STOPPED):
        place.remove(name)
    keep_to_part(shared.gpus)
    try:
        plan = make_plan(ray.get(shared.dataset), asked, find_scores=shared.find_scores)
        with kept_terms(shared.terms):  # for data-parallel workers, which this process starts
            summary = carry_out(plan, on_epoch=_tell_tune, dataset_ref=shared.dataset)
    except Exception as error:
        if is_gpu_full(error) and not asked.num_workers:  # those have been tried again by themselves
            raise RunError(gpu_full(error, shared.gpus)) from error
        note_failure(place, describe_error(error), traceback.format_exc())
        raise
    _tell_tune(summary.last)  # there is always one result, also of a run that was done but for its last line


def _tell_tune(row: Mapping[str, Any]) -> None:
    tune.report(defined(row))
