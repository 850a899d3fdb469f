"""A table of the paper as one resumable graph on Ray: memorize -> train rows x seeds -> evaluate."""

import dataclasses
import functools
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

from bat_dist.artifacts.scores import read_subsets
from bat_dist.config import differences, to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.errors import WAY_OUT, RunError, UserError
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.auto import Chosen, S, as_begun, decide_precision, say, with_arch
from bat_dist.jobs.evaluate import evaluate_here, with_earlier
from bat_dist.jobs.fill_rows import Filled
from bat_dist.jobs.fresh import experiment_runs, remove_experiment
from bat_dist.jobs.memorize import TRIALS
from bat_dist.jobs.scores import leave_out_scores
from bat_dist.jobs.train import carry_out, make_plan
from bat_dist.results.find import EVALUATION, EXPERIMENT, MEMORIZATION, SUMMARY
from bat_dist.results.rows import flat
from bat_dist.settings.fields import ARCH_OF_TRAINING, ARCH_OF_TRIALS
from bat_dist.settings.reproduce import SCORES, ReproduceSettings, TableRun
from bat_dist.settings.sections import without_later_defaults
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder, split_location
from bat_dist.storage.provenance import provenance
from bat_dist.storage.recorded import note_settings
from bat_dist.storage.rows import RowStore
from bat_dist.sweep.record import FAILURE, note_failure
from bat_dist.training import files as training_run
from bat_dist.training.precision import Hardware
from bat_dist.workers.hardware import hardware_of_workers
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.nodes import ClusterTerms, job_session
from bat_dist.workers.pace import ProgressDisplay, progress
from bat_dist.workers.pool import Failed, Work, run_units
from bat_dist.workers.resources import worker_resources

log = logging.getLogger(__name__)

TRAIN = "train"
TYPICALITY = "typicality.npz"
_WHAT = "runs"  # the units are called, in metrics
RUNS_AND_EVALUATIONS = "trainings and evaluations"  # and for people
_HOW = (  # settings of `train` and `memorize` that decide no result, or are of the table's rows
    *("out", "fresh", "seed", "method", "alpha", "beta", "scores", "data_dir", "download", "loader", "status", "track"),
    *("ray_address", "min_nodes", "wait_minutes", "max_failures", "num_workers", "num_trials", "attacks", "checkpoint"),
    *("cpus_per_worker", "gpus_per_worker", "cpus_per_trial", "gpus_per_trial"),
)


class Reports(NamedTuple):
    """What is written at the end of each part; these are functions of `reporting`, which this room does not know."""

    memorization: Callable[..., Any]
    training: Callable[..., Any]
    evaluation: Callable[..., Any]


class Task(NamedTuple):
    """A unit of work: a run's training, or the evaluation of one of its checkpoints."""

    run: TableRun
    what: str  # train, best or last

    @property
    def place(self) -> str:
        """Its folder within the experiment's."""
        return self.run.training if self.what == TRAIN else self.run.evaluation(self.what)

    def __str__(self) -> str:
        return f"{self.run.row} seed {self.run.seed} {self.what}"


@dataclass(frozen=True)
class Ended:
    """failed: by task, why; lost_trials: leave-out trials that failed."""

    failed: Mapping[str, str]
    lost_trials: int


def carry_out_experiment(folder: Folder, dataset: Dataset, settings: ReproduceSettings, reports: Reports) -> Ended:
    """Do what the folder lacks.  A run that fails does not stop the others.

    Raises UserError if the folder holds another experiment, or for settings that do not fit the data.
    """
    settings = _settled(settings)
    _check(dataset, settings)
    with job_session(settings, folder, all_write=True) as terms:
        settings, chosen = _without_auto(folder, dataset, settings, terms)
        _note_plan(folder, dataset, settings, chosen)
        filled = _memorize(folder, dataset, settings, reports)
        failed = _train_and_evaluate(folder, dataset, settings, reports, terms)
    return Ended(failed, len(filled.failed) if filled else 0)


