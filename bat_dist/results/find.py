"""Every result of `bat-dist` below some folders: what it is, what it holds, and what cannot be read, with the reason.

A folder is known by the file in it that is written last (`evaluation.json`, a finished `run.json`, `sweep.json`,
`memorization.npz`); one that was begun and not ended by what is written first.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import FAILURE, RUNS, SWEEP, SweepFile, read_sweep
from bat_dist.training import files as training_run

log = logging.getLogger(__name__)

EVALUATION, FLAGS, EXPERIMENT = "evaluation.json", "flags.npz", "experiment.json"
MEMORIZATION, SUMMARY, ENSEMBLE = "memorization.npz", "summary.json", "ensemble_summary.json"
FORMAT = 1  # of evaluation.json, as this version writes it; files without a number are of the first releases
NOT_WALKED = {"trials", "units", "ensemble", "figures", "ensemble_figures", "logs", "failed"}  # inside of results
DEEPEST = 12  # folders below the one that was named: links may lead in circles
READERS = 16  # at a time: object stores answer slowly
_NEEDED = ("rows", "facts", "network", "fingerprint", "settings")  # of evaluation.json


class LeftOut(NamedTuple):
    """A result that is in no table, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Training:
    """A run of `bat-dist train`, finished or not.  history: a row per epoch; failure: why it ended, if it did badly."""

    place: str
    run: training_run.RunFile
    history: Sequence[Mapping[str, Any]]
    failure: str = ""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its settings, flat."""
        return self.run.identity

    @property
    def is_finished(self) -> bool:
        """Was it trained to its end?"""
        return isinstance(self.run, training_run.FinishedRun)


@dataclass(frozen=True)
class FoundEvaluation:
    """A run of `bat-dist evaluate`: its document, and by attack which test images stayed right.

    subsets: of the test images, such as typical and atypical.
    """

    place: str
    document: Mapping[str, Any]
    flags: Mapping[str, Bool[np.ndarray, " images"]]
    subsets: Mapping[str, Bool[np.ndarray, " images"]]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the command."""
        return self.document["settings"]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Of the network."""
        return self.document["facts"]


class Memorized(NamedTuple):
    """A run of `bat-dist memorize`: its summary, and the scores themselves (None: of an ensemble alone)."""

    folder: Folder
    summary: Mapping[str, Any]


class Swept(NamedTuple):
    """A run of `bat-dist tune`."""

    folder: Folder
    sweep: SweepFile


class PlannedRun(NamedTuple):
    """A run of `bat-dist reproduce`: what it is to hold in the end."""

    folder: Folder
    document: Mapping[str, Any]


@dataclass
class Found:
    """All results.  unfinished: evaluations and memorizations that were begun."""

    trainings: list[Training] = field(default_factory=list)
    evaluations: list[FoundEvaluation] = field(default_factory=list)
    memorized: list[Memorized] = field(default_factory=list)
    swept: list[Swept] = field(default_factory=list)
    planned: list[PlannedRun] = field(default_factory=list)
    unfinished: list[LeftOut] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Is there nothing to report?"""
        return not (self.trainings or self.evaluations or self.memorized or self.swept or self.planned)


def find_results(locations: Sequence[str]) -> Found:
    """All results below these folders or URIs; one that is reached twice counts once.

    What is damaged, or of another format, is left out by name. Raises UserError if a location does not exist.
    """
    found, seen = Found(), set()
    with ThreadPoolExecutor(READERS) as readers:
        for location in locations:
            top = Folder(location)
            if not top.exists(""):
                raise UserError(f"{top} does not exist: name folders that hold results of bat-dist")
            places = [place for place in _walk(top) if not (place.key in seen or seen.add(place.key))]
            for place, outcome in zip(places, readers.map(_read, places), strict=True):
                _sort_in(found, place, outcome)
    found.evaluations.sort(key=lambda one: one.place)
    found.trainings.sort(key=lambda one: one.place)
    return found


class _Place(NamedTuple):
    """A folder that looks like a result."""

    folder: Folder
    files: frozenset[str]
    folders: frozenset[str]

    @property
    def key(self) -> tuple[str, str]:
        """Equal for two ways to one folder."""
        local = self.folder.local_path
        return str(self.folder.fs.protocol), self.folder.root if local is None else str(local.resolve())


