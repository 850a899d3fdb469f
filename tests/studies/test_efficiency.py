"""ReferenceAgreement of few trials with many: the measures, the resampling, and the trials that are needed."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import spearmanr

from bat_dist.memorization.estimators import Estimated, Outcomes, difference_of_means
from bat_dist.studies import efficiency
from bat_dist.studies.efficiency import (
    Measured,
    Reference,
    ReferenceAgreement,
    compare,
    first_reaching,
    measure,
    sizes_up_to,
    trial_order,
    trials_needed,
)


def outcomes_of(num_trials: int, num: int = 40, *, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    mask = rng.random((num_trials, num)) < 0.7
    probability = np.where(mask, 0.9, np.linspace(0.1, 0.9, num))
    return Outcomes(mask, rng.random(mask.shape) < probability, np.arange(num) % 4, probability.astype(np.float16))


def test_a_reference_has_the_variance_of_means() -> None:
    few = outcomes_of(50, 6)
    found = Reference.of(few.mask, few.correct)
    np.testing.assert_allclose(found.mem, difference_of_means(few).mem)
    for sample, inside in enumerate(few.mask.T):
        sides = [few.correct[side, sample].astype(float) for side in (inside, ~inside)]
        assert found.variance[sample] == pytest.approx(sum(side.var(ddof=1) / len(side) for side in sides))


def test_agreement_of_samples_that_are_defined() -> None:
    mem = np.array([0.1, 0.2, 0.3, np.nan, 0.05])
    reference = Reference(np.array([0.0, 0.16, 0.1, 0.5, 0.15]), np.full(5, 0.001))
    found = compare(Estimated(mem), reference)
    assert found.spearman == pytest.approx(spearmanr([0.1, 0.2, 0.3, 0.05], [0, 0.16, 0.1, 0.15])[0])
    assert (found.jaccard, found.equal) == (1 / 2, 3 / 4)
    assert found.rmse == pytest.approx(np.sqrt((0.01 + 0.0016 + 0.04 + 0.01) / 4 - 0.001))


def test_a_posterior_decides_by_its_probability() -> None:
    reference = Reference(np.array([0.3, 0.3]), np.zeros(2))
    assert compare(Estimated(np.array([0.1, 0.1]), np.array([0.9, 0.4])), reference).equal == 0.5


def test_noise_of_the_reference_is_no_error_of_the_estimate() -> None:
    """A fixed error of 0.1, against references of 100 trials whose own error is about as large."""
    few = [Reference.of(one.mask, one.correct) for one in (outcomes_of(100, seed=seed) for seed in range(200))]
    truth = np.mean([one.mem for one in few], axis=0)
    squares = [compare(Estimated(truth + 0.1), one).rmse ** 2 for one in few]
    assert np.mean(squares) == pytest.approx(0.01, rel=0.05)


def test_estimates_never_see_a_trial_of_their_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial's number is in the answers to the first seven samples, as binary digits."""
    outcomes = outcomes_of(110)
    digits = 2 ** np.arange(7)
    outcomes.correct[:, :7] = np.arange(110)[:, None] & digits > 0
    seen: list[set[int]] = []
    judging: list[set[int]] = []

    def numbers(of: Outcomes) -> set[int]:
        return {*(of.correct[:, :7] @ digits).tolist()}

    def estimate(of: Outcomes) -> Estimated:
        seen.append(numbers(of))
        return difference_of_means(of)

    real = Reference.of

    def reference(mask: np.ndarray, values: np.ndarray) -> Reference:
        judging.append({*(values[:, :7] @ digits).tolist()})
        return real(mask, values)

    monkeypatch.setattr(efficiency, "ESTIMATORS", {"plain": estimate})
    monkeypatch.setattr(Reference, "of", reference)
    found = [*measure(outcomes, repetitions=3)]
    assert [one.num_trials for one in found] == [25, 50, 55] * 3
    for repetition, judges in enumerate(judging):
        of = seen[3 * repetition : 3 * repetition + 3]
        assert [len(one) for one in of] == [25, 50, 55]
        assert of[0] < of[1] < of[2]
        assert not of[2] & judges
        assert len(judges) == 55
    assert seen[2] != seen[5]
    assert found == [*measure(outcomes, repetitions=3)]


def test_balanced_trials_stay_in_their_order() -> None:
    order = trial_order("balanced", 10, np.random.default_rng(1))
    assert ((np.diff(order) % 10) == 1).all()
    assert sorted(trial_order("uniform", 10, np.random.default_rng(1)).tolist()) == [*range(10)]


def test_other_trials_judge_all_and_balanced_ones_are_compared() -> None:
    found = [*measure(outcomes_of(60), reference=outcomes_of(300, seed=1), balanced=outcomes_of(40), repetitions=2)]
    sizes = {name: {one.num_trials for one in found if one.estimator == name} for name in ("shrunk", "balanced")}
    assert sizes == {"shrunk": {25, 50, 60}, "balanced": {25, 40}}


def test_without_probabilities_their_estimator_is_left_out() -> None:
    outcomes = outcomes_of(100)
    names = {one.estimator for one in measure(outcomes, repetitions=1)}
    assert {"probability", "probability_own"} <= names
    bare = Outcomes(outcomes.mask, outcomes.correct, outcomes.labels)
    assert {one.estimator for one in measure(bare, repetitions=1)} == names - {"probability", "probability_own"}


def test_the_grid_ends_with_the_most() -> None:
    assert sizes_up_to(100) == [25, 50, 100]
    assert sizes_up_to(120) == [25, 50, 100, 120]


def test_between_two_numbers_it_is_interpolated_on_a_log_scale() -> None:
    values = np.array([0.5, 0.7, 0.6, 0.9])
    assert first_reaching([25, 50, 100, 200], values, 0.6) == pytest.approx(25 * 2**0.5)
    assert first_reaching([25, 50, 100, 200], values, 0.8) == pytest.approx(100 * 2**0.5)
    assert first_reaching([25, 50, 100, 200], values, 0.5) == 25
    assert first_reaching([25, 50, 100, 200], values, 0.95) == np.inf
    assert first_reaching([25, 50], np.array([np.nan, 0.9]), 0.8) == pytest.approx(50)


def curves(repetitions: int) -> Iterator[Measured]:
    """Another estimator needs half of the trials in even repetitions, and as many in odd ones; a third never enough."""
    for repetition in range(repetitions):
        for size in (25, 50, 100):
            n, gain = float(np.log(size)), np.log(2) * (repetition % 2 == 0)
            yield Measured(repetition, "plain", size, ReferenceAgreement(n, n, n, 10 - n))
            yield Measured(repetition, "good", size, ReferenceAgreement(n + gain, n + gain, n + gain, 10 - n - gain))
            yield Measured(repetition, "bad", size, ReferenceAgreement(0, np.nan, 0, 10))


def test_trials_needed_are_found_within_each_repetition() -> None:
    found = {(one.estimator, one.metric): one for one in trials_needed([*curves(8)])}
    for metric in ReferenceAgreement._fields:
        plain, good, bad = (found[name, metric] for name in ("plain", "good", "bad"))
        assert (plain.aim, plain.median, plain.low, plain.high) == (100, *[pytest.approx(100)] * 3)
        assert (good.low, good.median, good.high) == tuple(map(pytest.approx, (50, 50, 100)))
        assert (bad.low, bad.median, bad.high) == (np.inf, np.inf, np.inf)
