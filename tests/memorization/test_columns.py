"""Trials by columns from a scratch file: equal to the array for any order, size of groups and choice of samples."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bat_dist.memorization.columns import TrialColumns, correct_by_trial, count_by_sample, count_by_trial, tiles_of
from bat_dist.memorization.estimate import check_trials, estimate_memorization, predicted_left_out
from bat_dist.memorization.influence import influence_intervals, influential_pairs, max_influence
from bat_dist.memorization.influence_parts import Wanted, find_influences
from bat_dist.memorization.reliability import split_half_reliability
from bat_dist.memorization.typicality import typical_sets


def in_columns(array: np.ndarray, order: np.ndarray | None = None, group_bytes: int = 1) -> TrialColumns:
    return TrialColumns(
        lambda start, stop: array[start:stop], array.shape, array.dtype, order=order, group_bytes=group_bytes
    )


@pytest.mark.parametrize("seed", range(40))
def test_columns_are_those_of_the_array(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 40)), int(rng.integers(1, 70))
    order, chosen = rng.permutation(shape[1]), rng.integers(0, shape[1], int(rng.integers(0, 50)))
    for array in (rng.random(shape) < 0.5, rng.integers(0, 2**16, shape).astype(np.uint16)):
        columns = in_columns(array, order, int(rng.integers(1, 4000)))
        assert (columns.shape, len(columns), columns.dtype) == (array.shape, len(array), array.dtype)
        for samples in (chosen, slice(3, 9), rng.random(shape[1]) < 0.3):  # chosen: in any order, some twice
            found = columns[:, samples]
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array[:, samples])
        np.testing.assert_array_equal(count_by_sample(columns), (array != 0).sum(axis=0))
        np.testing.assert_array_equal(count_by_trial(columns), (array != 0).sum(axis=1))
        tiles = np.concatenate([np.arange(shape[1])[tile] for tile in tiles_of(columns, 2 * shape[0])])
        np.testing.assert_array_equal(tiles, order)


def test_columns_are_read_over_all_trials() -> None:
    with pytest.raises(IndexError, match="over all trials"):
        _ = in_columns(np.ones((4, 3), bool))[slice(0, 2), np.array([0])]
    with pytest.raises(ValueError, match="must be bool"):
        check_trials(in_columns(np.ones((4, 3), np.uint16)))


def random_study(seed: int) -> dict[str, Any]:
    """Trials with a sample that is never out, one that is never in, and a class on one side alone."""
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 60)) < 0.7
    mask[:, 0], mask[:, 1] = True, False
    train_labels, test_labels = rng.integers(0, 4, 60), rng.integers(1, 5, 25)
    return {
        "mask": mask,
        "train_correct": rng.random((37, 60)) < 0.8,
        "test_correct": rng.random((37, 25)) < rng.random(25),
        "train_labels": train_labels,
        "test_labels": test_labels,
    }


@pytest.mark.parametrize("seed", range(4))
def test_estimates_from_columns_are_those_from_arrays(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, for all that `memorize` computes from trials."""
    monkeypatch.setattr("bat_dist.memorization.reliability._SPLIT_VALUES", 180)  # three splits at a time
    study = random_study(seed)
    predicted = np.random.default_rng(seed).integers(0, 6, (37, 60)).astype(np.uint16)
    by_class = {name: np.argsort(study[f"{name}_labels"], kind="stable") for name in ("train", "test")}
    mem = estimate_memorization(study["mask"], study["train_correct"]).mem

    def everything(turn: Callable[[np.ndarray, str], Any], *, block_bytes: int) -> list[Any]:
        mask, train_correct = turn(study["mask"], "train"), turn(study["train_correct"], "train")
        test_correct, labels = turn(study["test_correct"], "test"), (study["train_labels"], study["test_labels"])
        trials = mask, test_correct, *labels
        found: list[Any] = [
            vars(estimate_memorization(mask, train_correct)),
            predicted_left_out(mask, turn(predicted, "train"), 5),
            split_half_reliability(mask, train_correct),
            correct_by_trial(mask, train_correct),
            influence_intervals(mask, test_correct, np.array([5, 2, 5, 59]), np.array([0, 3, 0, 24])),
        ]
        for same_class in (True, False):
            size = {"same_class": same_class, "block_bytes": block_bytes}
            found.append(vars(influential_pairs(*trials, threshold=0.1, max_pairs=40, **size)))
            wanted = Wanted(
                threshold=0.1, same_class=same_class, max_pairs=40, top=3, tested=(0.15,), within_class=same_class
            )
            found.append(find_influences(wanted, *trials, mem > 0.15, block_bytes=block_bytes).arrays())
            found.append(vars(max_influence(*trials, thresholds=(0.15, 0.02), train_subset=mem > 0.15, **size)))
        return [*found, vars(typical_sets(mem, *trials)), vars(typical_sets(mem, *trials, rule="paper"))]

    expected = everything(lambda array, _: array, block_bytes=2**27)
    for size in (1, 2**27):
        turned = everything(lambda array, split: in_columns(array, by_class[split], 700), block_bytes=size)
        np.testing.assert_equal(turned, expected)


def test_memory_is_that_of_a_group_and_of_the_columns_that_are_read() -> None:
    """The array would take 10 MB; the trials come from a function, as from a store."""

    def rows(start: int, stop: int) -> np.ndarray:
        return np.random.default_rng(start).random((stop - start, 20_000), np.float32) < 0.7

    tracemalloc.start()
    columns = TrialColumns(rows, (500, 20_000), np.dtype(bool), group_bytes=2**19)
    columns[:, np.arange(0, 20_000, 50)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    per_sample = 8 * (3 + 2)  # order, place, count, and what finds the columns
    drawn = 5 * 8 * 20_000  # eight trials at least, in float32 and bool
    assert peak < per_sample * 20_000 + drawn + 2**20
