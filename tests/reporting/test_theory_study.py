"""The study `theory`: its counts against direct checks, its verdicts, and what needs no torch and no Ray."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bat_dist.reporting.studies import theory
from bat_dist.reporting.studies.report import report_without_data
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.studies.theory import TwoGaussians
from tests.helpers.waiting import PATIENCE
from tests.reporting.made_studies import made_inputs

ANGLES = np.linspace(0, 2 * np.pi, 20001)
W = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)


def asked(out: Path, *ratios: float) -> StudySettings:
    return StudySettings(study=("theory",), ratios=ratios, factors=(1.5,), out=str(out))


def rows_of(folder: Folder, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(folder.read(name).decode())))


def test_what_is_listed_contradicts_theorem_1_and_nothing_else_is_counted(tmp_path: Path) -> None:
    """Of each listed sample, the best of 20,001 directions with its best offset still errs on more than 1%."""
    lines = list(report_without_data("theory", Folder(str(tmp_path)), asked(tmp_path, 3.0, 10.0)))
    folder = Folder(str(tmp_path / "studies/theory"))
    checks, violations = rows_of(folder, "checks.csv"), rows_of(folder, "violations.csv")
    assert [(row["theorem"], float(row["ratio"]), int(row["num_violated"]) > 0) for row in checks] == [
        *(("1", 3, True), ("1", 10, False), ("2", 3, False), ("2", 10, False))
    ]
    assert len(violations) == int(checks[0]["num_violated"]) == int(checks[0]["num_listed"])
    data = TwoGaussians(1.0, 1 / 3)
    for row in violations[::40]:
        x0 = np.array([float(row["x1"]), float(row["x2"])])
        errors = np.maximum(*data.errors(W, np.minimum(0, -W @ x0)))
        assert errors.min() == pytest.approx(float(row["error"]), abs=1e-4)
        assert errors.min() > 0.01
        minus, plus = data.distances(x0)
        assert minus <= 2
        assert plus >= data.closest
    for row in checks[2:]:
        assert 1.49 < float(row["needed"]) < 1.5
    findings = {one["claim"]: one for one in folder.read_json("findings.json")["findings"]}
    assert findings["theorem_1"]["verdict"] == "contradicted"
    assert findings["theorem_1"]["based_on"].endswith("fails for 3")
    total = sum(int(row["num_points"]) for row in checks[:2])
    assert findings["theorem_1"]["estimate"] == pytest.approx(len(violations) / total)
    assert findings["theorem_2"]["verdict"] == "reproduced"
    assert findings["theorem_2"]["based_on"].endswith("fails for none")
    assert not any("95%" in line for line in lines)  # it is exact
    drawn = np.column_stack(theory.draw_theory(folder, {"note": ""})["theorem_1"].axes[0].lines[3].get_data())
    listed = {(round(float(row["x1"]), 9), round(float(row["x2"]), 9)) for row in violations}
    assert {tuple(point) for point in drawn.round(9).tolist()} == listed | {(x, -y) for x, y in listed}


def test_where_the_classes_are_far_apart_both_theorems_hold(tmp_path: Path) -> None:
    findings = theory.analyse_theory(asked(tmp_path, 10.0), Folder(str(tmp_path)))
    assert [(one.claim, one.verdict, one.estimate) for one in findings] == [
        *(("theorem_1", "reproduced", 0), ("theorem_2", "reproduced", 0))
    ]
    assert set(theory.draw_theory(Folder(str(tmp_path)), {"note": ""})) == {"theorem_1", "theory_by_ratio"}


def test_a_long_list_is_cut_and_its_length_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theory, "MOST_LISTED", 7)
    theory.analyse_theory(asked(tmp_path, 3.0), Folder(str(tmp_path)))
    check, violations = (
        rows_of(Folder(str(tmp_path)), "checks.csv")[0],
        rows_of(Folder(str(tmp_path)), "violations.csv"),
    )
    assert int(check["num_violated"]) > 100
    assert len(violations) == int(check["num_listed"]) == 7
    errors = [float(row["error"]) for row in violations]
    assert errors == sorted(errors, reverse=True)


WITHOUT_RAY = """
import sys
from bat_dist.study import main
loaded = lambda: [name for name in ("torch", "ray") if name in sys.modules]
assert main(["theory", "--ratios", "3", "10", "--out", f"{sys.argv[1]}/theory"]) == 0
print(loaded(), "zarr" in sys.modules)
scores = f"{sys.argv[1]}/scores/memorization.npz"
words = f"gallery histogram --scale small --num_train 100 --num_test 60 --scores {scores} --out {sys.argv[1]}/pictures"
assert main(words.split()) == 0
print(loaded())
"""


def test_theory_and_pictures_of_given_scores_load_no_torch_and_no_ray(tmp_path: Path) -> None:
    """Scores without typical sets, as imported ones are, are enough for pictures."""
    made_inputs(tmp_path, "gallery", with_trials=False)
    (tmp_path / "scores/typicality.npz").unlink()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, tmp_path], capture_output=True, text=True, timeout=PATIENCE
    )
    lines = done.stdout.splitlines()
    assert "[] False" in lines, done.stdout + done.stderr
    assert lines[-1] == "[]", done.stdout + done.stderr
    assert (tmp_path / "theory/studies/theory/findings.json").exists()
    assert not (tmp_path / "theory/scores").exists()
    assert (tmp_path / "pictures/studies/gallery/memorization_gallery.png").exists()
