"""`experiment.json`: the trainings and evaluations that a run of `bat-dist reproduce` is to have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bat_dist.results.evaluation_file import read_object
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance

EXPERIMENT = "experiment.json"


class PlannedRun(NamedTuple):
    """A training of an experiment; folders are told from the experiment's own."""

    label: str  # the row of the table
    seed: int
    training: str  # its folder
    evaluations: Mapping[str, str]  # folders by checkpoint: best, last


@dataclass(frozen=True)
class ExperimentFile:
    """What `experiment.json` says."""

    table: int | None = None
    scale: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)  # what every number depends on
    runs: tuple[PlannedRun, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)  # the settings of the command
    chosen: Mapping[str, str] = field(default_factory=dict)  # what the settings left open, in words


def read_experiment(folder: Folder) -> ExperimentFile:
    """The folder's experiment; one without any run if it holds none.  Raises UserError if the file is damaged."""
    if not folder.exists(EXPERIMENT):
        return ExperimentFile()
    found = read_object(folder, EXPERIMENT)
    runs = [PlannedRun(run["label"], run["seed"], run["training"], run["evaluations"]) for run in found.get("runs", ())]
    settled = {name: found.get(name) or {} for name in ("identity", "asked", "chosen")}
    return ExperimentFile(found.get("table"), found.get("scale"), runs=tuple(runs), **settled)


def write_experiment(folder: Folder, experiment: ExperimentFile) -> None:
    """Write it, with what made it."""
    document = {**vars(experiment), "runs": [run._asdict() for run in experiment.runs]}
    folder.write_json(EXPERIMENT, {**document, **provenance()})
