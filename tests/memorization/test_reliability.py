"""Reliability against the share of variance that is known to be true, and the naive way of computing it."""

import numpy as np
import pytest

from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.reliability import first_halves, split_half_reliability, trials_for


def trials(num_trials: int, accuracy_in: np.ndarray, accuracy_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    mask = rng.random((num_trials, len(accuracy_in))) < 0.7
    return mask, rng.random(mask.shape) < np.where(mask, accuracy_in, accuracy_out)


@pytest.mark.parametrize("num_trials", [60, 200, 1000])
def test_it_is_the_share_of_variance_that_is_true(num_trials: int) -> None:
    """Of a proportion p of n the variance is p(1-p)/n; here p is drawn, so both shares are known."""
    rng = np.random.default_rng(0)
    accuracy_in, accuracy_out = rng.uniform(0.8, 1, 5000), rng.beta(2, 1, 5000)
    true = (accuracy_in - accuracy_out).var()
    mask, correct = trials(num_trials, accuracy_in, accuracy_out)
    n_in = mask.sum(axis=0)
    noise = accuracy_in * (1 - accuracy_in) / n_in + accuracy_out * (1 - accuracy_out) / (num_trials - n_in)
    assert split_half_reliability(mask, correct) == pytest.approx(true / (true + noise.mean()), abs=0.03)


def test_it_is_what_two_estimates_and_the_formula_give() -> None:
    """Also where halves leave samples undefined, and with an odd number of trials."""
    rng = np.random.default_rng(2)
    mask, correct = trials(9, rng.uniform(0.5, 1, 60), rng.uniform(0, 1, 60))
    correlations = []
    for half in first_halves(9, 20):
        one, other = (estimate_memorization(mask[part], correct[part]).mem for part in (half, ~half))
        both = ~np.isnan(one + other)
        correlations.append(np.corrcoef(one[both], other[both])[0, 1])
    r = np.mean(correlations)
    assert split_half_reliability(mask, correct) == pytest.approx(2 * r / (1 + r))


def test_halves_are_halves_and_differ() -> None:
    halves = first_halves(10, 20)
    assert (halves.sum(axis=1) == 5).all()
    assert len(np.unique(halves, axis=0)) > 15


def test_where_nothing_differs_there_is_none() -> None:
    mask = np.arange(8)[:, None] % 2 == np.arange(6) % 2
    assert np.isnan(split_half_reliability(mask, np.ones((8, 6), bool)))
    assert np.isnan(split_half_reliability(mask[:3], mask[:3]))


def test_more_trials_by_the_same_formula() -> None:
    """Four times as many trials, 0.5 becomes 0.8: 4 * 0.5 / (1 + 3 * 0.5)."""
    assert trials_for(0.5, 60) == pytest.approx(240, abs=1)
    assert trials_for(0.9, 100, 0.9) == pytest.approx(100, abs=1)
    assert trials_for(-0.1, 60) is None
    assert trials_for(float("nan"), 60) is None
