"""A table of the paper as one resumable graph on Ray: memorize -> train rows x seeds -> evaluate."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from bat_dist.config import to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.data.table import augmentation_of
from bat_dist.jobs.auto import LEFT_TO_US, Chosen, S, as_begun, decide_precision, say, without_auto
from bat_dist.jobs.experiment_record import begun_identity, note_plan
from bat_dist.jobs.experiment_tasks import Experiment, Reports, train_and_evaluate
from bat_dist.jobs.fill_rows import Filled
from bat_dist.jobs.fresh import remove_experiment
from bat_dist.jobs.own_parts import network_of
from bat_dist.jobs.scores import leave_out_scores
from bat_dist.jobs.training_plan import make_plan
from bat_dist.results.find import MEMORIZATION
from bat_dist.results.summary_file import SUMMARY, read_summary
from bat_dist.settings.fields import ARCH_OF_TRAINING, ARCH_OF_TRIALS
from bat_dist.settings.reproduce import ReproduceSettings, TableRun
from bat_dist.settings.small import SCORES
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder
from bat_dist.training.precision import Hardware
from bat_dist.workers.hardware import hardware_of_workers
from bat_dist.workers.nodes import job_session
from bat_dist.workers.resources import worker_resources
from bat_dist.workers.terms import ClusterTerms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """How an experiment ended.  failed: by task, why; lost_trials: how many leave-out trials failed."""

    failed: Mapping[str, str]
    lost_trials: int


def carry_out_experiment(folder: Folder, dataset: Dataset, settings: ReproduceSettings, reports: Reports) -> Ended:
    """Do what the folder lacks.  A run that fails does not stop the others.

    Raises UserError if the folder holds another experiment, or for settings that do not fit the data.
    """
    places = {name: Folder(place) for name in ("out", "scores", "data_dir") if (place := getattr(settings, name))}
    # All machines get names of places that mean the same everywhere.
    settings = dataclasses.replace(settings, **{name: place.absolute_location for name, place in places.items()})
    settings = dataclasses.replace(settings, arch=network_of(settings.arch))
    for run in settings.runs():
        if settings.scores or not run.row.startswith(
            "bat"
        ):  # whatever can be known to fail fails before the first trial
            make_plan(dataset, settings.training(run))
    with job_session(settings, folder, all_write=True) as terms:
        settings, chosen = _without_auto(folder, dataset, settings, terms)
        note_plan(folder, dataset, settings, chosen)
        filled = _memorize(folder, dataset, settings, reports)
        failed = train_and_evaluate(Experiment(dataset, settings, reports), terms)
    return Ended(failed, len(filled.failed) if filled else 0)


def _without_auto(
    folder: Folder, dataset: Dataset, settings: ReproduceSettings, terms: ClusterTerms
) -> tuple[ReproduceSettings, Chosen]:
    """The settings of all parts without auto, and what was chosen, which is said too."""
    if settings.fresh:
        remove_experiment(folder)
        settings = dataclasses.replace(settings, fresh=False)
    begun = as_begun(begun_identity(folder), "train.")
    chosen: Chosen = {}

    @functools.cache
    def workers() -> list[Hardware]:
        asked = settings.cpus_per_worker, settings.gpus_per_worker
        return hardware_of_workers(worker_resources(*asked, of="worker", wait_minutes=terms.wait_minutes))

    def settle(part: str, asked: S, usual: str) -> S:
        nonlocal chosen
        known = {name: begun[key] for name in LEFT_TO_US if (key := f"{part}.{name}") in begun}
        asked, settled = without_auto(asked, lambda: known, dataset, usual)
        precision, why = asked.precision, {}
        if precision != known.get("precision"):  # of what was begun each part asks by itself, if it has work left
            of_attack = asked.attack_precision if isinstance(asked, TrainSettings) else None
            precision, why = decide_precision(precision, workers, of_attack=of_attack)
        chosen |= {f"{part}'s {name}": words for name, words in (settled | why).items()}
        return dataclasses.replace(asked, precision=precision)

    train = settle("train", settings.training(TableRun("pgd_at", 0)), ARCH_OF_TRAINING)
    memorize = settings.memorize
    if settings.needs_scores and not settings.scores:
        trials = settle("memorize", settings.memorize_settings, ARCH_OF_TRIALS)
        memorize = {**memorize, "arch": trials.arch, "precision": trials.precision}
    say(chosen)
    of_runs = {**settings.train, "precision": train.precision, "fold_batch_norm": train.fold_batch_norm}
    return dataclasses.replace(settings, arch=train.arch, train=of_runs, memorize=memorize), chosen


def _memorize(folder: Folder, dataset: Dataset, settings: ReproduceSettings, reports: Reports) -> Filled | None:
    """The scores that BAT needs, unless they are given or there."""
    if settings.scores or not settings.needs_scores:
        return None
    place, asked = folder / SCORES, settings.memorize_settings
    dataset = dataset.augmented(**augmentation_of(asked))
    if place.exists(MEMORIZATION) and place.exists(SUMMARY):
        known = read_summary(place, SUMMARY)
        is_number = asked.stopping_rule is None  # else the rule is asked again, of the trials that are there
        if is_number and known.num_trials >= asked.most_trials and known.fingerprint == dataset.fingerprint:
            log.info("%s holds the scores of %s trials", place, known.num_trials)
            return None
    scores, filled = leave_out_scores(place, dataset, asked)
    reports.memorization(place, dataset, to_dict(asked), scores, failed=filled.failed)
    return filled
