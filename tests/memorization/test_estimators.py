"""Estimators of memorization against naive forms of the same formulas, and in simulations of known truth."""

import numpy as np
import pytest
from scipy.stats import binom

from bat_dist.memorization import mixture
from bat_dist.memorization.estimators import (
    ESTIMATORS,
    NUM_STRATA,
    Outcomes,
    difference_of_means,
    mask_regression,
    probability_difference,
    regression_adjusted,
    ridge_own_coefficients,
    shrunk,
    stratified,
)
from bat_dist.memorization.mixture import VALUES, likelihood, posterior_of_counts

NUM_CLASSES = 3


def simulated(
    num_trials: int, accuracy_in: np.ndarray, accuracy_out: np.ndarray, *, quality: float = 0.0, seed: int = 0
) -> Outcomes:
    """Answers that are right with these probabilities, plus or minus `quality` in good and in bad trials."""
    rng = np.random.default_rng(seed)
    mask = rng.random((num_trials, len(accuracy_in))) < 0.7
    labels = np.arange(len(accuracy_in)) % NUM_CLASSES
    good = rng.choice([-1.0, 1.0], (num_trials, NUM_CLASSES))[:, labels]
    chance = np.where(mask, accuracy_in, accuracy_out) + quality * good
    probability = np.clip(chance, 0, 1).astype(np.float16)
    return Outcomes(mask, rng.random(mask.shape) < chance, labels, probability)


@pytest.fixture(scope="module")
def few() -> Outcomes:
    """40 trials of 24 samples, in which a class is good or bad as a whole."""
    rng = np.random.default_rng(3)
    return simulated(40, rng.uniform(0.6, 0.8, 24), rng.uniform(0.2, 0.8, 24), quality=0.2)


def naive_quality(outcomes: Outcomes, sample: int) -> np.ndarray:
    """How right each trial is on the other samples of the class, beyond what their being in or out explains."""
    residuals = []
    for other in np.flatnonzero(outcomes.labels == outcomes.labels[sample]):
        if other != sample:
            inside, correct = outcomes.mask[:, other], outcomes.correct[:, other].astype(float)
            residuals.append(correct - np.where(inside, correct[inside].mean(), correct[~inside].mean()))
    return np.mean(residuals, axis=0)


def test_probabilities_have_the_difference_of_their_means(few: Outcomes) -> None:
    assert few.probability is not None
    mem = probability_difference(few).mem
    for sample, inside in enumerate(few.mask.T):
        p = few.probability[:, sample].astype(float)
        assert mem[sample] == pytest.approx(p[inside].mean() - p[~inside].mean(), abs=1e-6)


def test_trials_without_probabilities_have_no_such_estimate(few: Outcomes) -> None:
    with pytest.raises(ValueError, match="--keep probability"):
        probability_difference(Outcomes(few.mask, few.correct, few.labels))


def test_labels_must_be_those_of_the_samples(few: Outcomes) -> None:
    with pytest.raises(ValueError, match="labels must be 24 classes"):
        Outcomes(few.mask, few.correct, few.labels[1:])


def test_adjustment_is_a_regression_with_interactions(few: Outcomes) -> None:
    """Lin (2013): the coefficient of m in the regression of c on m, centred x and their product.

    Here by side, in which the slope has one more trial's variance of x in its denominator.
    """
    mem = regression_adjusted(few).mem
    for sample in range(24):
        x, mu = naive_quality(few, sample), []
        for side in (few.mask[:, sample], ~few.mask[:, sample]):
            design = np.stack([np.ones(side.sum()), x[side] - x.mean()], axis=1)
            within = x[side] - x[side].mean()
            slope = np.linalg.lstsq(design, few.correct[side, sample], rcond=None)[0][1]
            slope *= (within**2).sum() / ((within**2).sum() + x.var())
            mu.append(few.correct[side, sample].mean() - slope * (x[side].mean() - x.mean()))
        assert mem[sample] == pytest.approx(mu[0] - mu[1], abs=1e-5)