def _check(dataset: Dataset, settings: ReproduceSettings) -> None:
    """Whatever can be known to fail fails before the first trial."""
    if settings.scores:
        runs = list(settings.runs())
    else:
        runs = [run for run in settings.runs() if not run.row.startswith("bat")]  # scores are yet to come
    for run in runs:
        make_plan(dataset, settings.training(run))


def _without_auto(
    folder: Folder, dataset: Dataset, settings: ReproduceSettings, terms: ClusterTerms
) -> tuple[ReproduceSettings, Chosen]:
    """The settings of all parts without auto, and what was chosen, which is said too."""
    if settings.fresh:
        remove_experiment(folder)
        settings = dataclasses.replace(settings, fresh=False)
    begun = _begun_identity(folder)
    size = dataset.train.images.shape[1]
    chosen: Chosen = {}

    @functools.cache
    def workers() -> list[Hardware]:
        asked = settings.cpus_per_worker, settings.gpus_per_worker
        return hardware_of_workers(worker_resources(*asked, of="worker", wait_minutes=terms.wait_minutes))

    def found(part: str, asked: S, usual: str) -> dict[str, Any]:
        nonlocal chosen
        known = {name: begun[key] for name in ("arch", "precision") if (key := f"{part}.{name}") in begun}
        asked, as_before = as_begun(asked, known)
        asked, suited = with_arch(asked, size, usual)
        precision, why = decide_precision(asked.precision, workers)
        chosen |= {f"{part}'s {name}": words for name, words in (as_before | suited | why).items()}
        return {"arch": asked.arch, "precision": precision}

    train = found("train", settings.training(TableRun("pgd_at", 0)), ARCH_OF_TRAINING)
    changes: dict[str, Any] = {"arch": train.pop("arch"), "train": {**settings.train, **train}}
    if settings.needs_scores and not settings.scores:
        memorize = found("memorize", settings.memorize_settings, ARCH_OF_TRIALS)
        changes["memorize"] = {**settings.memorize, **memorize}
    say(chosen)
    return dataclasses.replace(settings, **changes), chosen


def _begun_identity(folder: Folder) -> dict[str, Any]:
    """The identity of the folder's experiment; nothing if there is none, or nothing of it is finished."""
    if not folder.exists(EXPERIMENT):
        return {}
    return _identity_of(folder.read_json(EXPERIMENT)) if _is_begun(folder) else {}


def _is_begun(folder: Folder) -> bool:
    store = RowStore.existing(folder / SCORES / TRIALS)
    return (store is not None and store.is_begun()) or any(
        training_run.is_begun(folder / about["training"]) for about in experiment_runs(folder)
    )


def _note_plan(folder: Folder, dataset: Dataset, settings: ReproduceSettings, chosen: Chosen) -> None:
    """`experiment.json`: what is to be there in the end; runs that were asked for before stay."""
    identity = _identity(dataset, settings)
    old: Mapping[str, Any] = folder.read_json(EXPERIMENT) if folder.exists(EXPERIMENT) else {}
    if old and (differs := differences(_identity_of(old), identity)):
        if _is_begun(folder):
            raise UserError(f"{folder} holds another experiment; {WAY_OUT}\n" + "\n".join(differs))
        log.info("%s was made for another experiment, and nothing of it is finished: it is replaced", folder)
        remove_experiment(folder)
        old = {}
    runs = {(run["label"], run["seed"]): run for run in old.get("runs", ())}
    for run in settings.runs():
        known = runs.get((run.row, run.seed), {}).get("evaluations", {})
        evaluations = {**known, **{which: run.evaluation(which) for which in settings.which}}
        about = {"label": run.row, "seed": run.seed, "training": run.training, "evaluations": evaluations}
        runs[run.row, run.seed] = about
    folder.create()
    note_settings(folder, "reproduce", settings)
    document = {"table": settings.table, "scale": settings.scale, "identity": identity, "runs": list(runs.values())}
    folder.write_json(EXPERIMENT, {**document, "asked": to_dict(settings), "chosen": chosen, **provenance()})


