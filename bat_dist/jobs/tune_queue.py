"""Which run comes next: what Tune asks, and what it tells, between the sweep's record and its trials."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import ray.exceptions as rx
from ray import cloudpickle, tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from bat_dist.errors import describe_error
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import FAILURE, STOPPED, RunOutcome, SweepRun, note_failure, read_outcome
from bat_dist.sweep.space import Point
from bat_dist.training.files import EpochRow
from bat_dist.training.recipe import Recipe
from bat_dist.workers.nodes import is_node_lost
from bat_dist.workers.retry import MAX_ATTEMPTS, MAX_LOSSES
from bat_dist.workers.running import UNKNOWN_PLACE, Running, WorkerPlace

log = logging.getLogger(__name__)

EVERYTHING = 10**9  # runs: the searcher says itself when there are no more


class RunRequest(TypedDict):
    """What a worker of Tune is told of the run that it is to train, as the config of a trial."""

    point: Point
    seed: int


class _NotKept:
    """Tune pickles what it is given, for a restore that is never asked for."""

    def __getstate__(self) -> dict:
        return {}


class RunQueue(_NotKept, Searcher):
    """Hands out runs in their order, again those that are put back, and then what `more` gives.

    more: called when the queue is empty; an empty answer means that there is nothing now, and nothing ever if no run is
    at work.
    """

    def __init__(self, runs: Iterable[SweepRun], more: Callable[[], list[SweepRun]] = list) -> None:
        super().__init__()
        self.waiting, self._more = deque(runs), more
        self.at_work: dict[str, SweepRun] = {}
        self._deaths: Counter[SweepRun] = Counter()
        self._losses: Counter[SweepRun] = Counter()

    def suggest(self, trial_id: str) -> RunRequest | str | None:
        """The next run's config; None: none now; FINISHED: none any more."""
        if not self.waiting:
            self.waiting.extend(self._more())
        if not self.waiting:
            return None if self.at_work else Searcher.FINISHED
        run = self.at_work[trial_id] = self.waiting.popleft()
        return RunRequest(point=dict(run.point), seed=run.seed)

    def put_back(self, run: SweepRun, *, machine_lost: bool) -> bool:
        """Try a run again that did not fail by itself; False if that was too often."""
        tally, most = (self._losses, MAX_LOSSES) if machine_lost else (self._deaths, MAX_ATTEMPTS)
        tally[run] += 1
        if tally[run] < most:
            self.waiting.appendleft(run)
        return tally[run] < most

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """Nothing to set: points and goals are known."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """See `RunCallbacks`, which is told why."""

    def save(self, checkpoint_path: str) -> None:
        """The record is in the sweep's folder."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class RunCallbacks(_NotKept, tune.Callback):
    """Hears of each run's epochs and end.

    on_epoch: gets the run and its row.  on_end: gets the outcome, once, when nothing more will happen to the run.
    """

    def __init__(
        self,
        queue: RunQueue,
        folder: Folder,
        stopped: set[str],
        on_epoch: Callable[[SweepRun, dict[str, Any]], None],
        on_end: Callable[[RunOutcome], None],
    ) -> None:
        self._queue, self._folder, self._stopped = queue, folder, stopped
        self._on_epoch, self._on_end = on_epoch, on_end
        self._begun: dict[str, float] = {}
        self._places: dict[str, WorkerPlace] = {}

    def running(self) -> list[Running]:
        """What is at work now, and where, as far as is known before its first epoch.  Another thread may ask."""
        now = time.perf_counter()
        at_work = list(self._queue.at_work.items())
        return [
            Running(run, place.host, place.pid, now - self._begun[trial])
            for trial, run in at_work
            if trial in self._begun and (place := self._places.get(trial, UNKNOWN_PLACE))
        ]

    def on_trial_start(self, iteration: int, trials: list, trial: Trial, **info: Any) -> None:
        """A run begins."""
        self._begun[trial.trial_id] = time.perf_counter()

    def on_trial_result(self, iteration: int, trials: list, trial: Trial, result: dict, **info: Any) -> None:
        """An epoch is done."""
        if run := self._queue.at_work.get(trial.trial_id):
            self._places[trial.trial_id] = WorkerPlace("", result.get("hostname", ""), result.get("pid", 0))
            self._on_epoch(run, result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Trial, **info: Any) -> None:
        """A run has come to its end, or was stopped: by the scheduler, or because time is up."""
        run = self._queue.at_work.pop(trial.trial_id, None)
        if run is None:
            return
        if trial.trial_id in self._stopped and read_outcome(self._folder, run).state == "unfinished":
            epoch = trial.last_result.get("epoch")
            (self._folder / run.name).write_json(STOPPED, {"reason": f"stopped by asha after epoch {epoch}"})
        self._on_end(read_outcome(self._folder, run))

    def on_trial_error(self, iteration: int, trials: list, trial: Trial, **info: Any) -> None:
        """A run raised, which it has noted itself; or its GPU was full, its process died, or it could not begin."""
        run = self._queue.at_work.pop(trial.trial_id, None)
        if run is None:
            return
        place = self._folder / run.name
        if not place.exists(FAILURE):
            error = _error_of(trial)
            reason = " ".join(describe_error(error).split())
            if isinstance(error, rx.RayError):
                reason = f"its process died (for want of memory?): {reason}"
            if self._queue.put_back(run, machine_lost=is_node_lost(error)):
                log.warning("%s is tried again: %s", run, reason)
                return
            note_failure(place, reason)
        self._on_end(read_outcome(self._folder, run))


