"""The study `separation`, from made-up features whose classes lie as far apart as the test says."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from bat_dist.reporting.studies.report import REPORTS
from bat_dist.settings.study import StudyRun
from bat_dist.storage.files import Folder
from bat_dist.studies.separation import MEASURES, principal_plane
from tests.reporting.made_studies import made_inputs, write_outputs


def apart(run: StudyRun) -> float:
    """Atypical samples bring the classes of PGD-AT together, with some seeds more than with others."""
    if run.method == "erm":
        return 3.0
    return {"atypical0": 6.0, "atypical100": 2.0}.get(run.subset, 4.0) + 0.3 * run.seed * (run.subset == "atypical0")


def test_each_run_is_measured_and_pairs_of_seeds_are_compared(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "separation", seeds=(0, 1, 2))
    write_outputs(inputs, apart)
    (found,) = REPORTS["separation"].analyse(inputs, folder := inputs.folder)
    rows = list(csv.DictReader(io.StringIO(folder.read("separation.csv").decode())))
    assert len(rows) == 2 * 5 * 3 * 2 * 3  # methods, training sets, seeds, sets, measures
    chosen, labels = inputs.sets["test_typical"], inputs.dataset.test.labels
    features = (inputs.folder / "runs/erm/random_removed/seed1").read_npz("outputs.npz")["test_features"]
    for row in rows:
        if (row["method"], row["training_set"], row["seed"], row["set"]) == ("erm", "random_removed", "1", "typical"):
            assert float(row["value"]) == pytest.approx(MEASURES[row["measure"]](features[chosen], labels[chosen]))
            assert int(row["num_samples"]) == chosen.sum()

    def ratios(subset: str) -> list[float]:
        where = {"method": "pgd_at", "training_set": subset, "set": "typical", "measure": "distance_ratio"}
        return [float(row["value"]) for row in rows if where.items() <= row.items()]

    truth = ttest_rel(ratios("atypical0"), ratios("atypical100"))
    assert found.estimate == pytest.approx(np.mean(ratios("atypical0")) - np.mean(ratios("atypical100")))
    interval = truth.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.verdict == "reproduced"
    assert found.based_on == f"3 seeds, {chosen.sum()} samples, paired t interval over seeds"


def test_the_figures_are_drawn_from_the_studys_own_files(tmp_path: Path) -> None:
    inputs, folder = made_inputs(tmp_path / "out", "separation", seeds=(4,)), Folder(str(tmp_path / "alone"))
    write_outputs(inputs, apart)
    folder.create()
    REPORTS["separation"].analyse(inputs, folder)
    features = inputs.outputs("pgd_at", "atypical20")[0]["test_features"][inputs.sets["test_typical"]]
    shutil.rmtree(tmp_path / "out")
    figures = REPORTS["separation"].draw(folder, {"note": "tinynet on digits, 1 seed"})
    assert set(figures) == {"separation", "separation_projection"}
    title = figures["separation_projection"].legends[0].get_title().get_text()
    assert title == "tinynet on digits; PGD-AT, seed 4, 45 test typical samples"
    middle = figures["separation_projection"].axes[1]
    assert middle.get_title(loc="left") == "20% of the atypical"
    drawn = np.concatenate([np.column_stack(line.get_data()) for line in middle.lines])
    points, _ = principal_plane(features)
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(points, axis=0))


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    inputs = made_inputs(tmp_path, "separation", seeds=(4,))
    write_outputs(inputs, apart)
    (found,) = REPORTS["separation"].analyse(inputs, inputs.folder)
    assert np.isnan([found.low, found.high]).all()
    assert found.verdict == "not visible at this scale"
    assert found.based_on == "1 seed, 45 samples, no interval"
