"""What an experiment has still to do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import load_dataset
from bat_dist.jobs.experiment_tasks import TYPICALITY, Experiment, Reports
from bat_dist.settings.reproduce import ReproduceSettings
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
