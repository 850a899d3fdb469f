"""What folders of `bat-dist evaluate` and `bat-dist reproduce` hold, in words, from their files alone.  No torch."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from bat_dist.errors import UserError
from bat_dist.evaluation.plan import make_plan
from bat_dist.results.evaluation_file import EVALUATION, read_object, read_rows
from bat_dist.results.experiment_file import EXPERIMENT, ExperimentFile, PlannedRun, read_experiment
from bat_dist.results.find import READERS
from bat_dist.results.study_file import read_studies
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.reproduce import ATTACKS
from bat_dist.settings.small import SCORES
from bat_dist.settings.study import FINDINGS, RESULTS
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import settings_of
from bat_dist.storage.rows import RowStore
from bat_dist.storage.status import GO_ON, UNITS, describe_driver, failures
from bat_dist.storage.status import describe as describe_memorization
from bat_dist.sweep.record import FAILURE
from bat_dist.training.files import RUN, finished, read_history

_MOST = 10  # failures that are shown


def describe_evaluation(folder: Folder, *, clock: Callable[[], float] = time.time) -> str:
    """Some lines on the driver, and one on each attack.  Raises UserError if the folder holds no evaluation."""
    units = folder / UNITS
    stores = {name: store for name in units.entries()[0] if (store := RowStore.existing(units / name))}
    there = {name: store.status().complete for name, store in stores.items()}
    known = read_rows(folder)
    if not stores and known is None:
        raise UserError(f"{folder} holds no evaluation: run bat-dist evaluate --out {folder} first")
    rows = {row.attack: row.overall for row in known or ()}
    asked = _asked(folder) or list(rows)
    is_complete = bool(asked) and rows.keys() >= set(asked)
    lines = list(describe_driver(folder, {}, clock, is_complete=is_complete))
    state = "complete" if is_complete else f"not finished: {GO_ON}"
    done = sum(name in rows for name in asked)
    lines.append(
        f"{folder}: {done} of {len(asked)} attacks in {EVALUATION}, {state}" if asked else f"{folder}: {state}"
    )
    lines += [f"  {name}: {row}" for name, row in rows.items()]
    if not is_complete:
        lines += [f"  {stage}: {complete.sum()} of {len(complete)} units" for stage, complete in there.items()]
    for stage, complete in there.items():
        notes = failures(folder, stage, complete).items()
        lines += [f"  failed: {stage}-{number}: {reason}" for number, reason in notes]
    return "\n".join(lines)


def _asked(folder: Folder) -> list[str]:
    """The rows that the settings in the folder ask for; none if it has no settings."""
    known = settings_of(folder, "evaluate")
    if "attacks" not in known or "seeds" not in known:
        return []
    return [name for name in make_plan(known["attacks"].value, known["seeds"].value, checks=()).rows]


class _Part(NamedTuple):
    """A training or an evaluation of an experiment.  state: done, failed, begun or waiting."""

    name: str
    state: str
    reason: str = ""


def describe_experiment(folder: Folder, *, clock: Callable[[], float] = time.time) -> str:
    """Some lines on the driver, and on what is there.  Raises UserError if the folder holds no experiment."""
    if not folder.exists(EXPERIMENT):
        raise UserError(f"{folder} holds no experiment: run bat-dist reproduce --out {folder} first")
    experiment = read_experiment(folder)
    runs = experiment.runs
    asked = _asked_of_experiment(experiment)
    with ThreadPoolExecutor(READERS) as readers:
        trainings = list(
            readers.map(lambda run: _training(folder / run.training, f"{run.label} seed {run.seed} train"), runs)
        )
        places = [(run, *one) for run in runs for one in run.evaluations.items()]
        evaluations = list(readers.map(lambda one: _evaluation(folder, *one, asked=asked), places))
    parts = [*trainings, *evaluations]
    is_complete = all(part.state == "done" for part in parts)
    lines = []
    with suppress(UserError):  # no leave-out trials were begun: the scores are from elsewhere, or no row needs any
        lines += describe_memorization(folder / SCORES, clock=clock).splitlines()
    lines += describe_driver(folder, {}, clock, is_complete=is_complete)
    lines.append(f"{folder}: table {experiment.table}, {'complete' if is_complete else f'not finished: {GO_ON}'}")
    lines += [f"  trainings: {_counts(trainings)}", f"  evaluations: {_counts(evaluations)}"]
    lines += [f"  at epoch {part.reason}: {part.name}" for part in trainings if part.state == "begun"]
    failed = [part for part in parts if part.state == "failed"]
    lines += [f"  failed: {part.name}: {part.reason}" for part in failed[:_MOST]]
    lines += [f"  ... and {len(failed) - _MOST} more failed"] * (len(failed) > _MOST)
    return "\n".join(lines)


def _asked_of_experiment(experiment: ExperimentFile) -> set[str]:
    """The rows of each evaluation; none if the file, of an early version, does not say what was asked."""
    if not experiment.asked:
        return set()
    attacks = experiment.asked.get("attacks") or ATTACKS[experiment.scale or "full"]
    seeds = (experiment.asked.get("evaluate") or {}).get("seeds", EvaluateSettings.seeds)
    return {*make_plan(attacks, seeds, checks=()).rows}


def describe_studies(folder: Folder, *, clock: Callable[[], float] = time.time) -> str:
    """Some lines on the driver, and on what is there.  Raises UserError if the folder holds no study."""
    there = read_studies(folder)
    if not there.studies:
        raise UserError(f"{folder} holds no study: run bat-dist study --out {folder} first")
    with ThreadPoolExecutor(READERS) as readers:
        trainings = list(readers.map(lambda run: _training(folder / run.place, str(run)), there.runs))
    written = [name for name in there.studies if (folder / RESULTS / name).exists(FINDINGS)]
    is_complete = all(part.state == "done" for part in trainings) and len(written) == len(there.studies)
    lines = []
    with suppress(UserError):  # no leave-out trials were begun: the scores are from elsewhere, or no study needs any
        lines += describe_memorization(folder / SCORES, clock=clock).splitlines()
    lines += describe_driver(folder, {}, clock, is_complete=is_complete)
    lines.append(f"{folder}: {', '.join(there.studies)}: {'complete' if is_complete else f'not finished: {GO_ON}'}")
    lines.append(f"  trainings: {_counts(trainings)}" if trainings else "  no training is needed")
    lines += [f"  at epoch {part.reason}: {part.name}" for part in trainings if part.state == "begun"]
    lines += [f"  failed: {part.name}: {part.reason}" for part in trainings if part.state == "failed"][:_MOST]
    return "\n".join([*lines, f"  findings of: {', '.join(written) or 'none yet'}"])


def _training(place: Folder, name: str) -> _Part:
    if finished(place):
        return _Part(name, "done")
    if place.exists(FAILURE):
        return _Part(name, "failed", _reason(place))
    history = read_history(place)
    return _Part(name, "begun", str(len(history))) if history or place.exists(RUN) else _Part(name, "waiting")


def _evaluation(folder: Folder, run: PlannedRun, which: str, there: str, *, asked: set[str]) -> _Part:
    place, name = folder / there, f"{run.label} seed {run.seed} {which}"
    rows = read_rows(place)
    if rows is not None and {row.attack for row in rows} >= asked:
        return _Part(name, "done")
    if place.exists(FAILURE):
        return _Part(name, "failed", _reason(place))
    return _Part(name, "begun" if place.entries()[0] else "waiting")


def _reason(place: Folder) -> str:
    return str(read_object(place, FAILURE).get("reason"))


def _counts(parts: list[_Part]) -> str:
    """`5 of 18 done, 1 failed, 2 begun`."""
    states = [part.state for part in parts]
    others = "".join(f", {states.count(s)} {s}" for s in ("failed", "begun") if s in states)
    return f"{states.count('done')} of {len(parts)} done{others}"
