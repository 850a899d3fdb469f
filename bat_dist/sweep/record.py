"""What a sweep's folder holds: its points, and what has become of each run of them.

`sweep.json` names the points; `runs/alpha=1,beta=0.2/seed0/` is a folder of `bat-dist train` like any other, and tells
by itself whether its run is done. Beside its own files lie `failure.json`, of a run that failed, and `stopped.json`,
of one that the scheduler has stopped.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from bat_dist.config import differences
from bat_dist.errors import WAY_OUT, UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance, without_passwords
from bat_dist.sweep.space import Point, point_name, without_repetition
from bat_dist.training import files as training_run

log = logging.getLogger(__name__)

SWEEP, FAILURE, STOPPED, RUNS = "sweep.json", "failure.json", "stopped.json", "runs"
MAX_REASON = 500  # characters

State = Literal["done", "stopped", "failed", "diverged", "unfinished", "waiting"]
ENDED: tuple[State, ...] = ("done", "stopped", "failed", "diverged")


@dataclass(frozen=True, eq=False)
class SweepRun:
    """A point, trained with one seed; equal to another of the same name."""

    point: Point
    seed: int

    @property
    def name(self) -> str:
        """Its folder within the sweep's."""
        return f"{RUNS}/{point_name(self.point)}/seed{self.seed}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SweepRun) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return f"{point_name(self.point)} seed {self.seed}"


@dataclass(frozen=True)
class RunOutcome:
    """What has become of a run.  best, last: rows of its history, None before its first epoch is done."""

    run: SweepRun
    state: State
    reason: str = ""
    epochs: int = 0
    best: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    seconds: float = 0.0

    def row(self, which: str) -> Mapping[str, Any]:
        """The row of its history that counts, `best` or `last`; empty before its first epoch is done."""
        return (self.best if which == "best" else None) or self.last or {}


@dataclass(frozen=True)
class RecordedSettings:
    """The settings of a sweep that readers of its `sweep.json` need.  metric, which: what points are chosen by."""

    seeds: tuple[int, ...]
    metric: tuple[str, ...] = ("val_pgd",)
    which: str = "best"
    search: str = "grid"


@dataclass(frozen=True)
class SweepFile:
    """What `sweep.json` says of a sweep.  identity: flat plain values that all its runs share.

    proposed: the points that TPE proposed. wanted: the points that the last call asked for; others are of earlier
    calls. Both are None in files of earlier versions.
    """

    points: list[Point]
    identity: Mapping[str, Any]
    asked: RecordedSettings
    proposed: list[Point] | None = None
    wanted: list[Point] | None = None


class SweepRecord:
    """The points of a sweep, kept in its folder.  identity: flat plain values that all its runs share.

    replaces: what the folder holds will be removed before the first point is added, whatever it is.
    """

    def __init__(self, folder: Folder, identity: Mapping[str, Any], *, replaces: bool = False) -> None:
        """Raises UserError, naming what differs, if the folder holds another sweep, of whose runs one has begun."""
        self.folder, self._identity = folder, _alike(identity)
        self.points: list[Point] = []
        self.proposed: list[Point] = []
        self._is_replaced, self._chosen = False, {}
        if folder.exists(SWEEP) and not replaces:
            there = read_sweep(folder)
            differs = differences(there.identity, self._identity)
            if differs and is_begun(folder):
                raise UserError(f"{folder} holds another sweep; {WAY_OUT}\n" + "\n".join(differs))
            self._is_replaced = bool(differs)
            if not differs:
                self.points = there.points
                earlier = there.points if there.asked.search == "tpe" else []
                self.proposed = earlier if there.proposed is None else there.proposed

    def add(
        self,
        points: Sequence[Point],
        about: Mapping[str, Any],
        *,
        chosen: Mapping[str, str] | None = None,
        proposed: bool = False,
    ) -> None:
        """More points; those that are there stay.

        about: what the sweep was asked for, kept for readers. chosen: what `auto` stands for, and why.
        proposed: whether TPE has proposed them.
        """
        if self._is_replaced:
            log.info("%s was made for another sweep, and not one epoch is finished: it is replaced", self.folder)
            remove(self.folder)
            self._is_replaced = False
        self._chosen = dict(chosen or self._chosen)
        self.points = without_repetition([*self.points, *points])
        self.proposed = without_repetition([*self.proposed, *points]) if proposed else self.proposed
        wanted = self.points if about.get("search") == "tpe" else list(points)
        document = {"points": self.points, "proposed": self.proposed, "wanted": wanted, "identity": self._identity}
        document |= {"asked": dict(about), "chosen": self._chosen}
        document |= provenance()
        self.folder.create()
        self.folder.write_json(SWEEP, document)


