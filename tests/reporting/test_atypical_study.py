"""The study `atypical` counts what trainings are watched on: of the training set only what is not held out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bat_dist.errors import UserError
from bat_dist.jobs.study import carry_out_studies
from bat_dist.jobs.training_plan import make_plan
from bat_dist.reporting.studies.curves import analyse_atypical
from bat_dist.reporting.studies.report import report_study
from bat_dist.results.findings_file import read_findings
from bat_dist.storage.files import Folder
from bat_dist.studies.inputs import TYPICALITY, StudyInputs, read_sets
from bat_dist.training.files import write_history
from tests.reporting.made_studies import made_inputs


@pytest.fixture
def inputs(tmp_path: Path) -> StudyInputs:
    return made_inputs(tmp_path, "atypical", train={"num_val": 30, "val_seed": 4})


def held_out(inputs: StudyInputs) -> np.ndarray:
    plan = make_plan(inputs.dataset, inputs.settings.training(inputs.settings.runs()[0]))
    assert plan.watched
    watched = {name: np.flatnonzero(one).tolist() for name, one in inputs.sets.watched.items()}
    assert {name: one.tolist() for name, one in plan.watched.sets.items()}.items() <= watched.items()
    return plan.held.validation


def with_train_atypical(inputs: StudyInputs, members: np.ndarray) -> StudyInputs:
    place = Folder(inputs.settings.score_place)
    place.write_npz(TYPICALITY, **{**place.read_npz(TYPICALITY), "train_atypical": members})
    return dataclasses.replace(inputs, sets=read_sets(inputs.dataset, inputs.settings))


def test_the_number_of_samples_is_that_of_those_that_are_watched(inputs: StudyInputs) -> None:
    members = np.zeros(100, bool)
    members[held_out(inputs)[:25]] = True
    members[np.setdiff1d(np.arange(100), held_out(inputs))[:9]] = True
    inputs = with_train_atypical(inputs, members)
    held_out(inputs)
    columns = [f"{kind}_{split}_atypical" for kind in ("clean", "pgd") for split in ("train", "test")]
    for run in inputs.settings.runs():
        history = [{"epoch": epoch, **dict.fromkeys(columns, 1.0)} for epoch in (1, 2)]
        write_history(inputs.folder / run.place, history)
    list(report_study("atypical", inputs))
    folder = inputs.folder / "studies/atypical"
    assert read_findings(folder).about["sizes"]["train_atypical"] == 9
    found = {one.claim: one for one in analyse_atypical(inputs, folder)}
    assert "9 samples" in found["at_fits_clean"].based_on
    assert found["at_fits_clean"].verdict == "not visible at this scale"  # 9 are too few, 34 would not be


def test_atypical_samples_that_are_all_held_out_are_refused_before_training(inputs: StudyInputs) -> None:
    members = np.zeros(100, bool)
    members[held_out(inputs)[:5]] = True
    inputs = with_train_atypical(inputs, members)
    settings = dataclasses.replace(inputs.settings, scores=f"{inputs.settings.score_place}/memorization.npz")
    with pytest.raises(
        UserError, match=r"no atypical sample in the training set \(without the validation split\): run"
    ):
        carry_out_studies(inputs.folder, inputs.dataset, settings)
