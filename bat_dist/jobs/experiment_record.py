"""`experiment.json`: which experiment a folder holds, and which runs it is to have."""

import logging
from collections.abc import Mapping
from typing import Any

from bat_dist.config import differences, to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.errors import WAY_OUT, UserError
from bat_dist.jobs.auto import Chosen
from bat_dist.jobs.fresh import remove_experiment
from bat_dist.jobs.memorize import TRIALS
from bat_dist.results.experiment_file import (
    EXPERIMENT,
    ExperimentFile,
    PlannedRun,
    read_experiment,
    write_experiment,
)
from bat_dist.results.rows import flat
from bat_dist.settings.decides import identity_values
from bat_dist.settings.reproduce import OF_A_ROW, ReproduceSettings, TableRun
from bat_dist.settings.small import SCORES
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings
from bat_dist.storage.rows import RowStore
from bat_dist.training.files import is_begun

log = logging.getLogger(__name__)

# Rows and seeds, trials and attacks can be added; the number of workers is counted as far as it decides a result.
_HOW_MANY_TRIALS = ("num_trials", "stop_when", "precision_target", "max_trials")
_NOT_OF_ALL = (*OF_A_ROW, *_HOW_MANY_TRIALS, "attacks", "num_workers")


def begun_identity(folder: Folder) -> Mapping[str, Any]:
    """The identity of the folder's experiment; nothing if there is none, or nothing of it is finished."""
    experiment = read_experiment(folder)
    return identity_of(experiment) if _is_begun(folder, experiment) else {}


def _is_begun(folder: Folder, experiment: ExperimentFile) -> bool:
    store = RowStore.existing(folder / SCORES / TRIALS)
    return (store is not None and store.is_begun()) or any(is_begun(folder / run.training) for run in experiment.runs)


def note_plan(folder: Folder, dataset: Dataset, settings: ReproduceSettings, chosen: Chosen) -> None:
    """`experiment.json`: what is to be there in the end; runs that were asked for before stay."""
    identity = identity_of_settings(dataset, settings)
    old = read_experiment(folder)
    if folder.exists(EXPERIMENT) and (differs := differences(identity_of(old), identity)):
        if _is_begun(folder, old):
            raise UserError(f"{folder} holds another experiment; {WAY_OUT}\n" + "\n".join(differs))
        log.info("%s was made for another experiment, and nothing of it is finished: it is replaced", folder)
        remove_experiment(folder)
        old = ExperimentFile()
    runs = {(run.label, run.seed): run for run in old.runs}
    for run in settings.runs():
        known = runs[run.row, run.seed].evaluations if (run.row, run.seed) in runs else {}
        evaluations = {**known, **{which: run.evaluation(which) for which in settings.which}}
        runs[run.row, run.seed] = PlannedRun(run.row, run.seed, run.training, evaluations)
    folder.create()
    note_settings(folder, "reproduce", settings)
    experiment = ExperimentFile(
        settings.table, settings.scale, identity, tuple(runs.values()), asked=to_dict(settings), chosen=chosen
    )
    write_experiment(folder, experiment)


def identity_of_settings(dataset: Dataset, settings: ReproduceSettings) -> Mapping[str, Any]:
    """All that every number of the experiment depends on, beside row, seed, checkpoint and attack."""
    run = TableRun("pgd_at", 0)
    training = settings.training(run)
    parts: dict[str, Any] = {"train": training, "evaluate": settings.evaluation(run, "best")}
    if settings.needs_scores and not settings.scores:
        parts["memorize"] = settings.memorize_settings
    kept = {
        name: {key: value for key, value in identity_values(part).items() if key not in _NOT_OF_ALL}
        for name, part in parts.items()
    }
    kept["train"]["num_workers"] = training.separate_batch_norms
    return {"data_fingerprint": dataset.fingerprint, **flat(kept)}


def identity_of(experiment: ExperimentFile) -> Mapping[str, Any]:
    """An experiment's identity, whose entries of earlier versions are others.

    They have `num_workers` only among what was asked, and the evaluations' batch size, which decides nothing.
    """
    identity = {name: value for name, value in experiment.identity.items() if name != "evaluate.batch_size"}
    if not identity or "train.num_workers" in identity:
        return identity
    asked = experiment.asked.get("train") or {}
    separate = 1 if identity["train.sync_bn"] else max(1, asked.get("num_workers", 0))
    return {**identity, "train.num_workers": separate}
