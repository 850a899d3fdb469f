"""The paper's own studies on Ray: leave-out trials, the trainings that studies share, and what follows from them."""

import dataclasses
import logging
from collections import deque
from contextlib import closing
from functools import partial

import numpy as np
import ray

from bat_dist.artifacts.checkpoints import load_model
from bat_dist.artifacts.scores import ENSEMBLE_SCORES, write_indices
from bat_dist.config import to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.data.table import augmentation_of
from bat_dist.errors import RunError, UserError
from bat_dist.jobs.auto import as_begun, check_network, decide_precision, say
from bat_dist.jobs.scores import ensemble_scores, leave_out_scores
from bat_dist.jobs.study_folder import begin_studies
from bat_dist.jobs.train import carry_out
from bat_dist.jobs.training_plan import TrainingPlan, make_plan
from bat_dist.models.names import AUTO
from bat_dist.models.own import OwnNetwork
from bat_dist.settings.study import (
    LEAST,
    OUTPUTS,
    RANDOM,
    SUBSETS,
    WHOLE,
    WITHOUT_ATYPICAL,
    StudyRun,
    StudySettings,
    share_name,
)
from bat_dist.storage.files import Folder
from bat_dist.studies.inputs import SampleSets, read_sets
from bat_dist.studies.subsets import (
    check_sets,
    least_memorized_removed,
    random_removed,
    with_share,
    without_atypical,
)
from bat_dist.sweep.record import FAILURE, note_failure
from bat_dist.training.files import begun_identity, finished
from bat_dist.training.outputs import outputs_of
from bat_dist.training.precision import default_device
from bat_dist.training.run import check_identity
from bat_dist.training.seeding import seed_of
from bat_dist.workers.gpu_share import part_of_gpu
from bat_dist.workers.hardware import hardware_of_workers
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.nodes import job_session
from bat_dist.workers.pace import progress
from bat_dist.workers.pool import run_units
from bat_dist.workers.resources import Resources, worker_resources
from bat_dist.workers.terms import ClusterTerms
from bat_dist.workers.units import Failed, Row, Work

log = logging.getLogger(__name__)

ATTACKED = 15  # stream of randomness, beside those of a training


def carry_out_studies(folder: Folder, dataset: Dataset, settings: StudySettings) -> dict[str, str]:
    """Do what the studies lack, up to the last training; returns what failed, by run.

    Raises UserError for scores of other data or settings that do not fit, RunError if no trial is complete.
    """
    if settings.runs():  # their features are looked at
        check_network(settings.network, dataset, features=True, is_saved=True)
    if settings.scores and settings.needs_sets:  # they are here already: what does not fit needs no cluster to be seen
        _checked_sets(dataset, settings)
    with job_session(settings, folder, all_write=True) as terms:
        settings = begin_studies(folder, settings)
        resources = worker_resources(
            settings.cpus_per_worker, settings.gpus_per_worker, of="worker", wait_minutes=terms.wait_minutes
        )
        settings = _with_precision(folder, settings, resources)
        _make_scores(dataset, settings)
        if settings.needs_sets:
            _write_subsets(folder, dataset, settings, _checked_sets(dataset, settings))
        return _train(folder, dataset, settings, resources, terms)


def _make_scores(dataset: Dataset, settings: StudySettings) -> None:
    """The leave-out trials, and an ensemble where a study compares with it, unless the scores are there."""
    from bat_dist.reporting.memorization import report_ensemble, report_leave_out  # here: workers draw nothing

    place = Folder(settings.score_place)
    if not settings.scores:
        asked = settings.memorize_settings
        scores, filled = leave_out_scores(place, dataset.augmented(**augmentation_of(asked)), asked)
        report_leave_out(place, dataset, to_dict(asked), scores, failed=filled.failed)
    if settings.needs_ensemble and not (settings.scores and place.exists(ENSEMBLE_SCORES)):
        asked = settings.ensemble_settings
        found, _ = ensemble_scores(place, dataset.augmented(**augmentation_of(asked)), asked)
        report_ensemble(place, dataset, to_dict(asked), found)


def _checked_sets(dataset: Dataset, settings: StudySettings) -> SampleSets:
    """The sets of the samples.

    Raises UserError if they are of other data, or if one that is needed has no sample beside those that are held out.
    """
    sets = read_sets(dataset, settings)
    try:
        if {run.subset for run in settings.runs()} - {WHOLE}:
            check_sets(sets.watched, ["train_typical", "train_atypical", "test_typical"])
        if "atypical" in settings.study:
            check_sets(sets.watched, ["train_atypical", "test_atypical"])
    except ValueError as error:
        raise UserError(str(error)) from None
    return sets


