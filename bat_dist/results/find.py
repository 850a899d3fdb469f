"""Every result of `bat-dist` below some folders: what it is, what it holds, and what cannot be read, with the reason.

A folder is known by the file in it that is written last (`evaluation.json`, a finished `run.json`, `sweep.json`,
`memorization.npz`); one that was begun and not ended by what is written first.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bat_dist.errors import UserError, describe_error
from bat_dist.results.evaluation_file import EVALUATION, FoundEvaluation, read_evaluation, read_object
from bat_dist.results.experiment_file import EXPERIMENT, ExperimentFile, read_experiment
from bat_dist.results.findings_file import FoundStudy, read_findings
from bat_dist.results.summary_file import ENSEMBLE, SUMMARY, ScoresSummary, read_summary
from bat_dist.settings.study import FINDINGS
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import FAILURE, RUNS, SWEEP, SweepFile, read_sweep
from bat_dist.training import files as training_run

log = logging.getLogger(__name__)

MEMORIZATION = "memorization.npz"
# Folders inside of results, which are not walked; a folder that is no result may have others of these names.
NOT_WALKED = {"trials", "units", "ensemble", "figures", "ensemble_figures", "logs", "failed"}
STORE = "zarr.json"  # of a store of rows, the inside of a result that is not finished yet
DEEPEST = 12  # folders below the one that was named: links may lead in circles
READERS = 16  # at a time: object stores answer slowly


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
        """The settings that it was trained with, flat."""
        return self.run.identity

    @property
    def is_finished(self) -> bool:
        """Was it trained to its end?"""
        return isinstance(self.run, training_run.FinishedRun)


class Swept(NamedTuple):
    """A run of `bat-dist tune`."""

    folder: Folder
    sweep: SweepFile


class Memorized(NamedTuple):
    """A run of `bat-dist memorize`."""

    folder: Folder
    summary: ScoresSummary


class PlannedExperiment(NamedTuple):
    """A run of `bat-dist reproduce`."""

    folder: Folder
    experiment: ExperimentFile


@dataclass
class Found:
    """All results.  unfinished: evaluations and memorizations that were begun."""

    trainings: list[Training] = field(default_factory=list)
    evaluations: list[FoundEvaluation] = field(default_factory=list)
    memorized: list[Memorized] = field(default_factory=list)
    swept: list[Swept] = field(default_factory=list)
    planned: list[PlannedExperiment] = field(default_factory=list)
    studies: list[FoundStudy] = field(default_factory=list)
    unfinished: list[LeftOut] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Is there nothing to report?"""
        results = (self.trainings, self.evaluations, self.memorized, self.swept, self.planned, self.studies)
        return not any(results)


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
            for part in readers.map(_read, places):
                for kind, those in vars(found).items():
                    those.extend(getattr(part, kind))
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
        """The same for two ways to one folder."""
        local = self.folder.local_path
        return str(self.folder.fs.protocol), self.folder.root if local is None else str(local.resolve())


def _walk(folder: Folder, depth: int = 0) -> Iterator[_Place]:
    """The folder and all below it, but not the insides of results."""
    folders, files = folder.entries()
    place = _Place(folder, frozenset(files), frozenset(folders))
    if STORE in place.files:
        return
    ended = place.files & {EVALUATION, training_run.RUN, training_run.HISTORY, SWEEP, FINDINGS, MEMORIZATION, ENSEMBLE}
    if ended or place.files & {EXPERIMENT, FAILURE} or place.folders & {"units", "trials", "ensemble"}:
        yield place
    inside = (NOT_WALKED if ended else set()) | ({RUNS} if SWEEP in place.files else set())  # it speaks for its runs
    for name in folders:
        if name not in inside and not name.startswith(".") and depth < DEEPEST:
            yield from _walk(folder / name, depth + 1)


def _read(place: _Place) -> Found:
    """All that the folder itself is, without those below it."""
    folder, files, found = place.folder, place.files, Found()
    try:
        if EXPERIMENT in files:
            found.planned.append(PlannedExperiment(folder, read_experiment(folder)))
        if FINDINGS in files:
            found.studies.append(read_findings(folder))
        if SWEEP in files:
            found.swept.append(Swept(folder, read_sweep(folder)))
        if EVALUATION in files:
            found.evaluations.append(read_evaluation(folder))
        elif "units" in place.folders and any(
            (folder / "units" / stage).exists(STORE) for stage in (folder / "units").entries()[0]
        ):
            found.unfinished.append(LeftOut(str(folder), "the evaluation is not finished: the same command goes on"))
        if training_run.RUN in files or training_run.HISTORY in files or (FAILURE in files and SWEEP not in files):
            run = training_run.read_run(folder) if training_run.RUN in files else training_run.RunFile()
            failure = read_object(folder, FAILURE).get("reason", "") if FAILURE in files else ""
            found.trainings.append(Training(str(folder), run, training_run.read_history(folder), failure))
        if SUMMARY in files and MEMORIZATION in files:
            found.memorized.append(Memorized(folder, read_summary(folder, SUMMARY)))
        elif "trials" in place.folders and (folder / "trials").exists(STORE):
            found.unfinished.append(LeftOut(str(folder), "memorization is not finished: the same command goes on"))
        if ENSEMBLE in files:
            found.memorized.append(Memorized(folder, read_summary(folder, ENSEMBLE)))
        return found
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        return Found(left_out=[LeftOut(str(folder), describe_error(error))])
