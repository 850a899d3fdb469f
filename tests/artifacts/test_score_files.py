"""Score files are of the data whose fingerprint they carry."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bat_dist.artifacts.scores import (
    MEMORIZATION,
    LeaveOutScores,
    Trials,
    read_memorization,
    read_subsets,
    write_memorization_tables,
)
from bat_dist.data.datasets import load_dataset
from bat_dist.errors import UserError
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import InfluencePairs
from bat_dist.storage.files import Folder


def test_memorization_of_other_data_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path).write_npz(MEMORIZATION, mem=np.zeros(3), fingerprint=np.array("abc"))
    assert read_memorization(Folder(tmp_path), "abc")["mem"].tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="computed on other data"):
        read_memorization(Folder(tmp_path), "abd")


def test_subsets_of_other_data_are_refused(tmp_path: Path) -> None:
    flags = {"test_typical": np.array([True, False]), "test_atypical": np.array([False, False])}
    Folder(tmp_path).write_npz("typicality.npz", **flags, fingerprint=np.array("abc"))
    place = str(tmp_path / "typicality.npz")
    assert read_subsets(place, "abc", "test")["typical"].tolist() == [True, False]
    with pytest.raises(UserError, match=r"no typicality\.npz of these data"):
        read_subsets(place, "abd", "test")


def test_the_scores_of_samples_read_back_equal_from_parquet_and_csv(tmp_path: Path) -> None:
    """Parquet to the last bit and in the dataset's order; the same lines in CSV, the most memorized first."""
    dataset, rng = load_dataset("digits", num_train=30, num_test=10), np.random.default_rng(0)
    mask, correct = rng.random((12, 30)) < 0.7, rng.random((12, 30)) < 0.8
    mask[:, 3] = True
    predicted = np.where(correct, dataset.train.labels, 0).astype(np.uint16)
    trials = Trials(np.arange(12), mask, correct, correct[:, :10], np.ones((12, 2)), predicted)
    found, none = estimate_memorization(mask, correct), np.empty(0)
    pairs = InfluencePairs(none.astype(int), none.astype(int), none, none, 0)
    write_memorization_tables(Folder(tmp_path), dataset, LeaveOutScores(found, pairs, trials))
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert table["sample"].tolist() == list(range(30))
    assert table["id"].tolist() == dataset.train.ids.tolist()
    assert table["class"].tolist() == [dataset.class_names[label] for label in dataset.train.labels]
    low, high = found.interval()
    for name, values in {**vars(found), "mem_low": low, "mem_high": high}.items():
        if name != "mem_se":
            np.testing.assert_array_equal(table[name], values)
            assert table[name].dtype == values.dtype
    assert table["predicted_left_out"].tolist()[3] == ""
    text = pd.read_csv(tmp_path / "memorization.csv", dtype={"id": str, "class": str}, keep_default_na=False)
    again = text.replace("", np.nan).astype({"mem": float}).set_index("sample")
    assert again["mem"].tolist()[:-1] == sorted(found.mem[~np.isnan(found.mem)], reverse=True)
    assert again["id"].sort_index().tolist() == table["id"].tolist()
    np.testing.assert_array_equal(again["mem"].sort_index(), table["mem"])
