"""Memorization: exact on a lookup table, equal to plain loops, and with intervals that cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.proportion import confint_proportions_2indep

from bat_dist.memorization.estimate import estimate_memorization, predicted_left_out
from bat_dist.memorization.influence import influential_pairs
from bat_dist.memorization.proportions import agresti_caffo_se, newcombe_interval, wald_se
from bat_dist.memorization.subsets import masks


def naive_memorization(mask, correct):
    """Eq. 1, one sample and one trial at a time."""
    mem = []
    for sample in range(mask.shape[1]):
        answers = {True: [], False: []}
        for trial in range(len(mask)):
            answers[bool(mask[trial, sample])].append(float(correct[trial, sample]))
        means = [sum(answers[side]) / len(answers[side]) if answers[side] else float("nan") for side in (True, False)]
        mem.append(means[0] - means[1])
    return np.array(mem)


def bool_tables(num=2):
    shape = st.tuples(st.integers(1, 12), st.integers(1, 6))
    return shape.flatmap(lambda shape: st.tuples(*[arrays(bool, shape)] * num))


@settings(deadline=None)
@given(bool_tables())
def test_equals_plain_loops_and_counts_exactly(tables):
    mask, correct = tables
    result = estimate_memorization(mask, correct)
    np.testing.assert_array_equal(result.mem, naive_memorization(mask, correct))
    np.testing.assert_array_equal(result.n_in, mask.sum(axis=0))
    np.testing.assert_array_equal(result.n_out, (~mask).sum(axis=0))
    undefined = (result.n_in == 0) | (result.n_out == 0)
    for values in (result.mem, result.mem_se, *result.interval()):
        np.testing.assert_array_equal(np.isnan(values), undefined)
    assert result.num_undefined == undefined.sum()


def test_what_is_predicted_without_a_sample_is_counted_one_by_one():
    rng = np.random.default_rng(0)
    mask, predicted = rng.random((9, 50)) < 0.8, rng.integers(0, 4, (9, 50)).astype(np.uint16)
    predicted[0, :10] = 2**16 - 1  # no class
    mask[:, 7] = True
    found, share = predicted_left_out(mask, predicted, 4)
    for sample in range(50):
        said = [int(p) for kept, p in zip(mask[:, sample], predicted[:, sample], strict=True) if not kept]
        if not said:
            assert found[sample] == -1
            assert np.isnan(share[sample])
            continue
        counts = [said.count(label) for label in range(4)]
        assert found[sample] == counts.index(max(counts))
        assert share[sample] == max(counts) / len(said)


def test_a_worked_example():
    """Sample 0: in 2 of 3 right, out 1 of 2 right. Sample 1: never out. Sample 2: in wrong, out right."""
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1]], dtype=bool)
    correct = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
    result = estimate_memorization(mask, correct)
    np.testing.assert_allclose(result.mem, [2 / 3 - 1 / 2, np.nan, -1], rtol=1e-15)
    np.testing.assert_allclose(result.mem_se, [np.sqrt(2 / 27 + 1 / 8), np.nan, 0], rtol=1e-15)
    np.testing.assert_allclose(result.accuracy_in, [2 / 3, 4 / 5, 0], rtol=1e-15)
    np.testing.assert_array_equal(result.accuracy_out, [1 / 2, np.nan, 1])


def lookup_table_trials(inputs, test_inputs, num_trials, plan):
    """A learner that answers rightly exactly where it has seen the input."""
    mask = np.array(list(masks(plan, len(inputs), 0.7, 0, range(num_trials))))
    seen = [inputs[kept] for kept in mask]
    return (
        mask,
        np.array([np.isin(inputs, s) for s in seen]),
        np.array([np.isin(test_inputs, s) for s in seen]),
    )


@pytest.mark.parametrize("plan", ["uniform", "balanced"])
def test_lookup_table_memorizes_unique_samples_and_no_others(plan):
    """42 of 60 are kept, so that some of 40 copies are always seen: mem is 1 on unique, 0 on copies."""
    inputs = np.r_[np.arange(20), np.full(40, 99)]
    mask, train_correct, test_correct = lookup_table_trials(inputs, np.arange(-5, 10), 200, plan)
    result = estimate_memorization(mask, train_correct)
    np.testing.assert_array_equal(result.mem, np.r_[np.ones(20), np.zeros(40)])
    np.testing.assert_array_equal(result.mem_se, np.zeros(60))
    pairs = influential_pairs(mask, test_correct, threshold=0.5, same_class=False)
    np.testing.assert_array_equal(pairs.train_index, np.arange(10))
    np.testing.assert_array_equal(pairs.test_index, np.arange(5, 15))
    np.testing.assert_array_equal(pairs.influence, np.ones(10))


def test_lookup_table_on_pairs_of_copies_has_its_closed_form():
    """Left out, a sample is right iff its one copy is in: mem = 1 - n/(N-1) = 29/99; n = 70, N = 100."""
    mask, train_correct, _ = lookup_table_trials(np.repeat(np.arange(50), 2), np.arange(3), 3000, "uniform")
    mem = estimate_memorization(mask, train_correct).mem
    assert abs(mem.mean() - 29 / 99) < 0.005
    assert np.abs(mem - 29 / 99).max() < 5 * np.sqrt(29 * 70 / 99**2 / 900)


def simulated(p_in, p_out, num_trials, replications, seed=0):
    """One replication per sample: correctness is a coin with p_in or p_out."""
    rng = np.random.default_rng(seed)
    mask = rng.permuted(np.arange(num_trials)[:, None] < np.full(replications, round(0.7 * num_trials)), axis=0)
    p = np.where(mask, np.float32(p_in), np.float32(p_out))
    return estimate_memorization(mask, rng.random(mask.shape, dtype=np.float32) < p)


@pytest.mark.parametrize(("p_in", "p_out"), [(0.6, 0.3), (0.9, 0.5), (0.7, 0.7)])
def test_at_moderate_accuracies_both_intervals_cover_95_percent(p_in, p_out):
    """1000 trials, 10,000 replications: Monte Carlo error 0.2 points. `mem_se` claims no more than this."""
    result = simulated(p_in, p_out, 1000, 10_000)
    wald = np.abs(result.mem - (p_in - p_out)) <= 1.96 * result.mem_se
    low, high = result.interval(0.95)
    newcombe = (low <= p_in - p_out) & (p_in - p_out <= high)
    assert abs(wald.mean() - 0.95) < 0.01
    assert abs(newcombe.mean() - 0.95) < 0.01
    assert abs(result.mem.std() - result.mem_se.mean()) < 0.01 * result.mem_se.mean() + 5e-4


@pytest.mark.parametrize(("n_in", "n_out"), [(700, 300), (70, 30)])
def test_newcombe_interval_covers_over_extreme_accuracies(n_in, n_out):
    """It claims at least 95 - 1% everywhere (more, near 0 and 1). Monte Carlo error 0.05 points.

    The Wald interval does not: at p = (1, 0.99) it collapses to a point whenever nobody erred.
    """
    rng, draws = np.random.default_rng(0), 200_000
    for p_in, p_out in [(1, 1), (1, 0.99), (0.999, 0.98), (0.99, 0.9), (1, 0.5), (1, 0), (0.02, 0.01)]:
        k1, k0 = rng.binomial(n_in, p_in, draws), rng.binomial(n_out, p_out, draws)
        low, high = newcombe_interval(k1, np.array(n_in), k0, np.array(n_out))
        assert ((low <= p_in - p_out + 1e-9) & (p_in - p_out - 1e-9 <= high)).mean() > 0.94, (p_in, p_out)
    k0 = rng.binomial(n_out, 0.99, draws)
    error = np.abs(1 - k0 / n_out - 0.01)
    assert (error <= 1.96 * wald_se(n_in, n_in, k0, n_out)).mean() < 0.85


def test_newcombe_interval_averages_95_percent_where_networks_live():
    """p_in mostly near 1, p_out anywhere, 1000 trials: 95 +- 1% on average; Monte Carlo error 0.05 points."""
    rng, draws = np.random.default_rng(1), 200_000
    p_in, p_out = rng.beta(8, 0.5, draws), rng.random(draws)
    low, high = newcombe_interval(rng.binomial(700, p_in), np.array(700), rng.binomial(300, p_out), np.array(300))
    assert abs(((low <= p_in - p_out) & (p_in - p_out <= high)).mean() - 0.95) < 0.01


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 900), st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_newcombe_interval_equals_statsmodels(data, n1, n0, level):
    k1, k0 = data.draw(st.integers(0, n1)), data.draw(st.integers(0, n0))
    ours = newcombe_interval(np.array(k1), np.array(n1), np.array(k0), np.array(n0), level)
    theirs = confint_proportions_2indep(k1, n1, k0, n0, method="newcomb", alpha=1 - level)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_interval_of_memorization_uses_the_exact_counts():
    result = simulated(0.9, 0.2, 60, 500)
    counts = (result.mem + result.accuracy_out) * result.n_in, result.accuracy_out * result.n_out
    expected = newcombe_interval(np.rint(counts[0]), result.n_in, np.rint(counts[1]), result.n_out, 0.9)
    np.testing.assert_allclose(result.interval(0.9), expected, atol=1e-15)


def test_smoothed_error_is_the_plug_in_one_with_a_success_and_a_failure_added():
    k1, n1, k0, n0 = map(np.array, (7, 7, 0, 3))
    assert wald_se(k1, n1, k0, n0) == 0
    expected = np.sqrt(8 / 9 * 1 / 9 / 9 + 1 / 5 * 4 / 5 / 5)
    np.testing.assert_allclose(agresti_caffo_se(k1, n1, k0, n0), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("mask", "correct", "message"),
    [
        (
            np.ones((3, 4), bool),
            np.ones((3, 5), bool),
            r"train_correct must have the mask's shape \(3, 4\), got \(3, 5\)",
        ),
        (np.ones((3, 4), bool), np.ones((2, 4), bool), r"train_correct has 2 trials and mask 3"),
        (np.ones((3, 4), int), np.ones((3, 4), bool), r"mask must be bool \[trials, samples\], got int64"),
        (np.ones((0, 4), bool), np.ones((0, 4), bool), r"mask has no trials: run at least one"),
    ],
)
def test_bad_input_is_refused(mask, correct, message):
    with pytest.raises(ValueError, match=message):
        estimate_memorization(mask, correct)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_a_fraction(level):
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        newcombe_interval(np.array(1), np.array(2), np.array(1), np.array(2), level)
