"""Confidence sequences: brute force over pairs of accuracies, and coverage over all times by simulation."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import xlog1py, xlogy
from scipy.stats import beta, binomtest

from bat_dist.memorization.proportions import newcombe_interval
from bat_dist.memorization.sequential import PRIOR, confidence_sequence, decided
from bat_dist.memorization.subsets import masks

Counts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# correct and all trials with the sample, correct and all without it
CASES = [(20, 20, 9, 9), (13, 14, 2, 6), (0, 7, 5, 5), (5, 5, 0, 7), (3, 3, 0, 0), (0, 0, 2, 3), (31, 40, 12, 20)]


def columns(cases: list[tuple[int, int, int, int]]) -> Counts:
    k1, n1, k0, n0 = np.array(cases).T
    return k1, n1, k0, n0


def marginal(k: int, n: int) -> float:
    """The likelihood averaged over the prior, by quadrature; x = sin(t)^2 takes the poles of its density away."""

    def integrand(t: float) -> float:
        x = np.sin(t) ** 2
        density = sum(weight * beta.pdf(x, a, b) for weight, a, b in PRIOR)
        return x**k * (1 - x) ** (n - k) * density * 2 * np.sin(t) * np.cos(t)

    return quad(integrand, 0, np.pi / 2, epsabs=0, epsrel=1e-9, limit=200)[0]


def test_an_interval_is_the_range_of_the_pairs_that_brute_force_does_not_exclude() -> None:
    """On a grid of pairs: none of those that are left is outside, and the ends are no further than a cell away."""
    grid = np.linspace(0, 1, 801)
    p, q = np.meshgrid(grid, grid, indexing="ij")
    low, high = confidence_sequence(*columns(CASES), level=0.9)
    for at, (k1, n1, k0, n0) in enumerate(CASES):
        likelihood = np.exp(xlogy(k1, p) + xlog1py(n1 - k1, -p) + xlogy(k0, q) + xlog1py(n0 - k0, -q))
        with np.errstate(divide="ignore"):
            left = (p - q)[marginal(k1, n1) * marginal(k0, n0) / likelihood < 10]
        assert low[at] <= left.min() + 1e-9 <= low[at] + 1.5 / 800, CASES[at]
        assert high[at] >= left.max() - 1e-9 >= high[at] - 1.5 / 800, CASES[at]


def test_the_decision_is_brute_forces() -> None:
    """Above, if every pair with p - q <= sigma has an e-value of 20 or more; and the other way round."""
    cases = [(60, 60, 25, 30), (70, 70, 30, 30), (70, 70, 29, 30), (60, 60, 5, 30), (30, 40, 10, 20), (49, 50, 18, 30)]
    grid = np.linspace(0, 1, 801)
    p, q = np.meshgrid(grid, grid, indexing="ij")
    expected = []
    for k1, n1, k0, n0 in cases:
        likelihood = np.exp(xlogy(k1, p) + xlog1py(n1 - k1, -p) + xlogy(k0, q) + xlog1py(n0 - k0, -q))
        with np.errstate(divide="ignore"):
            evidence = marginal(k1, n1) * marginal(k0, n0) / likelihood
        # The border is within reach of the grid: 0.15 is a multiple of 1/800.
        above, below = evidence[p - q <= 0.15 + 1e-12].min() >= 20, evidence[p - q >= 0.15 - 1e-12].min() >= 20
        expected.append(int(above) - int(below))
    assert set(expected) == {-1, 0, 1}
    np.testing.assert_array_equal(decided(*confidence_sequence(*columns(cases)), sigma=0.15), expected)


def test_both_sides_are_treated_alike() -> None:
    k1, n1, k0, n0 = columns(CASES)
    low, high = confidence_sequence(k1, n1, k0, n0)
    other_low, other_high = confidence_sequence(k0, n0, k1, n1)
    np.testing.assert_allclose(other_low, -high)
    np.testing.assert_allclose(other_high, -low)


def test_more_correct_with_the_sample_moves_both_ends_up_and_more_certainty_apart() -> None:
    k1 = np.arange(41)
    low, high = confidence_sequence(k1, np.full(41, 40), np.full(41, 10), np.full(41, 20))
    assert (np.diff(low) > 0).all()
    assert (np.diff(high) > 0).all()
    narrow, wide = (confidence_sequence(*columns(CASES[:4]), level=level) for level in (0.9, 0.99))
    assert (wide[0] <= narrow[0]).all()
    assert (wide[1] >= narrow[1]).all()
    assert ((wide[1] - wide[0]) > (narrow[1] - narrow[0])).all()


def test_no_trials_say_nothing() -> None:
    none = np.zeros(1, int)
    low, high = confidence_sequence(none, none, none, none)
    np.testing.assert_allclose([low[0], high[0]], [-1, 1], atol=1e-9)
    assert decided(low, high)[0] == 0


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        confidence_sequence(*columns(CASES), level=level)


@pytest.mark.parametrize("case", [(3, 2, 0, 1), (0, 1, 2, 1), (-1, 1, 0, 1)])
def test_counts_must_be_counts(case: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no more trials correct than there were"):
        confidence_sequence(*columns([case]))


def test_all_intervals_of_a_sample_hold_at_once_and_those_for_a_fixed_number_of_trials_do_not() -> None:
    """Streams of 300 trials, looked at 86 times, at alpha = 0.1: how often an interval ever misses p - q.

    Of each kind of sample (hard ones, typical ones, ones that are memorized), the level is kept by a margin that chance
    does not explain; Newcombe's intervals, on the same streams at the same looks, break it for samples of accuracies
    that are neither 0 nor 1.
    """
    rng = np.random.default_rng(0)
    looks = np.concatenate([np.arange(1, 40), np.arange(40, 301, 5)]) - 1
    num_streams, naive_breaks = 300, 0
    for p, q in [(0.6, 0.6), (0.97, 0.8), (0.995, 0.3), (0.9, 0.75), (1.0, 0.97)]:
        mask = rng.random((300, num_streams)) < 0.7
        correct = rng.random(mask.shape) < np.where(mask, p, q)
        n_in, correct_in = mask.cumsum(axis=0)[looks], (mask & correct).cumsum(axis=0)[looks]
        n_out, correct_out = (~mask).cumsum(axis=0)[looks], (~mask & correct).cumsum(axis=0)[looks]
        counts = correct_in.ravel(), n_in.ravel(), correct_out.ravel(), n_out.ravel()
        missed = {}
        for name, (low, high) in {
            "sequence": confidence_sequence(*counts, level=0.9),
            "newcombe": newcombe_interval(*counts, level=0.9),
        }.items():
            misses = (low > p - q) | (high < p - q)  # NaN, where a side has no trials, misses nothing
            missed[name] = int(misses.reshape(mask[looks].shape).any(axis=0).sum())
        bound = binomtest(missed["sequence"], num_streams).proportion_ci(0.99, method="exact").high
        assert bound < 0.1, (p, q, missed)
        naive_breaks += binomtest(missed["newcombe"], num_streams).proportion_ci(0.99, method="exact").low > 0.1
    assert naive_breaks >= 4


def test_balanced_masks_keep_the_promise_too_where_samples_depend_on_each_other() -> None:
    """Pairs of alike samples: one that is left out is right mostly if the other is in: nothing proves the promise.

    Whether a sample is right then depends on the masks, which are no longer independent from trial to trial.
    """
    num_samples, num_trials, num_seeds = 60, 200, 15
    p, q = 0.97, 0.2 + 0.7 * 42 / 59  # the other is in with probability 42/59, given that this one is left out
    looks, missed = np.arange(4, num_trials, 5), 0
    for seed in range(num_seeds):
        mask = np.array(list(masks("balanced", num_samples, 0.7, seed, range(num_trials))))
        other_in = mask[:, np.arange(num_samples) ^ 1]
        right = np.random.default_rng([7, seed]).random(mask.shape) < np.where(mask, p, np.where(other_in, 0.9, 0.2))
        k1, n1, k0, n0 = (each.cumsum(axis=0)[looks].ravel() for each in (mask & right, mask, ~mask & right, ~mask))
        low, high = confidence_sequence(k1, n1, k0, n0, level=0.9)
        outside = ((low > p - q) | (high < p - q)).reshape(len(looks), num_samples)
        missed += int(outside.any(axis=0).sum())
    assert binomtest(missed, num_samples * num_seeds).proportion_ci(0.99, method="exact").high < 0.1


def test_a_flood_of_samples_is_the_same_as_one_at_a_time() -> None:
    """Blocks and equal counts are put back in their places."""
    rng = np.random.default_rng(1)
    n_in, n_out = rng.integers(0, 12, 70_000), rng.integers(0, 8, 70_000)
    correct_in, correct_out = rng.integers(0, n_in + 1), rng.integers(0, n_out + 1)
    low, high = confidence_sequence(correct_in, n_in, correct_out, n_out)
    for at in (0, 7, 65_535, 65_536, 69_999):
        here = slice(at, at + 1)
        one = confidence_sequence(correct_in[here], n_in[here], correct_out[here], n_out[here])
        np.testing.assert_allclose([one[0][0], one[1][0]], [low[at], high[at]])
