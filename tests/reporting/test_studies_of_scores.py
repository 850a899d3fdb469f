"""The studies `gallery`, `histogram` and `alignment`: what they write, and that figures need nothing else."""

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from bat_dist.artifacts.scores import LeaveOutScores, read_influence
from bat_dist.errors import UserError
from bat_dist.memorization.agreement import auroc
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.reporting.memorization import _leave_out_figures
from bat_dist.reporting.studies.report import REPORTS, report_study
from bat_dist.storage.files import Folder
from bat_dist.studies.inputs import SampleSets
from tests.reporting.made_studies import NUM_TEST, made_inputs, write_outputs


def drawn_images(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def rows_of(folder: Folder, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(folder.read(name).decode())))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_a_gallery_is_the_one_of_bat_dist_memorize_and_needs_only_its_own_data(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path / "out", "gallery")
    folder = Folder(str(tmp_path / "gallery"))
    folder.create()
    assert REPORTS["gallery"].analyse(inputs, folder) == []
    shutil.rmtree(tmp_path / "out")
    redrawn = REPORTS["gallery"].draw(folder, {})
    again = made_inputs(tmp_path / "again", "gallery")
    place, trials = Folder(again.settings.score_place), again.trials()
    assert trials is not None
    pairs = read_influence(place, again.dataset.fingerprint)
    scores = LeaveOutScores(estimate_memorization(trials.mask, trials.train_correct), pairs, trials)
    of_memorize = _leave_out_figures(again.dataset, scores)
    assert set(redrawn) == {"memorization_gallery", "extremes_gallery", "influence_pairs_gallery"}
    for name, figure in redrawn.items():
        images = drawn_images(figure)
        assert len(images) >= 16
        for one, other in zip(images, drawn_images(of_memorize[name]), strict=True):
            np.testing.assert_array_equal(one, other)
        assert texts(figure) == texts(of_memorize[name])


def test_scores_without_trials_have_galleries_too(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "gallery", "histogram", with_trials=False)
    assert inputs.trials() is None
    lines = [line for name in ("gallery", "histogram") for line in report_study(name, inputs)]
    assert "gallery: digits, 100 training samples, scores without trials" in lines
    assert (tmp_path / "studies/gallery/extremes_gallery.png").exists()


def test_sets_are_read_only_where_a_study_needs_them(tmp_path: Path) -> None:
    assert not made_inputs(tmp_path / "one", "gallery", "histogram").sets.members
    assert set(made_inputs(tmp_path / "two", "alignment", "gallery").sets.members) == {
        *("train_typical", "train_atypical", "test_typical", "test_atypical")
    }


def test_scores_of_other_data_make_no_gallery(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "gallery")
    place = Folder(inputs.settings.score_place)
    arrays = place.read_npz("influence.npz")
    place.write_npz("influence.npz", **{**arrays, "fingerprint": np.array("other")})
    with pytest.raises(UserError, match=r"influence\.npz was computed on other data"):
        list(report_study("gallery", inputs))


def test_the_histogram_counts_every_sample_once(tmp_path: Path) -> None:
    mem = np.array([-0.04, -0.01, 0, 0, 0.019, 0.02, 0.03, 0.1, 0.15, 0.16, 0.151, 0.99, 1, np.nan])
    inputs = replace(made_inputs(tmp_path, "histogram"), sets=SampleSets(mem, {}))
    folder = Folder(str(tmp_path))
    (finding,) = REPORTS["histogram"].analyse(inputs, folder)
    rows = rows_of(folder, "histogram.csv")
    counts = {row["low"]: [int(row[name]) for name in ("typical", "between", "atypical")] for row in rows}
    assert {low: found for low, found in counts.items() if any(found)} == {
        **{"-0.05": [2, 0, 0], "0.0": [3, 2, 0], "0.1": [0, 1, 0], "0.15": [0, 1, 2], "0.95": [0, 0, 2]}
    }
    assert (rows[0]["low"], rows[-1]["high"]) == ("-0.05", "1.0")
    assert finding.estimate == pytest.approx(4 / 13)
    assert finding.verdict == "not tested"
    assert "40 trials" in finding.based_on
    texts_drawn = [text.get_text() for text in REPORTS["histogram"].draw(folder, {})["memorization_histogram"].texts]
    assert "digits: memorization of 14 training samples, 40 trials" in texts_drawn


def test_alignment_of_made_up_scores(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "alignment")
    write_outputs(inputs, lambda run: 1.0)
    folder = inputs.folder / "studies/alignment"
    findings = {one.claim: one for one in REPORTS["alignment"].analyse(inputs, folder)}
    mem, place = inputs.sets.mem, Folder(inputs.settings.score_place)
    score = place.read_npz("ensemble_scores.npz")["disagreement"]
    assert findings["disagreement_aligns"].estimate == pytest.approx(spearmanr(score, mem)[0])
    assert findings["disagreement_aligns"].verdict == "reproduced"
    assert findings["confidence_aligns"].verdict == "contradicted"  # of the made-up ensemble
    (row, _) = rows_of(folder, "alignment.csv")
    assert float(row["auroc"]) == pytest.approx(auroc(score, mem > 0.15))
    assert float(row["ceiling"]) == pytest.approx(float(row["reliability"]) ** 0.5)
    for name in ("disagreement", "confidence"):  # 7/8 - 3/4, for each seed
        assert findings[f"bat_with_{name}"].estimate == pytest.approx(0.125, abs=1 / NUM_TEST)
        share = (mem > 0.15).mean()
        assert f"atypical: {share:.1%}, with mem {share:.1%}" in findings[f"bat_with_{name}"].based_on
    differences = rows_of(folder, "bat_differences.csv")
    assert {(row["set"], row["num_images"]) for row in differences} == {
        ("all", "60"),
        ("typical", "45"),
        ("atypical", "15"),
    }
    assert all(float(row["difference"]) == 0 for row in differences if row["kind"] == "clean")
    shutil.copytree(str(folder), tmp_path / "alone")
    shutil.rmtree(str(folder))
    figures = REPORTS["alignment"].draw(Folder(str(tmp_path / "alone")), {"note": inputs.about})
    assert set(figures) == {"alignment_disagreement", "alignment_confidence", "alignment_bat"}
    assert (
        "tinynet on digits, 2 seeds: points; line: mean" in figures["alignment_bat"].legends[0].get_title().get_text()
    )


def test_without_trials_the_ceiling_is_unknown_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "alignment", seeds=(0,), with_trials=False)
    write_outputs(inputs, lambda run: 1.0)
    findings = {one.claim: one for one in REPORTS["alignment"].analyse(inputs, Folder(str(tmp_path)))}
    assert findings["disagreement_aligns"].based_on.endswith("noise ceiling unknown")
    one = findings["bat_with_confidence"]
    assert one.verdict == "not visible at this scale"
    assert "1 seed, 60 samples, no interval" in one.based_on


def test_a_budget_that_differs_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs = made_inputs(tmp_path, "alignment")
    write_outputs(inputs, lambda run: 1.0)
    place = Folder(inputs.settings.score_place)
    arrays = place.read_npz("ensemble_scores.npz")
    place.write_npz("ensemble_scores.npz", **{**arrays, "confidence": np.arange(100.0) > 50})
    REPORTS["alignment"].analyse(inputs, Folder(str(tmp_path)))
    assert "BAT with confidence has 0.0% atypical samples" in caplog.text
