"""What an experiment has still to do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import load_dataset
from bat_dist.evaluation.plan import make_plan
from bat_dist.jobs.experiment_record import note_plan
from bat_dist.jobs.experiment_tasks import TYPICALITY, Experiment, Reports
from bat_dist.results.status import describe_experiment
from bat_dist.settings.reproduce import ATTACKS, ReproduceSettings
from bat_dist.storage.files import Folder
from tests.helpers.made_results import write_evaluation

TYPICAL, ATYPICAL = np.arange(20) < 8, np.arange(20) >= 15


@pytest.mark.parametrize(
    ("methods", "subsets", "is_done"),
    [
        (("pgd_at", "bat_alpha1_beta0.2"), {"typical": TYPICAL, "atypical": ATYPICAL}, True),
        (("pgd_at", "bat_alpha1_beta0.2"), {"typical": TYPICAL, "atypical": ~TYPICAL}, False),
        (("pgd_at", "bat_alpha1_beta0.2"), {}, False),
        (("pgd_at",), {"typical": ~TYPICAL}, True),  # without a row of BAT nobody asks for scores
    ],
)
def test_an_evaluation_of_before_there_were_more_trials_is_written_again(
    methods: Any, subsets: dict[str, np.ndarray], is_done: bool, tmp_path: Path
) -> None:
    dataset = load_dataset("digits", num_train=60, num_test=20)
    settings = ReproduceSettings(
        table=1, scale="small", methods=methods, seeds=(0,), attacks=("clean",), out=str(tmp_path), which=("best",)
    )
    place = Folder(tmp_path / "scores")
    sets = {"test_typical": TYPICAL, "test_atypical": ATYPICAL}
    place.write_npz(TYPICALITY, **sets, fingerprint=np.array(dataset.fingerprint))
    nothing = Reports(lambda: None, lambda: None)
    experiment, run = Experiment(dataset, settings, nothing), next(iter(settings.runs()))
    assert [task.what for task in experiment.evaluations(run)] == ["best"]
    write_evaluation(tmp_path / run.evaluation("best"), {"clean": np.ones(20, bool)}, subsets=subsets)
    assert (experiment.evaluations(run) == []) is is_done


def an_experiment(place: Path, **asked: Any) -> Experiment:
    settings = ReproduceSettings(table=1, scale="small", methods=("pgd_at",), seeds=(0,), out=str(place), **asked)
    dataset = load_dataset("digits", num_train=300, num_test=500)
    note_plan(Folder(place), dataset, settings, {})
    return Experiment(dataset, settings, Reports(lambda: None, lambda: None))


@pytest.mark.parametrize(
    ("rows", "is_done"),
    [
        (["clean", "pgd20@0", "pgd20@1", "pgd20@worst", "worst_case"], True),
        (["clean", "pgd20", "worst_case"], False),
    ],
)
def test_an_evaluation_with_two_seeds_of_attacks_ends(rows: list[str], is_done: bool, tmp_path: Path) -> None:
    experiment = an_experiment(tmp_path, attacks=("clean", "pgd20"), evaluate={"seeds": [0, 1]})
    run = next(iter(experiment.settings.runs()))
    write_evaluation(tmp_path / run.evaluation("best"), dict.fromkeys(rows, np.ones(20, bool)))
    assert (experiment.evaluations(run) == []) is is_done
    assert f"evaluations: {int(is_done)} of 1 done" in describe_experiment(Folder(tmp_path))


def test_the_status_asks_for_the_attacks_of_the_scale_where_none_are_given(tmp_path: Path) -> None:
    run = next(iter(an_experiment(tmp_path).settings.runs()))
    write_evaluation(tmp_path / run.evaluation("best"), {"clean": np.ones(20, bool)})
    assert "evaluations: 0 of 1 done" in describe_experiment(Folder(tmp_path))
    rows = make_plan(ATTACKS["small"], (0,), checks=()).rows
    write_evaluation(tmp_path / run.evaluation("best"), dict.fromkeys(rows, np.ones(20, bool)))
    assert "evaluations: 1 of 1 done" in describe_experiment(Folder(tmp_path))
