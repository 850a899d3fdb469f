"""`--fresh`: what an earlier job of a program left in a folder is removed, by name, and nothing else.

Whoever calls this holds the folder (`storage.lease.only_driver`).
"""

from collections.abc import Iterable

from bat_dist.artifacts.scores import FELDMAN_ZHANG, INFLUENCE_TOP, MEMORIZATION_TABLE, SCORES_TABLE
from bat_dist.errors import UserError
from bat_dist.results.evaluation_file import ATTACKS, EVALUATION, FLAGS
from bat_dist.results.experiment_file import EXPERIMENT, read_experiment
from bat_dist.results.find import MEMORIZATION
from bat_dist.results.study_file import STUDY, read_studies
from bat_dist.settings.reproduce import REPORT, STUDIES
from bat_dist.settings.small import SCORES
from bat_dist.settings.study import OUTPUTS, RESULTS, SUBSETS
from bat_dist.storage.computed_on import hardware_name
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import forget_settings
from bat_dist.storage.rows import remove_store
from bat_dist.storage.status import PROGRESS, SEQUENTIAL, STORES, UNITS
from bat_dist.sweep.record import FAILURE, RUNS, SWEEP, read_sweep, remove_run
from bat_dist.sweep.record import remove as remove_runs_of_sweep
from bat_dist.sweep.space import point_name
from bat_dist.training import files as training

TEST = "test"  # folder of a sweep, beside `runs`
_MARKS = {  # what shows whose results a folder holds
    "memorize": (*STORES, MEMORIZATION),
    "train": (training.STATE, training.RUN),
    "evaluate": (UNITS, EVALUATION),
    "tune": (SWEEP,),
    "reproduce": (EXPERIMENT,),
    "study": (STUDY,),
}
_DRAWN = (".png", ".svg")
OF_STOPPING = (SEQUENTIAL, *(f"figures/undecided_by_trials{end}" for end in _DRAWN))
"""What only a run with `--num_trials auto` leaves."""
_PAGE = ("summary.json", "index.html")
_OF_MEMORIZATION = (
    *(MEMORIZATION, MEMORIZATION_TABLE, SCORES_TABLE, "influence.npz", "typicality.npz", FELDMAN_ZHANG),
    *(INFLUENCE_TOP, "influence/part-*.npz", "influence/all.npz", "influence/parts.json"),
    *("ensemble_scores.npz", "explorer.html", *_PAGE, *(f"ensemble_{name}" for name in _PAGE), PROGRESS),
    *(f"figures/{kind}*{end}" for kind in ("memorization_", "extremes_", "influence_", "accuracy_") for end in _DRAWN),
    *OF_STOPPING,
    *(f"ensemble_figures/alignment_*{end}" for end in _DRAWN),
)
_OF_SWEEP = (
    *("results.csv", "results.parquet", "points.csv", *_PAGE, PROGRESS),
    *(f"figures/{name}{end}" for name in ("surfaces", "clean_against_robust") for end in _DRAWN),
)
_OF_STUDY = (*(f"*{end}" for end in (*_DRAWN, ".csv", ".npz")), "findings.json", "annotate.html")
_OF_REPORT = ("report.html", "tables.md", "tables.csv", "tables.tex", "robustbench.json")


def check_alone(folder: Folder, verb: str) -> None:
    """Raise UserError if the folder holds results of another program too: some files may be of either."""
    others = [other for other, marks in _MARKS.items() if other != verb and any(map(folder.exists, marks))]
    if others:
        raise UserError(
            f"{folder} holds results of bat-dist {' and '.join(others)} too, which fresh is not to touch: "
            "use another --out, or remove what is there by hand"
        )


def remove_memorization(folder: Folder) -> None:
    """What `bat-dist memorize` leaves: the rows first, without which nothing can be gone on with."""
    check_alone(folder, "memorize")
    for store, what in STORES.items():
        remove_store(folder, store)
        folder.remove_files([f"failed/{what}-*.json", f"logs/{what}-*.jsonl", hardware_name(what)])
    folder.remove_files(["failed/parts-*.json", "logs/parts-*.jsonl", hardware_name("parts")])
    folder.remove_files(_OF_MEMORIZATION)
    forget_settings(folder, "memorize")


def remove_training(folder: Folder) -> None:
    """What `bat-dist train` leaves."""
    check_alone(folder, "train")
    training.remove(folder)


def remove_evaluation(folder: Folder) -> None:
    """What `bat-dist evaluate` leaves."""
    check_alone(folder, "evaluate")
    for stage in (folder / UNITS).entries()[0]:
        remove_store(folder, f"{UNITS}/{stage}")
        folder.remove_files([f"failed/{stage}-*.json", f"logs/{stage}-*.jsonl"])
    folder.remove_if_empty(UNITS)
    folder.remove_files([EVALUATION, FLAGS, PROGRESS, hardware_name(ATTACKS)])
    forget_settings(folder, "evaluate")


def remove_sweep(folder: Folder) -> None:
    """What `bat-dist tune` leaves."""
    check_alone(folder, "tune")
    points = read_sweep(folder).points if folder.exists(SWEEP) else []
    places = [f"{TEST}/{point_name(point)}" for point in points]
    _remove_evaluations(folder, [f"{place}/{seed}" for place in places for seed in (folder / place).entries()[0]])
    folder.remove_files(_OF_SWEEP)
    remove_runs_of_sweep(folder)
    forget_settings(folder, "tune")


def remove_experiment(folder: Folder) -> None:
    """What `bat-dist reproduce` leaves."""
    check_alone(folder, "reproduce")
    runs = read_experiment(folder).runs
    remove_memorization(folder / SCORES)
    folder.remove_if_empty(SCORES)
    for run in runs:
        remove_run(folder, run.training)
    folder.remove_if_empty(RUNS)
    _remove_evaluations(folder, [place for run in runs for place in run.evaluations.values()])
    folder.remove_files(f"{REPORT}/{name}" for name in _OF_REPORT)
    remove_studies(folder / STUDIES)
    folder.remove_if_empty(STUDIES)
    folder.remove(PROGRESS)
    forget_settings(folder, "reproduce")
    folder.remove(EXPERIMENT)  # last: what it names can then be found again


def remove_studies(folder: Folder) -> None:
    """What `bat-dist study` leaves."""
    check_alone(folder, "study")
    there = read_studies(folder)
    remove_memorization(folder / SCORES)
    folder.remove_if_empty(SCORES)
    for run in there.runs:
        (folder / run.place).remove(OUTPUTS)
        remove_run(folder, run.place)
        for depth in (2, 1):
            folder.remove_if_empty("/".join(run.place.split("/")[: depth + 1]))
    folder.remove_if_empty(RUNS)
    folder.remove_files([f"{SUBSETS}/*_seed*.npz"])
    for name in there.studies:
        folder.remove_files(f"{RESULTS}/{name}/{file}" for file in _OF_STUDY)
    folder.remove_if_empty(RESULTS)
    folder.remove(PROGRESS)
    forget_settings(folder, "study")
    folder.remove(STUDY)  # last: what it names can then be found again


def _remove_evaluations(folder: Folder, places: Iterable[str]) -> None:
    """Those in these places, and the folders that this leaves empty."""
    for place in places:
        remove_evaluation(folder / place)
        folder.remove_files([f"{place}/{FAILURE}"])
        parents = place.split("/")
        for depth in range(len(parents) - 1, 0, -1):
            folder.remove_if_empty("/".join(parents[:depth]))
