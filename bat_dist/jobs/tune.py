"""A sweep on Ray Tune: trainings of many points with several seeds, resumed from what their folders hold.

Tune places the runs and tells of their epochs; what is done, and what is to be done, stands in the sweep's folder.  So
the same command goes on after a lost driver and takes points that were added later, which a restored Tune experiment
would not.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from bat_dist.config import to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.errors import RunError
from bat_dist.jobs.auto import Chosen, as_begun, decide_precision, say, with_arch
from bat_dist.jobs.fresh import check_alone, remove_sweep
from bat_dist.jobs.train import make_plan, ray_storage, scores_of
from bat_dist.jobs.tune_display import Display
from bat_dist.jobs.tune_queue import EVERYTHING, Asha, RunCallbacks, RunQueue
from bat_dist.jobs.tune_run import SharedByRuns, run_settings, score_key, train_run
from bat_dist.models.names import AUTO
from bat_dist.settings.decides import identity_values
from bat_dist.settings.fields import ARCH_OF_TRAINING
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import command
from bat_dist.storage.recorded import note_settings
from bat_dist.sweep.proposals import Proposals
from bat_dist.sweep.record import ENDED, RunOutcome, SweepRecord, SweepRun, begun_identity, read_outcome
from bat_dist.sweep.results import goal_values
from bat_dist.sweep.space import Point, without_repetition
from bat_dist.training.files import read_history
from bat_dist.training.score_file import TrainingScores
from bat_dist.wording import counted
from bat_dist.workers.hardware import hardware_of_workers
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.nodes import job_session
from bat_dist.workers.resources import Resources, most_workers, worker_resources

log = logging.getLogger(__name__)

VERB = "tune"
WHAT = "runs"  # the units are called, in the driver's sign of life


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
    def about(self) -> dict[str, Any]:
        """What a report says of it."""
        names = ("dataset", "arch", "method")
        shared = {name: getattr(self.example, name) for name in names if name not in self.settings.space}
        many = dict.fromkeys((name for name in names if name in self.settings.space), "several")
        return {**shared, **many, "num_val": self.num_val, "settings": to_dict(self.settings)}

    @property
    def folder(self) -> Folder:
        """Where it is kept."""
        return self.record.folder

    def runs(self) -> list[SweepRun]:
        """All that the settings ask for, as far as points are known; seed by seed, so that all points come early."""
        return [SweepRun(point, seed) for seed in self.settings.seeds for point in self.points()]

    def points(self) -> list[Point]:
        """Those of the settings; with TPE those that were proposed so far."""
        known = self.settings.known_points
        return without_repetition([*known, *self.record.points]) if self.settings.search == "tpe" else known

    def outcomes(self) -> list[RunOutcome]:
        """Of every run that the folder knows of, earlier points' too."""
        runs = dict.fromkeys([*self.runs(), *(SweepRun(p, s) for s in self.settings.seeds for p in self.record.points)])
        return [read_outcome(self.folder, run) for run in runs]


def plan_sweep(folder: Folder, dataset: Dataset, settings: TuneSettings) -> Sweep:
    """Check every point before anything is written.

    Raises UserError for a point that cannot be trained on these data, or a folder that holds another sweep.
    """
    settings, chosen = _settled(folder, dataset, settings)
    scores: dict[Any, TrainingScores | None] = {}

    def find(dataset: Dataset, asked: TrainSettings) -> TrainingScores | None:
        key = score_key(asked)
        if key not in scores:
            scores[key] = scores_of(dataset, asked)
        return scores[key]

    num_val = len(make_plan(dataset, settings.example, find_scores=find).held.validation)
    for point in settings.known_points:
        make_plan(dataset, run_settings(settings, str(folder), SweepRun(point, settings.seeds[0])), find_scores=find)
    for value in _score_settings(settings):
        find(dataset, value)
    if settings.fresh:
        check_alone(folder, VERB)
    record = SweepRecord(folder, _identity(settings, dataset, scores), replaces=settings.fresh)
    return Sweep(settings, dataset, record, scores, num_val, chosen)


def _settled(folder: Folder, dataset: Dataset, settings: TuneSettings) -> tuple[TuneSettings, Chosen]:
    """The settings without auto in what all runs share, as far as the folder and the data tell; and what was chosen."""
    example = settings.example
    left_to_us = [n for n in ("arch", "precision") if n not in settings.space and getattr(example, n) == AUTO]
    begun = begun_identity(folder) if left_to_us and not settings.fresh else {}
    example, as_before = as_begun(example, {name: begun[name] for name in left_to_us if name in begun})
    example, suited = with_arch(example, dataset.train.images.shape[1], ARCH_OF_TRAINING)
    found = {name: getattr(example, name) for name in left_to_us}
    return _with_base(settings, found), as_before | suited


