"""Scores as training takes them: thresholds, undefined values, other data."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.errors import UserError
from bat_dist.memorization.exchange import FeldmanZhang, save_feldman_zhang
from bat_dist.training.score_file import read_scores


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_train=100, num_test=50)


MEM = np.linspace(-0.05, 0.6, 100)


def write(folder: Path, dataset: Dataset, name: str = "memorization.npz", **arrays: Any) -> str:
    np.savez(folder / name, fingerprint=np.array(dataset.fingerprint), **arrays)
    return str(folder / name)


def test_thresholds_of_memorization(tmp_path: Path, digits: Dataset) -> None:
    path = write(tmp_path, digits, mem=MEM)
    scores = read_scores(path, digits)
    assert scores.sigma == 0.15
    np.testing.assert_array_equal(scores.subsets["atypical"], MEM > 0.15)
    np.testing.assert_array_equal(scores.subsets["typical"], MEM < 0.02)
    assert read_scores(path, digits, sigma=0.3).subsets["atypical"].sum() == (MEM > 0.3).sum()
    assert read_scores(path, digits, atypical_share=0.11).subsets["atypical"].sum() == 11


def test_a_cheaper_score_takes_the_share_of_memorization_beside_it(tmp_path: Path, digits: Dataset) -> None:
    cheap = np.random.default_rng(0).permutation(100) / 7.0
    path = write(tmp_path, digits, "ensemble_scores.npz", disagreement=cheap, confidence=-cheap)
    with pytest.raises(UserError, match=r"scale of their own.*give --atypical_share"):
        read_scores(path, digits)
    write(tmp_path, digits, mem=MEM)
    scores = read_scores(path, digits)
    assert scores.subsets["atypical"].sum() == (MEM > 0.15).sum()
    assert scores.subsets["typical"].sum() == 100 - (MEM > 0.15).sum()
    assert scores.values[scores.subsets["atypical"]].min() > scores.values[scores.subsets["typical"]].max()
    assert read_scores(path, digits, sigma=5.0).subsets["atypical"].sum() == (cheap > 5).sum()
    with pytest.raises(UserError, match="holds neither mem nor true_class_confidence"):
        read_scores(path, digits, score="true_class_confidence")


def test_undefined_scores_are_counted_and_may_be_typical(
    tmp_path: Path, digits: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, digits, mem=np.where(np.arange(100) % 10 == 9, np.nan, MEM))
    logging.getLogger("bat_dist").propagate = True
    neutral = read_scores(path, digits)
    assert "10 of 100 are undefined and count as neutral" in caplog.text
    assert not (neutral.subsets["typical"] | neutral.subsets["atypical"])[9::10].any()
    typical = read_scores(path, digits, undefined="typical")
    assert typical.subsets["typical"][9::10].all()
    with pytest.raises(UserError, match="none is defined"):
        read_scores(write(tmp_path, digits, mem=np.full(100, np.nan)), digits)


def test_the_published_format(tmp_path: Path, digits: Dataset) -> None:
    labels, test_labels = digits.train.labels, digits.test.labels
    influence = {c: np.zeros(((labels == c).sum(), (test_labels == c).sum()), np.float32) for c in range(10)}
    save_feldman_zhang(tmp_path / "fz.npz", FeldmanZhang(MEM, labels, test_labels, influence))
    np.testing.assert_allclose(read_scores(str(tmp_path / "fz.npz"), digits).values, MEM, atol=1e-7)
    with pytest.raises(UserError, match=r"fz\.npz"):
        read_scores(str(tmp_path / "fz.npz"), load_dataset("digits", num_train=200, num_test=50))


def test_of_other_data(tmp_path: Path, digits: Dataset) -> None:
    path = write(tmp_path, digits, mem=MEM)
    for num_train, num_test in ((200, 50), (100, 40)):
        with pytest.raises(UserError, match="of other data than the dataset"):
            read_scores(path, load_dataset("digits", num_train=num_train, num_test=num_test))
