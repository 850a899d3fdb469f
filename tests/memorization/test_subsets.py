"""Leave-out plans: exact sizes, pure functions, uniform frequencies, and balance after every prefix."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from bat_dist.memorization.subsets import MASK_PLANS, balanced_mask, masks, subset_mask

plans = pytest.mark.parametrize("plan", sorted(MASK_PLANS))


@st.composite
def problems(draw):
    num_samples = draw(st.integers(2, 40))
    size_in = draw(st.integers(1, num_samples - 1))
    return num_samples, size_in, draw(st.integers(0, 2**40))


@plans
@settings(deadline=None)
@given(problem=problems(), trial=st.integers(0, 10**6))
def test_every_trial_keeps_exactly_the_rounded_share(plan, problem, trial):
    num_samples, size_in, seed = problem
    mask = MASK_PLANS[plan](num_samples, size_in / num_samples, seed, trial)
    assert mask.dtype == bool
    assert mask.shape == (num_samples,)
    assert mask.sum() == size_in


@settings(max_examples=200, deadline=None)
@given(problem=problems(), num_trials=st.integers(1, 60))
def test_balanced_leaves_everyone_out_equally_often_after_every_prefix(problem, num_trials):
    num_samples, size_in, seed = problem
    left_out = np.cumsum(
        [~mask for mask in masks("balanced", num_samples, size_in / num_samples, seed, range(num_trials))],
        axis=0,
    )
    assert (left_out.max(axis=1) - left_out.min(axis=1) <= 1).all()
    np.testing.assert_array_equal(left_out.sum(axis=1), (num_samples - size_in) * np.arange(1, num_trials + 1))


def test_balanced_left_out_samples_are_slots_of_permutations():
    """N = 10, r = 0.7: each ten consecutive slots, 3 1/3 trials, hold every sample once."""
    left_out = [set(np.flatnonzero(~mask)) for mask in masks("balanced", 10, 0.7, 5, range(10))]
    permutation = np.random.default_rng([5, 0]).permutation(10).tolist()
    assert left_out[:3] == [set(permutation[i : i + 3]) for i in (0, 3, 6)]
    assert permutation[9] in left_out[3]
    assert set.union(*left_out[:3]).isdisjoint({permutation[9]})
    assert set.union(*left_out) == set(range(10))


@pytest.mark.parametrize(("ratio", "dealt_are_in"), [(0.7, False), (0.5, False), (0.3, True)])
def test_balanced_deals_out_the_smaller_side(ratio, dealt_are_in):
    """Pinned: a plan that changes would not extend the runs that exist."""
    dealt = np.random.default_rng([2, 0]).permutation(10)[: 5 if ratio == 0.5 else 3]
    np.testing.assert_array_equal(balanced_mask(10, ratio, 2, 0), np.isin(np.arange(10), dealt) == dealt_are_in)


@plans
def test_a_trial_does_not_depend_on_those_before_it(plan):
    together = list(masks(plan, 97, 0.7, 3, range(50)))
    for trial in (49, 0, 17):
        np.testing.assert_array_equal(MASK_PLANS[plan](97, 0.7, 3, trial), together[trial])


@plans
def test_seeds_and_trials_give_different_subsets(plan):
    drawn = [MASK_PLANS[plan](1000, 0.7, seed, trial).tobytes() for seed in range(3) for trial in range(20)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(("plan", "ratio"), [("uniform", 0.7), ("uniform", 0.3), ("balanced", 0.7), ("balanced", 0.3)])
def test_pairs_are_left_out_together_as_often_as_at_random(plan, ratio):
    """P(i and j in) = n(n-1)/N(N-1): subsets carry no structure that influence could pick up."""
    num_samples, num_trials = 20, 6000
    kept = np.array(list(masks(plan, num_samples, ratio, 0, range(num_trials))), dtype=float)
    size = round(ratio * num_samples)
    expected = size * (size - 1) / (num_samples * (num_samples - 1))
    together = (kept.T @ kept / num_trials)[np.triu_indices(num_samples, 1)]
    assert np.abs(together - expected).max() < 5 * np.sqrt(expected * (1 - expected) / num_trials)


def test_uniform_plan_includes_everyone_with_probability_r():
    """Sum of squared standardized counts is chi-square with N-1 degrees of freedom (sizes are fixed)."""
    num_samples, num_trials, ratio = 50, 4000, 0.7
    counts = np.sum([mask.astype(int) for mask in masks("uniform", num_samples, ratio, 1, range(num_trials))], axis=0)
    statistic = ((counts - num_trials * ratio) ** 2).sum() / (num_trials * ratio * (1 - ratio))
    statistic *= (num_samples - 1) / num_samples
    assert 0.001 < chi2.sf(statistic, num_samples - 1) < 0.999


def test_the_last_trial_of_a_large_run_is_drawn_at_once():
    start = time.process_time()
    mask = balanced_mask(50_000, 0.7, 0, 999)
    assert time.process_time() - start < 1
    assert mask.sum() == 35_000


@plans
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 1.7, 0, 0), r"subset_ratio must be in \(0, 1\), got 1\.7"),
        ((100, 0.0, 0, 0), r"subset_ratio must be in \(0, 1\), got 0\.0"),
        ((100, 1, 0, 0), r"subset_ratio must be in \(0, 1\), got 1"),
        ((100, float("nan"), 0, 0), r"subset_ratio must be in \(0, 1\), got nan"),
        ((100, 0.001, 0, 0), r"0\.001 of 100 samples leaves nobody in: take a ratio from 0\.01 to 0\.99"),
        ((100, 0.999, 0, 0), r"0\.999 of 100 samples leaves nobody out"),
        ((1, 0.5, 0, 0), r"num_samples must be at least 2, got 1"),
        ((100, 0.7, 0, -1), r"trial must be a whole number from 0 on, got -1"),
        ((100, 0.7, -3, 0), r"seed must be a whole number from 0 on, got -3"),
        ((100, 0.7, 0, 1.5), r"trial must be a whole number from 0 on, got 1\.5"),
    ],
)
def test_bad_input_names_value_and_rule(plan, arguments, message):
    with pytest.raises(ValueError, match=message):
        MASK_PLANS[plan](*arguments)


def test_unknown_plan_is_refused():
    with pytest.raises(ValueError, match=r"plan must be one of \['balanced', 'uniform'\], got 'even'"):
        masks("even", 10, 0.7, 0, range(3))


def test_sizes_round_as_python_does():
    for num_samples, percent in itertools.product(range(2, 60), range(5, 100, 5)):
        size = round(percent / 100 * num_samples)
        if 0 < size < num_samples:
            assert subset_mask(num_samples, percent / 100, 0, 0).sum() == size
