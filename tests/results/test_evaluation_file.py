"""evaluation.json is read as it was written, also where a number is undefined or the file is of an older version."""

import json
from pathlib import Path

import numpy as np

from bat_dist.data.datasets import load_dataset
from bat_dist.evaluation.hygiene import Check
from bat_dist.evaluation.result import Evaluation, ResultRow
from bat_dist.results.evaluation_file import EVALUATION, _as_json, read_evaluation, read_rows, write_evaluation
from bat_dist.storage.files import Folder
from tests.helpers.made_results import write_evaluation as write_older

FLAGS = np.arange(20) < 15


def test_what_is_read_is_what_was_written_to_the_byte(tmp_path: Path) -> None:
    dataset = load_dataset("digits", num_train=10, num_test=20)
    rows = (ResultRow("clean", FLAGS, 1.5, 0.0, ()), ResultRow("pgd20", FLAGS[::-1], 2.5, 0.03, ("optimizes",)))
    evaluation = Evaluation(rows, (Check("optimizes", False, "it does not", {"share": float("nan")}),), 7)
    write_evaluation(
        Folder(tmp_path),
        dataset,
        {"dataset": "digits", "attacks": ("clean", "pgd20"), "epsilon": None},
        evaluation,
        subsets={"none": np.zeros(20, bool), "half": np.arange(20) < 10},
        facts={"method": "bat"},
        digest="0123",
    )
    found = read_evaluation(Folder(tmp_path))
    Folder(tmp_path).write_json("again.json", _as_json(found.document))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / EVALUATION).read_bytes()
    clean, attacked = found.document.rows
    assert (clean.overall.accuracy, clean.overall.n, clean.subsets["half"].accuracy) == (0.75, 20, 1.0)
    assert np.isnan(clean.subsets["none"].accuracy)
    assert (attacked.warnings, found.document.checks[0].passed) == (("optimizes",), False)
    assert (found.document.epsilon, found.document.step_size) == (dataset.spec.epsilon, dataset.spec.step_size)
    assert found.flags["pgd20"].tolist() == FLAGS[::-1].tolist()


def test_what_the_first_releases_did_not_write_is_undefined(tmp_path: Path) -> None:
    rows = [{"attack": "clean", "accuracy": 0.75, "standard_error": 0.1, "n": 20}]
    write_older(tmp_path, {"clean": FLAGS}, format=None, checks=None, rows=rows)
    document = read_evaluation(Folder(tmp_path)).document
    assert (document.epsilon, document.by_class, document.checks, document.rows[0].warnings) == (None, None, (), ())
    assert np.isnan(document.rows[0].seconds)
    assert document.origin["cpu"] == "a processor"


def test_rows_are_read_whatever_else_the_file_lacks(tmp_path: Path) -> None:
    assert read_rows(Folder(tmp_path)) is None
    (tmp_path / EVALUATION).write_text(json.dumps({"rows": [{"attack": "clean", "accuracy": None}]}))
    rows = read_rows(Folder(tmp_path))
    assert rows is not None
    (row,) = rows
    assert row.attack == "clean"
    assert np.isnan(row.overall.accuracy)
    (tmp_path / EVALUATION).write_text("[]")
    assert read_rows(Folder(tmp_path)) == ()
