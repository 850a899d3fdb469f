"""The study `poisoning`: what it writes, that it is drawn from that alone, and what people's labels and answers add."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.errors import UserError
from bat_dist.reporting.studies.report import redraw, report_study
from bat_dist.settings.study import WITHOUT_ATYPICAL, StudyRun
from bat_dist.storage.files import Folder
from bat_dist.studies.inputs import OUTPUTS
from tests.helpers.made_study import poisoning_inputs

FILES = {"poisoning.csv", "gallery.npz", "annotate.html", "findings.json"}
DRAWN = {"poisoning_gallery.png", "poisoning_gallery.svg"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=300, num_test=20)


@pytest.fixture
def atypical() -> np.ndarray:
    return np.random.default_rng(7).random(300) < 0.2


def reported(dataset: Dataset, place: Path, atypical: np.ndarray, **asked: Any) -> tuple[list[str], Path]:
    return list(report_study("poisoning", poisoning_inputs(dataset, place, atypical, **asked))), (
        place / "studies/poisoning"
    )


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def findings_of(place: Path) -> dict[str, Any]:
    return {one["claim"]: one for one in json.loads((place / "findings.json").read_text())["findings"]}


def labels_by_set(dataset: Dataset, rows: list[dict[str, str]]) -> np.ndarray:
    """Three labels by all of the 1,797 digits: right, except that high scores are called y2, once or always."""
    from sklearn.datasets import load_digits

    labels = np.repeat(load_digits(return_X_y=True)[1][:, None], 3, axis=1)
    for number, row in enumerate(row for row in rows if row["set"] == "high"):
        labels[int(row["id"]), : 3 if number % 2 else 1] = int(row["other_label"])
    return labels


def test_without_people_there_are_scores_a_gallery_and_the_page(
    dataset: Dataset, atypical: np.ndarray, tmp_path: Path
) -> None:
    lines, place = reported(dataset, tmp_path, atypical, most=10)
    mem = poisoning_inputs(dataset, tmp_path, atypical).sets.mem
    assert {file.name for file in place.iterdir()} == FILES | DRAWN
    rows = rows_of(place / "poisoning.csv")
    assert sorted(int(row["index"]) for row in rows) == np.flatnonzero(atypical).tolist()
    assert [row["set"] for row in rows] == ["high"] * 10 + ["neither"] * (len(rows) - 20) + ["low"] * 10
    for row in rows:
        assert float(row["q"]) == pytest.approx((float(row["q_seed0"]) + float(row["q_seed1"])) / 2)
        assert float(row["mem"]) == pytest.approx(mem[int(row["index"])])
        assert row["id"] == dataset.train.ids[int(row["index"])]
        assert row["y1"] == str(dataset.train.labels[int(row["index"])]) == row["label"]
        assert row["y2"] != row["y1"]
    assert any(f"high poisoning scores: 10 of {len(rows)} atypical samples" in line for line in lines)
    assert findings_of(place) == {}


def test_few_samples_are_halved_and_that_is_said(dataset: Dataset, atypical: np.ndarray, tmp_path: Path) -> None:
    lines, _ = reported(dataset, tmp_path, atypical)
    total = int(atypical.sum())
    assert any(f"the upper half, {total // 2} of {total} atypical samples" in line for line in lines)


def test_beside_an_atypical_sample_stands_the_nearest_typical_one_of_the_other_class(
    dataset: Dataset, atypical: np.ndarray, tmp_path: Path
) -> None:
    _, place = reported(dataset, tmp_path, atypical, most=10)
    rows, train = rows_of(place / "poisoning.csv"), dataset.train
    shown = [*rows[:10], *rows[:-5:-1]]
    with np.load(place / "gallery.npz") as arrays:
        assert len(arrays["q"]) == len(shown)
        for at, row in enumerate(shown):
            image = train.images[int(row["index"])].astype(int)
            others = np.flatnonzero(~atypical & (train.labels == int(row["other_label"])))
            nearest = min(others, key=lambda j: ((train.images[j].astype(int) - image) ** 2).sum())
            np.testing.assert_array_equal(arrays["images"][at], [image, train.images[nearest]])
            assert arrays["classes"][at].tolist() == [row["y1"], row["y2"]]


def test_the_figures_are_drawn_from_the_data_alone(dataset: Dataset, atypical: np.ndarray, tmp_path: Path) -> None:
    reported(dataset, tmp_path, atypical, most=10)
    place = tmp_path / "studies/poisoning"
    np.savez(tmp_path / "labels.npz", labels=labels_by_set(dataset, rows_of(place / "poisoning.csv")))
    reported(dataset, tmp_path, atypical, most=10, labels=str(tmp_path / "labels.npz"))
    pictures = {name: (place / name).read_bytes() for name in ("poisoning_gallery.png", "poisoning_labels.png")}
    other = tmp_path / "other"
    other.mkdir()
    for name in ("gallery.npz", "labels.csv", "findings.json", "poisoning.csv"):
        (other / name).write_bytes((place / name).read_bytes())
    redraw("poisoning", Folder(str(other)))
    assert {name: (other / name).read_bytes() for name in pictures} == pictures


def test_what_people_call_the_samples(dataset: Dataset, atypical: np.ndarray, tmp_path: Path) -> None:
    _, place = reported(dataset, tmp_path, atypical, most=12)
    rows = rows_of(place / "poisoning.csv")
    np.savez(tmp_path / "labels.npz", labels=labels_by_set(dataset, rows))
    lines, _ = reported(dataset, tmp_path, atypical, most=12, labels=str(tmp_path / "labels.npz"))
    found = findings_of(place)
    for claim in ("poisoning_look_alike", "poisoning_named_class"):
        assert found[claim]["estimate"] == pytest.approx(2 / 3)  # half of 12 called so once, half three times
        assert found[claim]["verdict"] == "reproduced"
        assert "high 0.667 (n = 12) and low 0.000 (n = 12), 2 seeds, bootstrap" in found[claim]["based_on"]
    assert "300 training samples with labels" in found["people_disagree_on_memorized"]["based_on"]
    assert found["people_disagree_on_memorized"]["estimate"] > 0.2  # all that is called so is atypical
    counts = [
        tuple(int(row[f"labels_{name}"]) for name in ("y1", "y2", "other")) for row in rows_of(place / "poisoning.csv")
    ]
    assert counts == [(0, 3, 0) if n % 2 else (2, 1, 0) for n in range(12)] + [(3, 0, 0)] * (len(rows) - 12)
    assert any("high scores (12 images): y1 33.3%, y2 66.7%, a third 0.0%" in line for line in lines)
    reported(dataset, tmp_path, atypical, most=12)  # without the labels nothing of them stays
    assert not (place / "labels.csv").exists()


def test_what_people_answer(dataset: Dataset, atypical: np.ndarray, tmp_path: Path) -> None:
    _, place = reported(dataset, tmp_path, atypical, most=10)
    rows = [row for row in rows_of(place / "poisoning.csv") if row["set"] != "neither"]
    files = []
    for name, high in (("Ann", "second"), ("007", "both")):
        answers = [
            {
                **{"sample": int(row["index"]), "first": int(row["label"]), "second": int(row["other_label"])},
                "answer": high if row["set"] == "high" else "first",
            }
            for row in rows
        ]
        files.append(str(tmp_path / f"answers-{name}.json"))
        document = {"annotator": name, "fingerprint": dataset.fingerprint, "answers": answers}
        Path(files[-1]).write_text(json.dumps(document))
    lines, _ = reported(dataset, tmp_path, atypical, most=10, answers=tuple(files))
    table = {(row["annotator"], row["set"]): row for row in rows_of(place / "answers.csv")}
    assert [float(table["pooled", "high"][name]) for name in ("n", "y1", "y2", "both", "neither")] == [20, 0, 50, 50, 0]
    assert [float(table["007", "low"][name]) for name in ("n", "y1", "y2", "both", "neither")] == [10, 100, 0, 0, 0]
    (pair,) = rows_of(place / "kappa.csv")
    assert float(pair["kappa"]) == pytest.approx(1 / 3)  # agreement 1/2, by chance 1/4
    for line in (
        "pooled, high scores: y1 0.0, y2 50.0, both 50.0, neither 0.0 (n = 20)",
        "paper, high scores: y1 59.0, y2 12.0, both 26.0, neither 4.0 (CIFAR-100, 2 people)",
        "Cohen's kappa of Ann and 007: 0.333 (n = 20)",
    ):
        assert any(line in one for one in lines), line
    assert findings_of(place)["poisoning_answers"]["estimate"] == 1
    assert [row["answer_Ann"] for row in rows_of(place / "poisoning.csv")][:10] == ["y2"] * 10


def test_outputs_of_other_samples_are_refused(dataset: Dataset, atypical: np.ndarray, tmp_path: Path) -> None:
    inputs = poisoning_inputs(dataset, tmp_path, atypical)
    run = Folder(str(tmp_path)) / StudyRun("pgd_at", WITHOUT_ATYPICAL, 1).place
    run.write_npz(OUTPUTS, **{**run.read_npz(OUTPUTS), "train_index": np.flatnonzero(atypical) + 1})
    with pytest.raises(UserError, match="with --fresh"):
        list(report_study("poisoning", inputs))


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_atypical_samples(dataset: Dataset, tmp_path: Path, number: int) -> None:
    with pytest.raises(UserError, match=f"two atypical samples are needed.*got {number}"):
        reported(dataset, tmp_path, np.arange(300) < number)


def test_a_class_without_a_typical_sample_is_not_shown(dataset: Dataset, tmp_path: Path) -> None:
    _, place = reported(dataset, tmp_path, np.arange(300) < 300)
    with np.load(place / "gallery.npz") as arrays:
        assert len(arrays["q"]) == 0
    assert (place / "poisoning_gallery.png").exists()


@pytest.mark.parametrize("asked", [("--labels", "none.csv"), ("--answers", "none.json")])
def test_files_of_people_are_read_before_anything_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, str]
) -> None:
    from bat_dist.study import main

    out = tmp_path / "out"
    assert main(["poisoning", "--scale", "small", "--out", str(out), asked[0], str(tmp_path / asked[1])]) == 2
    assert f"{asked[1]} " in capsys.readouterr().err
    assert not out.exists()