def _decided(sweep: Sweep, each: Resources) -> Sweep:
    """The sweep in the precision of those who will carry it out."""
    asked = sweep.example.precision
    precision, why = decide_precision(asked, partial(hardware_of_workers, each))
    if asked == precision or "precision" in sweep.settings.space:
        return sweep
    settings = _with_base(sweep.settings, {"precision": precision})
    decided = plan_sweep(sweep.folder, sweep.dataset, settings)
    return dataclasses.replace(decided, chosen=sweep.chosen | why)


def _with_base(settings: TuneSettings, found: Mapping[str, Any]) -> TuneSettings:
    return dataclasses.replace(settings, base={**settings.base, **found})


def _score_settings(settings: TuneSettings) -> list[TrainSettings]:
    """Runs that together take all scores that any run can take; TPE's are not known yet."""
    first = {d.name: d.examples[0] for d in settings.dimensions}
    points = [first, *({**first, d.name: value} for d in settings.dimensions for value in d.values)]
    return [settings.of_run(point, seed=0, out="x") for point in points]


def _identity(settings: TuneSettings, dataset: Dataset, scores: Mapping[Any, TrainingScores | None]) -> dict[str, Any]:
    varies = {*settings.space, *(("alpha", "beta") if settings.is_bat else ())}
    of_runs = identity_values(settings.example)
    shared = {name: value for name, value in of_runs.items() if name not in varies | {"seed"}}
    digests = sorted({found.digest for found in scores.values() if found})
    names = ",".join(sorted(varies))
    return {"varies": names, **shared, "data_fingerprint": dataset.fingerprint, "scores": " ".join(digests)}


def carry_out_sweep(sweep: Sweep) -> tuple[Sweep, list[RunOutcome]]:
    """Train what is missing, and try again what failed; returns the sweep without auto, and the outcome of every run.

    A run that fails does not stop the others. Raises UserError or RunError if no run can be placed.
    """
    settings, folder = sweep.settings, sweep.folder
    known, missing = ({}, []) if settings.fresh else _left(sweep)
    if not (settings.fresh or missing or (settings.search == "tpe" and _num_wanted(sweep) > 0)):
        note_settings(folder, VERB, settings)
        log.info("%s holds this sweep, %s at the end", folder, counted(len(known), "run"))
        return sweep, sweep.outcomes()
    total = _num_points(sweep) * len(settings.seeds)
    heart = Heartbeat(folder, WHAT, total=total)
    with heart, job_session(settings, folder, all_write=True) as terms:
        if settings.fresh:  # only now: nothing is removed for a cluster that does not answer
            remove_sweep(folder)
            sweep = dataclasses.replace(sweep, settings=dataclasses.replace(settings, fresh=False))
            known, missing = _left(sweep)
        resources = worker_resources(
            sweep.example.cpus_per_worker,
            sweep.example.gpus_per_worker,
            of="worker",
            number=max(1, sweep.example.num_workers),
            wait_minutes=terms.wait_minutes,
        )
        sweep = _decided(sweep, resources)
        settings = sweep.settings
        say(sweep.chosen)
        sweep.record.add(settings.known_points, to_dict(settings), chosen=sweep.chosen)
        note_settings(folder, VERB, settings)
        shared = SharedByRuns(
            settings, folder.absolute_location, ray.put(sweep.dataset), sweep.scores, terms.source, command()
        )
        proposer = _Proposer(sweep, known) if settings.search == "tpe" else None
        queue = RunQueue(missing, proposer.more if proposer else list)
        asha = _asha(sweep, known)
        heart.begin(done=sum(outcome.state in ENDED for outcome in known.values()) - _again(missing, known))
        with Display(settings, total=total, known=[o for run, o in known.items() if run not in missing]) as display:
            failed = 0

            def on_end(outcome: RunOutcome) -> None:
                nonlocal failed
                failed += outcome.state in ("failed", "diverged")
                if proposer:
                    proposer.ended(outcome)
                if outcome.state in ENDED:
                    heart.step(failed=failed)
                display.ended(outcome)

            ears = RunCallbacks(queue, folder, asha.stopped if asha else set(), display.epoch, on_end)
            heart.watch(ears.running)
            display.watch(ears.running)
            _tune(sweep, shared, queue, asha, ears, resources.bundle)
    outcomes = sweep.outcomes()
    if all(outcome.state == "waiting" for outcome in outcomes):
        raise RunError(_why_none_began(settings, folder))
    return sweep, outcomes