def is_begun(folder: Folder) -> bool:
    """Whether a run of the folder's sweep has finished an epoch."""
    return any(training_run.is_begun(folder / place) for place in _places(folder))


def begun_identity(folder: Folder) -> Mapping[str, Any]:
    """The identity of the folder's sweep; nothing if none of its runs has finished an epoch."""
    return read_sweep(folder).identity if folder.exists(SWEEP) and is_begun(folder) else {}


def remove(folder: Folder) -> None:
    """Remove the folder's sweep, and the runs that it names: what this package has written there, by name."""
    for place in _places(folder):
        remove_run(folder, place)
    folder.remove_if_empty(RUNS)
    folder.remove(SWEEP)  # last: what it names can then be found again


def remove_run(folder: Folder, place: str) -> None:
    """Remove a run below a sweep's folder, and the folders that this leaves empty."""
    training_run.remove(folder / place)
    folder.remove_files(f"{place}/{name}" for name in (FAILURE, STOPPED))
    folder.remove_if_empty(place.rpartition("/")[0])


def _places(folder: Folder) -> list[str]:
    """The folders of all runs of the folder's sweep that are there."""
    points = read_sweep(folder).points if folder.exists(SWEEP) else []
    names = [f"{RUNS}/{point_name(point)}" for point in points]
    return [f"{name}/{seed}" for name in names for seed in (folder / name).entries()[0] if seed.startswith("seed")]


def read_sweep(folder: Folder) -> SweepFile:
    """What `sweep.json` says.  Raises UserError if there is none, or it is damaged."""
    if not folder.exists(SWEEP):
        raise UserError(f"{folder} holds no sweep: run bat-dist tune --out {folder} first")
    try:
        found = TypeAdapter(SweepFile).validate_python(folder.read_json(SWEEP))
    except ValidationError:
        raise UserError(f"{folder}/{SWEEP} is not as bat-dist tune writes it: it is damaged; remove it") from None
    return replace(found, identity=_alike(found.identity))


def _alike(identity: Mapping[str, Any]) -> dict[str, Any]:
    """With one value for all numbers of workers that train alike: 0 and 1, and with `sync_bn` any."""
    alike = dict(identity)
    if "num_workers" in alike:
        alike["num_workers"] = 1 if alike.get("sync_bn") else max(1, alike["num_workers"])
    return alike


def read_outcome(folder: Folder, run: SweepRun) -> RunOutcome:
    """What has become of a run, from its files alone.  folder: the sweep's."""
    place = folder / run.name
    if done := training_run.finished(place):
        return RunOutcome(
            run, "done", epochs=int(done.last["epoch"] or 0), best=done.best, last=done.last, seconds=done.seconds
        )
    history = training_run.read_history(place)
    state, reason = "unfinished" if history else "waiting", ""
    if place.exists(FAILURE):
        failure = place.read_json(FAILURE)
        state, reason = failure["state"], failure["reason"]
    elif place.exists(STOPPED):
        state, reason = "stopped", place.read_json(STOPPED)["reason"]
    last = history[-1] if history else None
    return RunOutcome(run, state, reason, len(history), last=last, seconds=training_run.training_seconds(history))


def read_run_outcomes(
    folder: Folder, wanted: Iterable[SweepRun], earlier: Iterable[Point], seeds: Sequence[int]
) -> list[RunOutcome]:
    """The outcome of every run that is wanted, and of earlier points that have ended with all seeds.

    The other runs of points that are no longer asked for are not trained: a sweep that waits for them never ends.
    """
    outcomes = {run: read_outcome(folder, run) for run in wanted}
    for point in earlier:
        runs = [SweepRun(point, seed) for seed in seeds]
        of_point = {run: outcomes[run] if run in outcomes else read_outcome(folder, run) for run in runs}
        if all(outcome.state in ENDED for outcome in of_point.values()):
            outcomes |= of_point
    return list(outcomes.values())


def note_failure(place: Folder, reason: str, text: str = "") -> None:
    """Write down in a run's folder why it ended.  text: a traceback."""
    diverged = place.exists(training_run.NON_FINITE)
    first = without_passwords(reason)[:MAX_REASON]
    document = {"state": "diverged" if diverged else "failed", "reason": first, "traceback": without_passwords(text)}
    place.create()
    place.write_json(FAILURE, document)