def _identity(dataset: Dataset, settings: ReproduceSettings) -> dict[str, Any]:
    """All that every number of the experiment depends on, beside row, seed, checkpoint and attack."""
    training = settings.training(TableRun("pgd_at", 0))
    parts: dict[str, Any] = {"train": to_dict(training)}
    parts["evaluate"] = to_dict(settings.evaluation(TableRun("pgd_at", 0), "best"))
    if settings.needs_scores and not settings.scores:
        parts["memorize"] = to_dict(settings.memorize_settings)
    kept = {
        name: {key: value for key, value in without_later_defaults(part).items() if key not in _HOW}
        for name, part in parts.items()
    }
    kept["train"]["num_workers"] = training.separate_batch_norms
    return {"data_fingerprint": dataset.fingerprint, **flat(kept)}


def _identity_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The identity in an `experiment.json`; those of earlier versions have `num_workers` only among what was asked."""
    identity = dict(document.get("identity", {}))
    if identity and "train.num_workers" not in identity:
        asked = document["asked"].get("train") or {}
        identity["train.num_workers"] = 1 if identity["train.sync_bn"] else max(1, asked.get("num_workers", 0))
    return identity


def _memorize(folder: Folder, dataset: Dataset, settings: ReproduceSettings, reports: Reports) -> Filled | None:
    """The scores that BAT needs, unless they are given or there."""
    if settings.scores or not settings.needs_scores:
        return None
    place, asked = folder / SCORES, settings.memorize_settings
    dataset = dataset.augmented(asked.crop_padding, asked.flip)
    if place.exists(MEMORIZATION) and place.exists(SUMMARY):
        known = place.read_json(SUMMARY)
        if known.get("num_trials", 0) >= asked.num_trials and known.get("fingerprint") == dataset.fingerprint:
            log.info("%s holds the scores of %s trials", place, known["num_trials"])
            return None
    scores, filled = leave_out_scores(place, dataset, asked)
    reports.memorization(place, dataset, to_dict(asked), scores, failed=filled.failed)
    return filled


def _train_and_evaluate(
    folder: Folder, dataset: Dataset, settings: ReproduceSettings, reports: Reports, terms: ClusterTerms
) -> dict[str, str]:
    """What failed, by task."""
    tasks = _tasks(folder, settings)
    total = len(list(settings.runs())) * (1 + len(settings.which))
    done = total - len(tasks) - sum(len(settings.which) for task in tasks if task.what == TRAIN)
    log.info("%d of %d %s are there", done, total, RUNS_AND_EVALUATIONS)
    if not tasks:
        return {}
    with Heartbeat(folder, RUNS_AND_EVALUATIONS, total=total) as heart:
        heart.begin(done=done)
        with progress(RUNS_AND_EVALUATIONS, total=total, done=done, heart=heart) as shown:
            return _work_off(folder, dataset, settings, reports, terms, tasks, shown)


def _work_off(
    folder: Folder,
    dataset: Dataset,
    settings: ReproduceSettings,
    reports: Reports,
    terms: ClusterTerms,
    tasks: Sequence[Task],
    shown: ProgressDisplay,
) -> dict[str, str]:
    """Have the tasks done, and the evaluations that come up on the way; what failed, by task."""
    failed: dict[str, str] = {}
    if settings.training(tasks[0].run).num_workers:  # data-parallel: a run at a time takes all the room
        tasks = _train_one_by_one(folder, dataset, settings, reports, tasks, failed, shown)
    queue = deque(tasks)
    resources = worker_resources(
        settings.cpus_per_worker, settings.gpus_per_worker, of="worker", wait_minutes=terms.wait_minutes
    )
    how = {"resources": resources, "num_workers": settings.num_workers, "expected_source": terms.source}
    how |= {"what": _WHAT, "give_up_on": (UserError, RunError, ValueError)}
    units = run_units(queue, build, [ray.put(dataset), settings, reports], **how, watch=shown.watch)
    with closing(units) as outcomes:
        for outcome in outcomes:
            task: Task = outcome.unit
            place = folder / task.place
            if isinstance(outcome, Failed):
                failed[str(task)] = outcome.reason
                _note(place, task, outcome.reason)
            else:
                place.remove(FAILURE)
                if task.what == TRAIN:
                    queue.extend(_evaluations(folder, settings, task.run))
            shown.step(failed=len(failed))
    return failed


def _note(place: Folder, task: Task, reason: str) -> None:
    """Say that a task failed, there and here; a place where nothing can be written may be the reason itself."""
    log.error("%s failed: %s", task, reason)
    try:
        note_failure(place, reason)
    except (UserError, OSError) as error:
        log.warning("%s: its failure cannot be noted: %s", place, error)


def _tasks(folder: Folder, settings: ReproduceSettings) -> list[Task]:
    """What can be begun now."""
    tasks = []
    for run in settings.runs():
        is_trained = training_run.finished(folder / run.training)
        tasks += _evaluations(folder, settings, run) if is_trained else [Task(run, TRAIN)]
    return tasks


def _evaluations(folder: Folder, settings: ReproduceSettings, run: TableRun) -> list[Task]:
    """Evaluations of a trained run that are not there, or lack an attack."""
    return [Task(run, which) for which in settings.which if not _is_evaluated(folder, settings, run, which)]


def _is_evaluated(folder: Folder, settings: ReproduceSettings, run: TableRun, which: str) -> bool:
    place = folder / run.evaluation(which)
    if not place.exists(EVALUATION):
        return False
    known = {row["attack"] for row in place.read_json(EVALUATION)["rows"]}
    return known.issuperset(settings.all_attacks)


def _train_one_by_one(
    folder: Folder,
    dataset: Dataset,
    settings: ReproduceSettings,
    reports: Reports,
    tasks: Sequence[Task],
    failed: dict[str, str],
    shown: ProgressDisplay,
) -> list[Task]:
    """Data-parallel trainings, by this process; returns what is left to do."""
    left: list[Task] = []
    for task in tasks:
        if task.what != TRAIN:
            left.append(task)
            continue
        try:
            _train(dataset, settings.training(task.run), reports)
            left += _evaluations(folder, settings, task.run)
        except (RunError, UserError) as error:
            failed[str(task)] = str(error)
            _note(folder / task.place, task, str(error))
        shown.step(failed=len(failed))
    return left


def build(dataset: Dataset, settings: ReproduceSettings, reports: Reports) -> Work:
    """Runs once in each worker."""

    def work(task: Task) -> dict[str, Any]:
        if task.what == TRAIN:
            _train(dataset, settings.training(task.run), reports)
        else:
            _evaluate(dataset, settings, task, reports)
        return {}

    return work


def _train(dataset: Dataset, asked: TrainSettings, reports: Reports) -> None:
    summary = carry_out(make_plan(dataset, asked))
    folder = Folder(asked.out)
    reports.training(folder, summary, training_run.read_history(folder))


def _evaluate(dataset: Dataset, settings: ReproduceSettings, task: Task, reports: Reports) -> None:
    asked = settings.evaluation(task.run, task.what)
    folder = Folder(asked.out)
    asked, subject = with_earlier(folder, asked), load_subject(dataset, asked)
    folder.create()
    found = evaluate_here(folder, dataset, asked, subject)
    of_network = {"facts": subject.facts, "digest": subject.digest}
    subsets = _subsets(dataset, settings)
    reports.evaluation(folder, dataset, to_dict(asked), found, subsets=subsets, **of_network)


def _subsets(dataset: Dataset, settings: ReproduceSettings) -> Mapping[str, Any]:
    """Typical and atypical test images, where the scores tell."""
    place, _ = split_location(settings.score_file)
    if not settings.needs_scores or not place.exists(TYPICALITY):
        return {}
    return read_subsets((place / TYPICALITY).location, dataset.fingerprint, "test")


def _settled(settings: ReproduceSettings) -> ReproduceSettings:
    """With places as all machines name them."""
    names = [name for name in ("out", "scores", "data_dir") if getattr(settings, name)]
    return dataclasses.replace(settings, **{name: Folder(getattr(settings, name)).absolute_location for name in names})