def _left(sweep: Sweep) -> tuple[dict[SweepRun, RunOutcome], list[SweepRun]]:
    """How every run stands, and those that are to be trained."""
    known = {run: read_outcome(sweep.folder, run) for run in sweep.runs()}
    go_on = ["waiting", "unfinished", "failed", "diverged"]
    go_on += ["stopped"] if sweep.settings.scheduler == "none" else []
    return known, [run for run, outcome in known.items() if outcome.state in go_on]


def _why_none_began(settings: TuneSettings, folder: Folder) -> str:
    limit = f" within {settings.max_hours:g} hours (max_hours)" if settings.max_hours else ""
    return (
        f"no run has finished an epoch{limit}; the same command tries again: "
        f"see the logs of Ray, and `bat-dist tune --status --out {folder}`"
    )


def _tune(
    sweep: Sweep,
    shared: SharedByRuns,
    queue: RunQueue,
    asha: Asha | None,
    ears: RunCallbacks,
    bundle: Mapping[str, float],
) -> None:
    """Let Tune run the queue."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own files say it all
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this program as it ends the others
        "RAY_AIR_NEW_OUTPUT": "0",  # which prints a box even where nothing is to be printed
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths mean the same everywhere
    }
    from ray import tune

    workers = sweep.example.num_workers
    trainable = tune.with_parameters(train_run, shared=shared)
    # With data-parallel workers a run is a bystander: its workers take the room.
    place = {"cpu": 0.01} if workers else {"cpu": bundle["CPU"], "gpu": bundle.get("GPU", 0.0)}
    with ray_storage(sweep.folder) as storage:
        tuner = tune.Tuner(
            tune.with_resources(trainable, place),
            param_space={},
            tune_config=tune.TuneConfig(
                search_alg=queue,
                scheduler=asha,
                num_samples=EVERYTHING,
                max_concurrent_trials=_concurrency(sweep, bundle),
                time_budget_s=sweep.settings.max_hours and sweep.settings.max_hours * 3600,
                reuse_actors=not workers,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                **storage,
                callbacks=[ears],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        tuner.fit()


def _concurrency(sweep: Sweep, bundle: Mapping[str, float]) -> int | None:
    """Runs at a time.  Data-parallel ones must be counted here: Tune does not see the room that their workers take."""
    asked, workers = sweep.settings.concurrency, sweep.example.num_workers
    if not workers:
        return asked
    each = Resources(int(bundle["CPU"]), bundle.get("GPU", 0.0))
    room = max(1, most_workers(each) // workers)
    return min(asked or room, room)


def _again(missing: list[SweepRun], known: Mapping[SweepRun, RunOutcome]) -> int:
    """How many have ended once and are tried again."""
    return sum(known[run].state in ENDED for run in missing)


def _asha(sweep: Sweep, known: Mapping[SweepRun, RunOutcome]) -> Asha | None:
    """The scheduler, told of what earlier sessions saw."""
    if sweep.settings.scheduler == "none":
        return None
    how = {"factor": sweep.settings.asha_factor, "first": sweep.settings.asha_first}
    asha = Asha(sweep.example.training, metric=sweep.settings.metric[0], **how)
    for run, outcome in known.items():
        if outcome.state in ("done", "stopped"):
            asha.replay(run.name, read_history(sweep.folder / run.name))
    return asha


def _num_points(sweep: Sweep) -> int:
    """Points in the end."""
    if sweep.settings.search != "tpe":
        return len(sweep.points())
    return len(sweep.settings.known_points) + (sweep.settings.num_points or 0)


def _num_wanted(sweep: Sweep) -> int:
    """Points that TPE has yet to propose."""
    return _num_points(sweep) - len(sweep.points())


class _Proposer:
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
        if _num_wanted(self._sweep) <= 0:
            return []
        point = self._proposals.propose(record.points)
        if point is None:
            return []
        full = {**{n: settings.base_values[n] for n in ("alpha", "beta") if settings.is_bat}, **point}
        record.add([full], to_dict(settings))
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
