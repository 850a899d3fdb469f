"""Golden numbers of Feldman & Zhang's published estimator, and our sets from them."""

from pathlib import Path

import numpy as np
import pytest

from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import influential_pairs
from bat_dist.memorization.influence_blocks import influence_matrix
from bat_dist.memorization.typicality import typical_sets

GOLDEN = Path(__file__).parents[1] / "golden" / "06_feldman_zhang.npz"
NEVER_OUT, NEVER_IN = 0, 1


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def defined(golden):
    return (golden["n_in"] > 0) & (golden["n_out"] > 0)


def test_memorization_is_theirs_where_it_is_defined(golden, defined):
    ours = estimate_memorization(golden["mask"], golden["correct_train"])
    np.testing.assert_allclose(ours.mem[defined], golden["memorization"][defined], atol=1e-6)
    np.testing.assert_allclose(ours.mem[defined], golden["own.memorization64"][defined], atol=1e-15)
    np.testing.assert_array_equal(ours.n_in, golden["n_in"])
    np.testing.assert_array_equal(ours.n_out, golden["n_out"])


def test_where_there_were_no_trials_theirs_is_made_up_and_ours_undefined(golden, defined):
    """A mean over nothing counts as 0 there: never out gives the accuracy, never in minus the accuracy."""
    ours = estimate_memorization(golden["mask"], golden["correct_train"])
    np.testing.assert_array_equal(np.flatnonzero(~defined), [NEVER_OUT, NEVER_IN])
    np.testing.assert_array_equal(np.isnan(ours.mem), ~defined)
    assert ours.num_undefined == 2
    accuracy = golden["correct_train"].mean(axis=0)
    np.testing.assert_allclose(golden["memorization"][[NEVER_OUT, NEVER_IN]], [accuracy[0], -accuracy[1]], atol=1e-6)
    assert (ours.accuracy_in[NEVER_OUT], ours.accuracy_out[NEVER_IN]) == (accuracy[0], accuracy[1])


def test_samples_once_in_or_out_and_always_right_or_wrong(golden):
    mem = estimate_memorization(golden["mask"], golden["correct_train"]).mem
    np.testing.assert_array_equal(golden["n_in"][[2, 3]], [1, 199])
    np.testing.assert_allclose(mem[2:4], golden["own.memorization64"][2:4], atol=1e-15)
    np.testing.assert_array_equal(mem[4:6], [0, 0])
    assert (mem < 0).any()


def test_influence_is_theirs_where_it_is_defined(golden, defined):
    ours = influence_matrix(golden["mask"], golden["correct_test"])
    np.testing.assert_allclose(ours[defined], golden["influence"].T[defined], atol=1e-6)
    np.testing.assert_allclose(ours[defined], golden["own.influence64"].T[defined], atol=1e-15)
    assert np.isnan(ours[~defined]).all()


def test_pairs_are_theirs(golden, defined):
    found = influential_pairs(golden["mask"], golden["correct_test"], threshold=0.15, same_class=False)
    theirs = (golden["own.influence64"].T > 0.15) & defined[:, None]
    np.testing.assert_array_equal(np.sort(found.train_index * 120 + found.test_index), np.flatnonzero(theirs.ravel()))


@pytest.mark.parametrize("suffix", ["", "_sameclass"])
def test_sets_of_the_papers_rule(golden, defined, suffix):
    """Equal but for training sample 0: made up as atypical there, undefined here; its pairs do not count."""
    mem = estimate_memorization(golden["mask"], golden["correct_train"]).mem
    labels = golden["y_train"], golden["y_test"]
    arguments = (mem, golden["mask"], golden["correct_test"], *labels)
    sets = typical_sets(*arguments, rule="paper", same_class=bool(suffix))
    np.testing.assert_array_equal(sets.train_atypical, golden["own.atypical_train"] & defined)
    np.testing.assert_array_equal(sets.train_typical, golden["own.typical_train"] & defined)
    made_up = golden["own.influence64"][:, NEVER_OUT] * (labels[0][NEVER_OUT] == labels[1] if suffix else 1)
    np.testing.assert_array_equal(sets.test_atypical | (made_up > 0.15), golden[f"own.atypical_test{suffix}"])
    np.testing.assert_array_equal(sets.test_typical & ~(made_up > 0.02), golden[f"own.typical_test{suffix}"])
    assert sets.warnings[0].startswith("2 of 300 training samples have undefined memorization")
    assert any(warning.startswith("noise: at 200 trials") for warning in sets.warnings) or suffix
