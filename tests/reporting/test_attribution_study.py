"""The study `attribution`: what it writes, and that its figure needs nothing else."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from bat_dist.artifacts.scores import ENSEMBLE, SampleNames, write_ensemble_scores
from bat_dist.artifacts.trak import TRAK_FIELDS
from bat_dist.errors import UserError
from bat_dist.memorization.agreement import auroc
from bat_dist.reporting.studies.report import REPORTS, report_study
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.studies.inputs import StudyInputs
from tests.reporting.made_studies import NUM_TEST, NUM_TRAIN, NUM_TRIALS, made_inputs

MEMBERS, DIM = 3, 6
SCORES = ("disagreement", "forgetting", "el2n", "self_influence")


def rows_of(folder: Folder, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(folder.read(name).decode())))


def with_members(inputs: StudyInputs) -> dict[str, np.ndarray]:
    """An ensemble's store with gradients at random, and scores that are mem with more and more noise; returns those."""
    rng, place = np.random.default_rng(1), Folder(inputs.settings.score_place)
    made = {name: inputs.sets.mem + rng.normal(0, 0.1 * k, NUM_TRAIN) for k, name in enumerate(SCORES, start=1)}
    write_ensemble_scores(place, SampleNames.of(inputs.dataset), made)
    shapes = ((NUM_TRAIN, DIM), (NUM_TEST, DIM), (NUM_TRAIN,), (NUM_TRAIN,))
    fields = {name: Field("float32", shape) for name, shape in zip(TRAK_FIELDS, shapes, strict=True)}
    store = RowStore.open(place / ENSEMBLE, fields=fields, identity={}, num_rows=MEMBERS)
    for member in range(MEMBERS):
        store.write(member, {name: rng.random(one.shape) for name, one in fields.items()})
    return made


def test_each_score_is_held_against_mem_and_each_attribution_against_the_trials(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path / "out", "attribution")
    made, mem = with_members(inputs), inputs.sets.mem
    lines = list(report_study("attribution", inputs))
    folder = Folder(str(tmp_path / "out/studies/attribution"))
    rows = {row["score"]: row for row in rows_of(folder, "scores.csv")}
    assert list(rows) == list(SCORES)
    for name, values in made.items():
        assert float(rows[name]["spearman"]) == pytest.approx(spearmanr(values, mem)[0])
        assert float(rows[name]["auroc"]) == pytest.approx(auroc(values, mem > 0.15))
        assert float(rows[name]["low"]) < float(rows[name]["spearman"]) < float(rows[name]["high"])
        assert float(rows[name]["num_trainings"]) == MEMBERS
        assert int(rows[name]["num_trials"]) == NUM_TRIALS
    lds = {row["attribution"]: row for row in rows_of(folder, "lds.csv")}
    assert {row["outcome"] for row in lds.values()} == {"correctness"}  # these trials keep no probabilities
    assert [(row["num_trials"], row["num_trainings"]) for row in lds.values()] == [("40", "3"), ("20", "20")]
    assert abs(float(lds["trak"]["mean"])) < 0.15  # of gradients at random
    of_samples = folder.read_npz("lds.npz")
    decided = np.arange(NUM_TEST) % 6 == 0  # each right exactly where one training sample is trained on
    assert of_samples["influence"][decided].mean() > np.nanmean(of_samples["influence"][~decided]) + 0.2
    assert any("Spearman" in line and "3 trainings" in line for line in lines)
    shutil.copytree(str(folder), tmp_path / "alone")
    shutil.rmtree(tmp_path / "out")
    figure = REPORTS["attribution"].draw(Folder(str(tmp_path / "alone")), {"note": "digits"})["attribution"]
    panels = {ax.get_title(loc="left"): [label.get_text() for label in ax.get_yticklabels()] for ax in figure.axes}
    assert panels["LDS"] == ["trak", "influence"]
    assert panels["Spearman with mem"][0] == "disagreement"
    assert set(panels["AUROC, mem > 0.15"]) == {""}  # the same names as left of it
    assert "dashed: noise ceiling" in figure.texts[-1].get_text()


def test_scores_alone_have_no_lds_and_an_unknown_cost(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "attribution", with_trials=False)
    lines = list(report_study("attribution", inputs))
    folder = Folder(str(tmp_path / "studies/attribution"))
    assert [row["score"] for row in rows_of(folder, "scores.csv")] == ["disagreement", "confidence"]
    assert rows_of(folder, "lds.csv") == []
    assert any("unknown trainings" in line for line in lines)
    assert (tmp_path / "studies/attribution/attribution.png").exists()


def test_without_an_ensemble_the_way_to_one_is_said(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "attribution")
    Folder(inputs.settings.score_place).remove("ensemble_scores.npz")
    with pytest.raises(UserError, match=r"has no ensemble_scores.npz: bat-dist memorize --score el2n --out"):
        list(report_study("attribution", inputs))


def test_alignment_names_a_score_that_the_ensemble_lacks(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "alignment", cheaper=("disagreement", "forgetting"))
    with pytest.raises(UserError, match=r"ensemble_scores.npz has no forgetting: bat-dist memorize --score forgetting"):
        REPORTS["alignment"].analyse(inputs, Folder(str(tmp_path)))


def test_bat_is_trained_with_each_score_that_is_asked_for() -> None:
    asked = StudySettings(study=("alignment",), scale="small", seeds=(0,), out="x", cheaper=("el2n", "self_influence"))
    runs = [(run.score, asked.training(run)) for run in asked.runs()]
    assert [score for score, _ in runs] == ["mem", "el2n", "self_influence"]
    assert [(one.scores, one.score) for _, one in runs[1:]] == [
        ("x/scores/ensemble_scores.npz", "el2n"),
        ("x/scores/ensemble_scores.npz", "self_influence"),
    ]
    assert asked.ensemble_settings.score == "self_influence"


def test_probabilities_are_kept_by_trials_alone() -> None:
    asked = StudySettings(study=("attribution",), scale="small", out="x", memorize={"keep": "probability"})
    assert (asked.memorize_settings.keep, asked.ensemble_settings.keep) == ("probability", None)
    assert not asked.runs()
    assert asked.needs_workers