def _walk(folder: Folder, depth: int = 0) -> Iterator[_Place]:
    """The folder and all below it, but not the insides of results."""
    folders, files = folder.entries()
    place = _Place(folder, frozenset(files), frozenset(folders))
    if place.files & {EVALUATION, training_run.RUN, training_run.HISTORY, SWEEP, EXPERIMENT, FAILURE} or (
        place.files & {MEMORIZATION, ENSEMBLE} or place.folders & {"units", "trials", "ensemble"}
    ):
        yield place
    inside = NOT_WALKED | ({RUNS} if SWEEP in place.files else set())  # a sweep speaks for its runs
    for name in folders:
        if name not in inside and not name.startswith(".") and depth < DEEPEST:
            yield from _walk(folder / name, depth + 1)


def _read(place: _Place) -> list[Any] | Exception:
    """All that the folder is."""
    folder, files = place.folder, place.files
    try:
        found: list[Any] = []
        if EXPERIMENT in files:
            found.append(PlannedRun(folder, _object(folder, EXPERIMENT)))
        if SWEEP in files:
            found.append(Swept(folder, read_sweep(folder)))
        if EVALUATION in files:
            found.append(_evaluation(folder))
        elif "units" in place.folders:
            found.append(LeftOut(str(folder), "the evaluation is not finished: the same command goes on"))
        if training_run.RUN in files or training_run.HISTORY in files or (FAILURE in files and SWEEP not in files):
            found.append(_training(place))
        if SUMMARY in files and MEMORIZATION in files:
            found.append(Memorized(folder, _object(folder, SUMMARY)))
        elif "trials" in place.folders:
            found.append(LeftOut(str(folder), "memorization is not finished: the same command goes on"))
        if ENSEMBLE in files:
            found.append(Memorized(folder, _object(folder, ENSEMBLE)))
        return found
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        return error


def _sort_in(found: Found, place: _Place, outcome: list[Any] | Exception) -> None:
    if isinstance(outcome, Exception):
        what = str(outcome) if isinstance(outcome, UserError) else f"{type(outcome).__name__}: {outcome}"
        found.left_out.append(LeftOut(str(place.folder), what))
        return
    shelves = {
        Training: found.trainings,
        FoundEvaluation: found.evaluations,
        Memorized: found.memorized,
        Swept: found.swept,
        PlannedRun: found.planned,
        LeftOut: found.unfinished,
    }
    for one in outcome:
        shelves[type(one)].append(one)


def _object(folder: Folder, name: str) -> Mapping[str, Any]:
    document = folder.read_json(name)
    if not isinstance(document, dict):
        raise UserError(f"{folder}/{name} is not as bat-dist writes it: it is damaged; remove it")
    return document


def _evaluation(folder: Folder) -> FoundEvaluation:
    document = _object(folder, EVALUATION)
    version = document.get("bat_dist", "an unknown version")
    if document.get("format", FORMAT) > FORMAT:
        raise UserError(f"{EVALUATION} was written by a newer bat_dist, {version}: update this one")
    if missing := [name for name in _NEEDED if name not in document]:
        raise UserError(f"{EVALUATION} of bat_dist {version} has no {', '.join(missing)}: evaluate it again")
    arrays = folder.read_npz(FLAGS)
    if missing := [name for name in ("flags", "attacks", "fingerprint") if name not in arrays]:
        raise UserError(f"{FLAGS} of bat_dist {version} has no {', '.join(missing)}: evaluate it again")
    names = arrays["attacks"].tolist()
    if str(arrays["fingerprint"]) != document["fingerprint"] or names != [row["attack"] for row in document["rows"]]:
        raise UserError(f"{EVALUATION} and {FLAGS} are not of one evaluation: evaluate it again")
    subsets = {name.removeprefix("subset_"): arrays[name] for name in arrays if name.startswith("subset_")}
    flags = dict(zip(names, np.asarray(arrays["flags"], bool), strict=True))
    return FoundEvaluation(str(folder), document, flags, subsets)


def _training(place: _Place) -> Training:
    folder = place.folder
    run = training_run.read_run(folder) if training_run.RUN in place.files else training_run.RunFile()
    failure = _object(folder, FAILURE).get("reason", "") if FAILURE in place.files else ""
    return Training(str(folder), run, training_run.read_history(folder), failure)
