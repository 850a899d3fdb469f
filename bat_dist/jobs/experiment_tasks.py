"""The trainings and evaluations of an experiment, as tasks for Ray's workers."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import ray
from jaxtyping import Bool

from bat_dist.artifacts.scores import read_subsets
from bat_dist.config import to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.errors import RunError, UserError
from bat_dist.evaluation.plan import make_plan as make_evaluation_plan
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.evaluate_here import evaluate_here, with_earlier
from bat_dist.jobs.train import carry_out
from bat_dist.jobs.training_plan import make_plan
from bat_dist.results.evaluation_file import ATTACKS, EVALUATION, FLAGS, write_evaluation
from bat_dist.settings.reproduce import ReproduceSettings, TableRun
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder, split_location
from bat_dist.sweep.record import FAILURE, note_failure
from bat_dist.training.files import finished, read_history
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.metrics import IMAGES
from bat_dist.workers.pace import Pace, progress
from bat_dist.workers.pool import run_units
from bat_dist.workers.resources import worker_resources
from bat_dist.workers.terms import ClusterTerms
from bat_dist.workers.units import Failed, Row, Work

log = logging.getLogger(__name__)

TRAIN = "train"
TYPICALITY = "typicality.npz"
_WHAT = "runs"  # the units are called, in metrics
RUNS_AND_EVALUATIONS = "trainings and evaluations"  # and for people


class Reports(NamedTuple):
    """What is written at the end of each part; these are functions of `reporting`, which this room does not know."""

    memorization: Callable[..., Any]
    training: Callable[..., Any]


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
class Experiment:
    """An experiment, its data and its reports: all that a worker needs to know of it."""

    dataset: Dataset
    settings: ReproduceSettings
    reports: Reports

    @property
    def folder(self) -> Folder:
        """Where all of it is written."""
        return Folder(self.settings.out)

    def tasks(self) -> list[Task]:
        """What can be begun now."""
        tasks = []
        for run in self.settings.runs():
            tasks += self.evaluations(run) if finished(self.folder / run.training) else [Task(run, TRAIN)]
        return tasks

    def evaluations(self, run: TableRun) -> list[Task]:
        """Evaluations of a trained run that are not there, lack an attack, or have other subsets than are known now."""
        tasks = []
        for which in self.settings.which:
            place = self.folder / run.evaluation(which)
            rows = place.read_json(EVALUATION)["rows"] if place.exists(EVALUATION) else []
            wanted = make_evaluation_plan(self.settings.all_attacks, self.settings.evaluation(run, which).seeds).rows
            if not {row["attack"] for row in rows}.issuperset(wanted) or not self._has_subsets(place):
                tasks.append(Task(run, which))
        return tasks

    @cached_property
    def subsets(self) -> Mapping[str, Bool[np.ndarray, " images"]]:
        """Typical and atypical test images, where the scores tell."""
        place, _ = split_location(self.settings.score_file)
        if not self.settings.needs_scores or not place.exists(TYPICALITY):
            return {}
        return read_subsets((place / TYPICALITY).location, self.dataset.fingerprint, "test")

    def _has_subsets(self, place: Folder) -> bool:
        """Has an evaluation the present subsets?  After more trials they are others, and its attacks need no repeat."""
        if not self.subsets:
            return True
        try:
            there = place.read_npz(FLAGS)
        except UserError:  # missing or damaged
            return False
        return all(np.array_equal(there.get(f"subset_{name}", ()), members) for name, members in self.subsets.items())

    def train(self, asked: TrainSettings) -> None:
        """Train one run, or go on with it, and report it."""
        summary = carry_out(make_plan(self.dataset, asked))
        folder = Folder(asked.out)
        self.reports.training(folder, summary, read_history(folder))

    def evaluate(self, task: Task) -> None:
        """Do the evaluation, or what it lacks, and report it."""
        asked = self.settings.evaluation(task.run, task.what)
        folder = Folder(asked.out)
        asked, subject = with_earlier(folder, asked), load_subject(self.dataset, asked)
        folder.create()
        found = evaluate_here(
            folder, self.dataset, asked, subject, tell=lambda number: IMAGES.tell(number, what=ATTACKS)
        )
        write_evaluation(
            folder,
            self.dataset,
            to_dict(asked),
            found,
            subsets=self.subsets,
            facts=subject.facts,
            digest=subject.digest,
        )


def train_and_evaluate(experiment: Experiment, terms: ClusterTerms) -> dict[str, str]:
    """Do all tasks that are left; returns what failed, by task."""
    settings, tasks = experiment.settings, experiment.tasks()
    total = len(list(settings.runs())) * (1 + len(settings.which))
    done = total - len(tasks) - sum(len(settings.which) for task in tasks if task.what == TRAIN)
    log.info("%d of %d %s are there", done, total, RUNS_AND_EVALUATIONS)
    if not tasks:
        return {}
    with Heartbeat(experiment.folder, RUNS_AND_EVALUATIONS, total=total) as heart:
        pace = heart.begin(done=done)
        with progress(pace):
            return _work_off(experiment, tasks, terms, pace)


def _work_off(experiment: Experiment, tasks: Sequence[Task], terms: ClusterTerms, pace: Pace) -> dict[str, str]:
    """Have the tasks done, and the evaluations that come up on the way; what failed, by task."""
    settings = experiment.settings
    failed: dict[str, str] = {}
    if settings.training(tasks[0].run).num_workers:  # data-parallel: a run at a time takes all the room
        tasks = _train_one_by_one(experiment, tasks, failed, pace)
    queue = deque(tasks)
    resources = worker_resources(
        settings.cpus_per_worker, settings.gpus_per_worker, of="worker", wait_minutes=terms.wait_minutes
    )
    units = run_units(
        queue,
        build,
        [ray.put(experiment.dataset), settings, experiment.reports],
        resources=resources,
        what=_WHAT,
        num_workers=settings.num_workers,
        give_up_on=(UserError, RunError, ValueError),
        terms=terms,
        watch=pace.watch,
    )
    with closing(units) as outcomes:
        for outcome in outcomes:
            task: Task = outcome.unit
            if isinstance(outcome, Failed):
                _note(experiment.folder, task, outcome.reason, failed)
            else:
                (experiment.folder / task.place).remove(FAILURE)
                if task.what == TRAIN:
                    queue.extend(experiment.evaluations(task.run))
            pace.step(failed=len(failed))
    return failed


def _train_one_by_one(experiment: Experiment, tasks: Sequence[Task], failed: dict[str, str], pace: Pace) -> list[Task]:
    """Data-parallel trainings, by this process; returns what is left to do."""
    left = [task for task in tasks if task.what != TRAIN]
    for task in tasks:
        if task.what == TRAIN:
            try:
                experiment.train(experiment.settings.training(task.run))
                left += experiment.evaluations(task.run)
            except (RunError, UserError) as error:
                _note(experiment.folder, task, str(error), failed)
            pace.step(failed=len(failed))
    return left


def _note(folder: Folder, task: Task, reason: str, failed: dict[str, str]) -> None:
    """Say that a task failed, there and here; a place where nothing can be written may be the reason itself."""
    failed[str(task)] = reason
    log.error("%s failed: %s", task, reason)
    place = folder / task.place
    try:
        note_failure(place, reason)
    except (UserError, OSError) as error:
        log.warning("%s: its failure cannot be noted: %s", place, error)


def build(dataset: Dataset, settings: ReproduceSettings, reports: Reports) -> Work:
    """The function of a task; called once in each worker."""
    experiment = Experiment(dataset, settings, reports)

    def work(task: Task) -> Row:
        if task.what == TRAIN:
            experiment.train(settings.training(task.run))
        else:
            experiment.evaluate(task)
        return {}

    return work