def test_strata_have_mantel_and_haenszel_weights(few: Outcomes) -> None:
    mem = stratified(few).mem
    for sample in range(24):
        x, inside, correct = naive_quality(few, sample), few.mask[:, sample], few.correct[:, sample]
        above = weights = 0.0
        for chosen in np.array_split(np.argsort(x, kind="stable"), [-(-40 * k // NUM_STRATA) for k in (1, 2)]):
            sides = correct[chosen][inside[chosen]], correct[chosen][~inside[chosen]]
            if len(sides[0]) and len(sides[1]):
                weight = len(sides[0]) * len(sides[1]) / len(chosen)
                above, weights = above + weight * (sides[0].mean() - sides[1].mean()), weights + weight
        assert mem[sample] == pytest.approx(above / weights, abs=1e-5)


@pytest.mark.parametrize("ratio", [0.3, 1e6])
def test_a_regression_on_masks_shrinks_all_coefficients_but_its_own(few: Outcomes, ratio: float) -> None:
    """Ridge with penalty 1 / ratio on the other samples' coefficients alone; without a penalty it is least squares."""
    mask, correct = few.mask[:, :8], few.correct[:, :8]
    found = ridge_own_coefficients(mask, correct, ratio)
    for sample in range(8):
        design = np.column_stack([np.ones(40), mask.astype(float)])
        penalty = np.eye(9) / ratio
        penalty[0, 0] = penalty[sample + 1, sample + 1] = 0
        solved = np.linalg.solve(design.T @ design + penalty, design.T @ correct[:, sample])
        assert found[sample] == pytest.approx(solved[sample + 1], abs=1e-6)


def test_masks_that_explain_nothing_leave_the_difference_of_means(few: Outcomes) -> None:
    found = ridge_own_coefficients(few.mask, few.correct, 0.0)
    np.testing.assert_allclose(found, difference_of_means(few).mem, atol=1e-5)


def test_the_ratio_is_a_regression_over_pairs_of_trials() -> None:
    """Haseman and Elston's, over a table of all pairs of different trials."""
    rng = np.random.default_rng(6)
    mask = rng.random((50, 12)) < 0.7
    answers = mask @ rng.normal(0, 0.5, (12, 12)) + rng.normal(0, 1, mask.shape)
    m, c = mask - mask.mean(axis=0), answers - answers.mean(axis=0)
    residual = c - m * (m * c).sum(axis=0) / (m**2).sum(axis=0)
    pairs = [(i, j) for i in range(50) for j in range(50) if i != j]
    similar, alike = (np.array([one[i] @ one[j] for i, j in pairs]) for one in (m, residual / np.sqrt(12)))
    explained = np.polyfit(similar, alike, 1)[0]
    noise = np.mean(np.sum(residual**2, axis=1)) / 12 - explained * np.mean(np.sum(m**2, axis=1))
    assert explained > 0
    expected = ridge_own_coefficients(mask, answers, explained / noise)
    np.testing.assert_allclose(ridge_own_coefficients(mask, answers), expected, rtol=1e-9)


def test_what_masks_explain_is_removed_from_the_error() -> None:
    """60 trials of 40 samples whose answers are a sum of the others' effects: the truth is each sample's own one."""
    rng = np.random.default_rng(4)
    own, errors = rng.uniform(0, 1, 40), []
    effects = rng.normal(0, 0.3, (40, 40)) * (1 - np.eye(40)) + np.diag(own)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = rng.random((60, 40)) < 0.7
        answers = mask @ effects.T + rng.normal(0, 0.3, mask.shape)
        errors.append([(ridge_own_coefficients(mask, answers, ratio) - own) ** 2 for ratio in (None, 0.0)])
    regressed, plain = np.mean(errors, axis=(0, 2))
    assert regressed < 0.5 * plain


def test_likelihoods_are_binomial() -> None:
    k, n = np.array([0, 3, 7, 0]), np.array([7, 7, 7, 0])
    found, expected = likelihood(k, n), binom.pmf(k[:, None], n[:, None], VALUES)
    np.testing.assert_allclose(found, expected / expected.max(axis=1, keepdims=True), rtol=1e-9)


def test_shrunk_estimates_are_those_of_bayes_rule_with_the_true_prior() -> None:
    """Half of the samples have (1, 1), half (1, 0.5): which of them a sample is follows from its wrong answers out."""
    rng, n = np.random.default_rng(5), 4000
    out = np.where(np.arange(n) % 2, 1.0, 0.5)
    n_in, n_out = np.full(n, 14), np.full(n, 6)
    correct_out = rng.binomial(n_out, out)
    mem, above = posterior_of_counts(n_in, n_in, correct_out, n_out, 0.15)
    never_wrong = 0.5**6 / (1 + 0.5**6)  # posterior of (1, 0.5) after 6 of 6
    assert above[correct_out == 5].min() > 0.8
    assert above[correct_out < 5].min() > 0.99
    np.testing.assert_allclose(above[correct_out == 6], never_wrong, atol=0.02)
    np.testing.assert_allclose(mem[correct_out == 6], 0.5 * never_wrong, atol=0.02)


def test_blocks_and_a_part_of_the_counts_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior of a third of the counts is that of all, nearly; blocks change nothing."""
    rng, n = np.random.default_rng(6), 3000
    n_in = rng.binomial(60, 0.7, n)
    counts = rng.binomial(n_in, rng.beta(9, 1, n)), n_in, rng.binomial(60 - n_in, rng.beta(2, 1, n)), 60 - n_in
    whole = posterior_of_counts(*counts, 0.15)
    monkeypatch.setattr(mixture, "BLOCK", 101)
    np.testing.assert_allclose(posterior_of_counts(*counts, 0.15), whole, rtol=1e-9, atol=1e-12)
    kinds = len(np.unique(counts, axis=1).T)
    assert kinds > 1000
    monkeypatch.setattr(mixture, "MOST_FITTED", kinds // 3)
    apart = np.abs(posterior_of_counts(*counts, 0.15)[0] - whole[0])
    assert apart.mean() < 0.02


def test_undefined_samples_have_no_estimate(few: Outcomes) -> None:
    mask = few.mask.copy()
    mask[:, 0], mask[:, 1] = True, False
    outcomes = Outcomes(mask, few.correct, few.labels, few.probability)
    for name, estimate in ESTIMATORS.items():
        found = estimate(outcomes)
        assert np.isnan(found.mem[:2]).all(), name
        assert np.isfinite(found.mem[2:]).all(), name
        assert not found.atypical[:2].any()


def test_a_class_of_one_sample_is_adjusted_by_nothing(few: Outcomes) -> None:
    outcomes = Outcomes(few.mask, few.correct, np.arange(24))
    for estimate in (regression_adjusted, stratified, mask_regression):
        np.testing.assert_allclose(estimate(outcomes).mem, difference_of_means(outcomes).mem, atol=1e-5)


def test_bias_and_error_where_the_truth_is_known() -> None:
    """Where good trials are right more often by 0.4, and most samples are alike: what each estimator gains.

    R^2 of a sample's answers by the trial's quality is 0.2^2 / 0.25 = 0.16 at an accuracy of 0.5.
    """
    rng, num = np.random.default_rng(6), 300
    accuracy_in = np.full(num, 0.75)
    accuracy_out = np.where(rng.random(num) < 0.8, 0.7, 0.3)
    truth = accuracy_in - accuracy_out
    names = ("plain", "adjusted", "stratified", "shrunk")
    errors = np.array(
        [
            [
                ESTIMATORS[name](simulated(60, accuracy_in, accuracy_out, quality=0.2, seed=seed)).mem - truth
                for name in names
            ]
            for seed in range(20)
        ]
    )
    bias, mse = np.abs(errors.mean(axis=0)).mean(axis=1), dict(zip(names, (errors**2).mean(axis=(0, 2)), strict=True))
    noise_of_bias = np.sqrt(2 / np.pi * errors.var(axis=0).mean(axis=1) / 20)  # of an unbiased estimator
    assert (bias[:3] < 1.15 * noise_of_bias[:3]).all()
    assert bias[3] > 1.3 * noise_of_bias[3]
    assert 0.8 < mse["adjusted"] / mse["plain"] < 0.93
    assert mse["adjusted"] < mse["stratified"] < mse["plain"]
    assert mse["shrunk"] < 0.6 * mse["plain"]


def test_the_posterior_says_how_often_it_is_right() -> None:
    """Of the samples that are atypical with a probability near q, about the share q is."""
    rng, num = np.random.default_rng(7), 3000
    accuracy_out = rng.beta(3, 1, num)
    found = shrunk(simulated(40, np.ones(num), accuracy_out))
    assert found.probability_atypical is not None
    above = 1 - accuracy_out > 0.15
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        chosen = (found.probability_atypical >= low) & (found.probability_atypical <= high)
        assert chosen.sum() > 100
        assert found.probability_atypical[chosen].mean() == pytest.approx(above[chosen].mean(), abs=0.06)