def _write_subsets(folder: Folder, dataset: Dataset, settings: StudySettings, sets: SampleSets) -> None:
    """The files that say which samples a training takes."""
    typical, atypical = sets["train_typical"], sets["train_atypical"]
    needed = {run.subset for run in settings.runs()} - {WHOLE}
    for seed in settings.seeds:
        made = {share_name(share): with_share(typical, atypical, share, seed=seed) for share in settings.shares}
        made |= {
            WITHOUT_ATYPICAL: without_atypical(atypical),
            RANDOM: random_removed(typical, atypical, seed=seed),
            LEAST: least_memorized_removed(typical, atypical, sets.mem, seed=seed),
        }
        for name in needed & made.keys():
            write_indices(folder, f"{SUBSETS}/{name}_seed{seed}.npz", made[name], dataset.fingerprint)


def _train(
    folder: Folder, dataset: Dataset, settings: StudySettings, resources: Resources, terms: ClusterTerms
) -> dict[str, str]:
    """The trainings that are not finished; returns what failed, by run.

    resources: of each worker. terms: what workers must meet.
    Raises UserError if one that is there was made with other settings.
    """
    runs = settings.runs()
    for run in runs:  # whatever can be known to fail fails before the first epoch
        check_identity(make_plan(dataset, settings.training(run)).record)
    left = [run for run in runs if not (finished(folder / run.place) and (folder / run.place).exists(OUTPUTS))]
    log.info("%d of %d trainings are there", len(runs) - len(left), len(runs))
    failed: dict[str, str] = {}
    if not left:
        return failed
    with Heartbeat(folder, "trainings", total=len(runs)) as heart:
        pace = heart.begin(done=len(runs) - len(left))
        units = run_units(
            deque(left),
            build,
            [ray.put(dataset), settings],
            resources=resources,
            what="runs",
            num_workers=settings.num_workers,
            give_up_on=(UserError, RunError, ValueError),
            terms=terms,
            watch=pace.watch,
        )
        with progress(pace), closing(units) as outcomes:
            for outcome in outcomes:
                place = folder / outcome.unit.place
                if isinstance(outcome, Failed):
                    failed[str(outcome.unit)] = outcome.reason
                    log.error("%s failed: %s", outcome.unit, outcome.reason)
                    note_failure(place, outcome.reason)
                else:
                    place.remove(FAILURE)
                pace.step(failed=len(failed))
    return failed


def _with_precision(folder: Folder, settings: StudySettings, resources: Resources) -> StudySettings:
    """The settings with one precision for all trainings: as one of them was begun, else as all workers have it.

    Whether attacks fold BatchNorm is the same for all too.
    Raises UserError for TF32 that a worker has not.
    """
    runs = settings.runs()
    if not runs:
        return settings
    asked = settings.training(runs[0])
    begun = [as_begun(identity) for run in runs if (identity := begun_identity(folder / run.place))]
    if begun and asked.precision in (AUTO, begun[0]["precision"]):
        precision, chosen = begun[0]["precision"], {}
    else:
        workers = partial(hardware_of_workers, resources)
        precision, chosen = decide_precision(asked.precision, workers, of_attack=asked.attack_precision)
    say(chosen)
    folds = {"fold_batch_norm": begun[0]["fold_batch_norm"]} if begun and asked.fold_batch_norm is None else {}
    return dataclasses.replace(settings, train={**settings.train, **folds, "precision": precision})


def build(dataset: Dataset, settings: StudySettings) -> Work:
    """The function that trains a run and asks its network; called once in each worker."""
    atypical = np.flatnonzero(read_sets(dataset, settings)["train_atypical"])

    def work(run: StudyRun) -> Row:
        plan = make_plan(dataset, settings.training(run))
        carry_out(plan)
        write_outputs(plan, atypical)
        return {}

    return work


def write_outputs(plan: TrainingPlan, atypical: np.ndarray) -> None:
    """`outputs.npz`: what the last network says of all test samples and of the atypical training samples."""
    folder, dataset, device = plan.record.folder, plan.dataset, default_device()
    arch = plan.settings.arch
    network = load_model(folder, "last", device=device, model=arch if isinstance(arch, OwnNetwork) else None)
    attack = plan.watched and plan.watched.attack
    if attack is None:
        raise ValueError("a study attacks its networks: watch_steps must be at least 1")
    arrays: dict[str, np.ndarray] = {"train_index": atypical, "fingerprint": np.array(dataset.fingerprint)}
    for split, indices in (("test", np.arange(len(dataset.test))), ("train", atypical)):
        loader = dataset_loader(plan.asked.loader, dataset, split, device=device, gpu_share=part_of_gpu())
        found = outputs_of(
            network,
            loader,
            indices,
            attack=attack,
            precision=plan.settings.step.precision,
            seed=seed_of(plan.settings.seed, ATTACKED),
        )
        arrays |= {f"{split}_{name}": values for name, values in vars(found).items()}
    folder.write_npz(OUTPUTS, **arrays)
