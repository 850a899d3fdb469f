"""Labels that people gave: files of all kinds, the order check, and tests whose answers are known."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from bat_dist.data.datasets import Dataset, Split, load_dataset
from bat_dist.errors import UserError
from bat_dist.studies.agreement import cohen_kappa
from bat_dist.studies.people import (
    label_counts,
    mean_difference,
    mean_of_images,
    read_human_labels,
    sample_numbers,
    share_of,
)
from bat_dist.studies.poisoning import PoisoningSamples

CLASSES, WHOLE = 10, 600  # of the made dataset, of which every fifth sample is taken
NUMBERS = np.arange(2, WHOLE, 5)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """120 of 600 samples, with the ids of an image folder whose files are named by their place in the whole."""
    given = np.random.default_rng(0).integers(CLASSES, size=WHOLE)
    names = tuple(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
    labels = given[NUMBERS]
    ids = np.array([f"{names[label]}/{number:05}.png" for label, number in zip(labels, NUMBERS, strict=True)])
    train = Split(np.zeros((len(NUMBERS), 2, 2, 3), np.uint8), labels, ids)
    return replace(load_dataset("digits", num_train=10, num_test=10), train=train, class_names=names)


def people(share_wrong: float, each: int = 3, seed: int = 1) -> np.ndarray:
    """Labels [600, each]; this share of them are another class than the given one."""
    rng, given = np.random.default_rng(seed), np.random.default_rng(0).integers(CLASSES, size=WHOLE)
    wrong = rng.random((WHOLE, each)) < share_wrong
    return np.where(wrong, (given[:, None] + rng.integers(1, CLASSES, (WHOLE, each))) % CLASSES, given[:, None])


def saved(place: Path, **arrays: Any) -> str:
    np.savez(place / "labels.npz", **arrays)
    return str(place / "labels.npz")


def written(place: Path, text: str) -> str:
    (place / "labels.csv").write_text(text)
    return str(place / "labels.csv")


def test_an_npz_of_the_whole_dataset_is_read_by_the_numbers_of_the_samples(dataset: Dataset, tmp_path: Path) -> None:
    labels = people(0.2).astype(np.int8)
    for arrays in ({"labels": labels}, {f"random_label{n + 1}": labels[:, n] for n in range(3)}):
        found = read_human_labels(saved(tmp_path, **arrays), dataset)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, labels[NUMBERS])
    one = read_human_labels(saved(tmp_path, only=labels[:, 0]), dataset)
    np.testing.assert_array_equal(one, labels[NUMBERS, :1])


def test_what_cifar_n_derives_from_the_labels_is_not_counted_with_them(dataset: Dataset, tmp_path: Path) -> None:
    labels = people(0.2)
    derived = dict.fromkeys(("clean_label", "aggre_label", "worse_label"), labels[:, 0])
    columns = {f"random_label{n + 1}": labels[:, n] for n in range(3)}
    assert read_human_labels(saved(tmp_path, **derived, **columns), dataset).shape == (len(NUMBERS), 3)


def test_a_csv_of_names_and_numbers_in_any_order(dataset: Dataset, tmp_path: Path) -> None:
    labels = people(0.2, each=2)
    rows = [(number, label) for number in range(WHOLE) for label in labels[number]]
    rows = [rows[at] for at in np.random.default_rng(5).permutation(len(rows))]
    rows = [row for row in rows if row[0] != NUMBERS[7]][:-3]
    told = [f"{i},{dataset.class_names[label] if i % 2 else label}" for i, label in rows]
    found = read_human_labels(written(tmp_path, "\n".join(["index,label", *told, ""])), dataset)
    assert found.shape == (len(NUMBERS), 2)
    for at, number in enumerate(NUMBERS):
        assert sorted(found[at][found[at] >= 0]) == sorted(label for i, label in rows if i == number)
    assert (found[7] == -1).all()
    assert np.isnan(share_of(found, dataset.train.labels)[7])


@pytest.mark.parametrize("share_wrong", [0.0, 0.4])
def test_noisy_labels_are_taken(dataset: Dataset, tmp_path: Path, share_wrong: float) -> None:
    read_human_labels(saved(tmp_path, labels=people(share_wrong)), dataset)


def test_another_order_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    labels = np.random.default_rng(3).permutation(people(0.1))
    with pytest.raises(UserError, match="in another order than the data, or of other classes"):
        read_human_labels(saved(tmp_path, labels=labels), dataset)


def test_another_order_of_two_classes_agrees_by_half_and_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    labels = (np.arange(WHOLE) // 7 % 2)[NUMBERS]
    two = replace(dataset, train=replace(dataset.train, labels=labels))
    with pytest.raises(UserError, match=r"for only (4|5)[0-9]% of 120 samples"):
        read_human_labels(saved(tmp_path, labels=np.random.default_rng(0).integers(2, size=WHOLE)), two)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x": np.zeros(500, int)}, "x has labels of 500 samples, and the data go up to number 597"),
        ({"x": np.zeros(600)}, "x must be whole numbers.*got float64"),
        ({"x": np.zeros((600, 2, 2), int)}, r"got int64 \[600, 2, 2\]"),
        ({"x": np.full(600, -2)}, "x holds -2"),
        ({"x": np.full(600, -1)}, "no label for any of the 120 training samples"),
        ({"clean_label": np.zeros(600, int)}, "holds no array of labels"),
        ({"x": np.array(["cat"] * 600)}, "whole numbers"),
    ],
)
def test_arrays_that_are_no_labels(
    dataset: Dataset, tmp_path: Path, arrays: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        read_human_labels(saved(tmp_path, **arrays), dataset)


def test_labels_of_a_whole_dataset_must_be_as_many_as_its_samples(dataset: Dataset, tmp_path: Path) -> None:
    train = replace(dataset.train, ids=np.arange(len(NUMBERS)).astype(str))
    with pytest.raises(UserError, match="x has labels of 121 samples"):
        read_human_labels(saved(tmp_path, x=np.zeros(121, int)), replace(dataset, train=train))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sample,label\n1,2\n", "must begin with the header index,label, got 'sample,label'"),
        ("", "must begin with the header"),
        ("index,label\n2,cat\nx,cat\n", "line 3: an index must be a whole number from 0 on, got 'x'"),
        ("index,label\n-1,cat\n", "line 2: an index must be"),
        ("index,label\n2,cta\n", "line 2: a label must be a class.*got 'cta'; did you mean cat?"),
        ("index,label\n2,1.5\n", "line 2: a label must be a class"),
        ("index,label\n2\n", "line 2: a label must be a class"),
        ("index,label\n3,cat\n", "no label for any"),
    ],
)
def test_rows_that_are_no_labels(dataset: Dataset, tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read_human_labels(written(tmp_path, text), dataset)


def test_files_that_cannot_be_read(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "damaged.csv").write_bytes(b"index,label\n1,\xff\xfe\n")
    (tmp_path / "damaged.npz").write_bytes(b"nothing")
    for name, problem in (
        ("none.csv", "does not exist"),
        ("none.npz", "does not exist"),
        ("labels.txt", r"must be a \.csv or a \.npz"),
        ("damaged.csv", "cannot be read as csv"),
        ("damaged.npz", "cannot be read as npz"),
    ):
        with pytest.raises(UserError, match=problem):
            read_human_labels(str(tmp_path / name), dataset)


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (["7", "3"], [7, 3]),
        (["cat/00007.jpg", "dog/3.png"], [7, 3]),
        (["cat/1.jpg", "dog/1.jpg"], [0, 1]),  # the files of each class are numbered anew
        (["n01/images/n01_4.JPEG", "n01/images/n01_5.JPEG"], [0, 1]),
        (["cat/²3.jpg", "dog/4.jpg"], [0, 1]),
    ],
)
def test_numbers_of_samples(ids: list[str], numbers: list[int]) -> None:
    assert sample_numbers(ids).tolist() == numbers


def test_digits_are_numbered_as_scikit_learn_has_them() -> None:
    from sklearn.datasets import load_digits

    train = load_dataset("digits", num_train=200, num_test=10).train
    np.testing.assert_array_equal(load_digits(return_X_y=True)[1][sample_numbers(train.ids)], train.labels)


def test_shares_and_counts() -> None:
    labels = np.array([[1, 1, 2, 0], [1, -1, -1, -1], [-1, -1, -1, -1], [3, 3, 3, 3]])
    classes = np.array([1, 1, 1, 2])
    np.testing.assert_array_equal(share_of(labels, classes), [0.5, 1, np.nan, 0])
    samples = PoisoningSamples(np.arange(4), classes, np.array([2, 0, 0, 3]), np.zeros((4, 1)), np.array(["high"] * 4))
    counts = label_counts(labels, samples)
    assert {name: values.tolist() for name, values in counts.items()} == {
        **{"labels_y1": [2, 1, 0, 0], "labels_y2": [1, 0, 0, 4], "labels_other": [1, 0, 0, 0]}
    }


def test_the_interval_of_a_difference_is_the_normal_one_for_many_images() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(4, size=200) / 3, rng.binomial(3, 0.2, 150) / 3
    found = mean_difference(first, second)
    error = np.sqrt(first.var() / 200 + second.var() / 150)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    np.testing.assert_allclose([found.low, found.high], found.difference + np.array([-1.96, 1.96]) * error, atol=0.004)
    assert found.p_value < 0.001


def test_the_p_value_counts_all_ways_to_split_the_images() -> None:
    first, second = np.array([1.0, 1, 2 / 3, 1, 1 / 3]), np.array([0.0, 0, 1 / 3, 2 / 3])
    every, seen = np.concatenate([first, second]), first.mean() - second.mean()
    splits = [np.isin(np.arange(9), chosen) for chosen in combinations(range(9), 5)]
    differences = np.array([every[one].mean() - every[~one].mean() for one in splits])
    tails = (differences >= seen - 1e-12).mean(), (differences <= seen + 1e-12).mean()
    assert mean_difference(first, second).p_value == pytest.approx(2 * min(tails))


def test_what_is_undefined_is_nan() -> None:
    nan = np.nan
    assert np.isnan(mean_difference(np.array([]), np.ones(5))).all()
    found = mean_difference(np.array([1.0, 1, 1, nan]), np.zeros(9))
    assert found.difference == 1
    assert np.isnan(found[1:]).all()
    assert mean_difference(np.ones(4), np.zeros(4))[1:3] == (1, 1)
    assert mean_of_images(np.array([nan, 0.5]))[0::3] == (0.5, 1)
    assert np.isnan(mean_of_images(np.array([nan]))[:3]).all()
    assert mean_of_images(np.array([0.0, 0, 0, 1]))[:2] == (0.25, 0)  # no share is below 0


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.choice(["y1", "y2", "both", "neither"], 60, p=[0.6, 0.2, 0.1, 0.1])
    second = np.where(rng.random(60) < 0.6, first, rng.choice(["y1", "both"], 60))
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_where_there_is_nothing_to_agree_on() -> None:
    assert np.isnan(cohen_kappa(np.array([]), np.array([])))
    assert np.isnan(cohen_kappa(np.array(["y1"] * 4), np.array(["y1"] * 4)))
    assert cohen_kappa(np.array(["a", "b"]), np.array(["a", "b"])) == 1