def _error_of(trial: Trial) -> BaseException:
    """What ended a trial: what the run raised, or Ray's word on its process.

    It is read where the driver writes it.  Tune's own `get_pickled_error` looks in the storage of the experiment, to
    which it is not yet copied when a trial has failed (Ray 2.60).
    """
    if trial.pickled_error_file is None:  # of the rarer kinds only the text is kept
        return rx.RayError(Path(str(trial.error_file)).read_text())
    error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error.cause if isinstance(error, rx.RayTaskError) and isinstance(error.cause, Exception) else error


class Asha(ASHAScheduler):
    """ASHA (Li et al. 2020) whose rungs lie after the first drop of the learning rate; `stopped`: trials it stopped.

    Before the drop robust accuracy says little of what it will be: the order of points changes there.
    """

    def __init__(self, recipe: Recipe, *, metric: str, factor: float, first: int) -> None:
        drop = first_drop(recipe)
        last = recipe.epochs - drop
        super().__init__(
            time_attr="epochs_after_drop",
            metric=metric,
            mode="max",
            grace_period=min(first, last),
            max_t=last,
            reduction_factor=factor,
        )
        self._drop, self._epochs = drop, recipe.epochs
        self.stopped: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """STOP for a trial that lags behind at a rung."""
        since = result["epoch"] - self._drop
        if since <= 0 or result["epoch"] >= self._epochs:  # before any rung, or at the end in any case
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, {**result, "epochs_after_drop": since})
        if decision == TrialScheduler.STOP:
            self.stopped.add(trial.trial_id)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        """The end is a rung too."""
        if (since := result.get("epoch", 0) - self._drop) > 0:
            super().on_trial_complete(tune_controller, trial, {**result, "epochs_after_drop": since})

    @property
    def metric(self) -> None:
        """None: Tune ends all runs at a result without a scheduler's metric, and an undefined accuracy is in none."""
        return

    def replay(self, name: str, history: Iterable[EpochRow]) -> None:
        """What a run of an earlier session had reached."""
        trial: Any = SimpleNamespace(trial_id=name)  # as much of a Tune trial as ASHA looks at
        super().on_trial_add(None, trial)  # pyright: ignore[reportArgumentType]
        for row in history:
            self.on_trial_result(None, trial, defined(row))


def defined(row: Mapping[str, int | float | None]) -> dict[str, int | float]:
    """An epoch's row as Tune is told it: without accuracies on no sample, which are None and cannot be compared."""
    return {name: value for name, value in row.items() if value is not None}


def first_drop(recipe: Recipe) -> int:
    """The epoch after which the learning rate is first low: a multistep's milestone; any other fall to a half."""
    rise = recipe.warmup if recipe.schedule == "one_cycle" else recipe.warmup_epochs / recipe.epochs
    share = recipe.milestones[0] if recipe.milestones else rise + (1 - rise) / 2
    return min(round(share * recipe.epochs), recipe.epochs - 1)
