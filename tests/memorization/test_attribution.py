"""LDS in a linear world, where the truth is known; predictions against naive loops and dense matrices."""

import numpy as np
import pytest
from scipy import stats

from bat_dist.memorization import attribution
from bat_dist.memorization.attribution import (
    TrakFeatures,
    influence_predictions,
    linear_datamodeling_scores,
    margins,
    mean_over_samples,
    self_influence,
    trak_matrix,
    trak_predictions,
)
from bat_dist.memorization.influence_blocks import influence_matrix

RNG = np.random.default_rng(0)
TRIALS, TRAIN, TEST = 60, 30, 12
MASK = RNG.random((TRIALS, TRAIN)) < 0.7
TRUTH = RNG.normal(size=(TRAIN, TEST))


def naive_lds(predicted: np.ndarray, outcome: np.ndarray) -> list[float]:
    return [float(np.asarray(stats.spearmanr(predicted[:, t], outcome[:, t])[0])) for t in range(predicted.shape[1])]


def made_features(members: int = 3, dim: int = 4) -> TrakFeatures:
    features, gradients = (RNG.normal(size=(members, samples, dim)) for samples in (TRAIN, TEST))
    return TrakFeatures(features, gradients, RNG.random((members, TRAIN)))


def test_in_a_linear_world_the_truth_has_lds_1() -> None:
    outcome = 3 + MASK @ TRUTH
    np.testing.assert_allclose(linear_datamodeling_scores(MASK @ TRUTH, outcome), 1, rtol=1e-12)
    np.testing.assert_allclose(linear_datamodeling_scores(MASK @ TRUTH, np.exp(outcome)), 1, rtol=1e-12)  # ranks
    np.testing.assert_allclose(linear_datamodeling_scores(-(MASK @ TRUTH), outcome), -1, rtol=1e-12)


def test_an_attribution_of_other_samples_has_lds_0() -> None:
    shuffled = np.random.default_rng(1).permutation(TRUTH.ravel()).reshape(TRUTH.shape)
    one = mean_over_samples(linear_datamodeling_scores((MASK - 0.7) @ shuffled, (MASK - 0.7) @ TRUTH))
    assert one.low < 0.1
    assert abs(one.mean) < 0.25


@pytest.mark.parametrize("block", [1, 200, 2**22])
def test_lds_equals_scipy_sample_by_sample_also_with_ties(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "_BLOCK_VALUES", block)
    predicted, outcome = RNG.normal(size=(TRIALS, TEST)).round(1), (RNG.random((TRIALS, TEST)) < 0.6).astype(float)
    found = linear_datamodeling_scores(predicted, outcome)
    np.testing.assert_allclose(found, naive_lds(predicted, outcome), rtol=1e-10)


def test_a_sample_whose_outcome_never_changes_has_no_lds() -> None:
    outcome = MASK @ TRUTH
    outcome[:, 3] = 1.0
    found = linear_datamodeling_scores(MASK @ TRUTH, outcome)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3]
    assert mean_over_samples(found) == (pytest.approx(1), pytest.approx(1), pytest.approx(1), TEST - 1)


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4,), (4,)), ((1, 3), (1, 3))])
def test_lds_needs_two_trials_of_the_same_samples(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"must be \[trials, test\]"):
        linear_datamodeling_scores(*(np.zeros(shape) for shape in shapes))


def test_trak_equals_a_naive_loop_and_its_matrix_is_not_needed() -> None:
    found = made_features()
    matrix = np.array(
        [
            [
                np.mean([found.features[m, i] @ found.test_gradients[m, t] for m in range(3)])
                * np.mean(found.out_to_loss[:, i])
                for t in range(TEST)
            ]
            for i in range(TRAIN)
        ]
    )
    np.testing.assert_allclose(trak_matrix(found), matrix, rtol=1e-10)
    np.testing.assert_allclose(trak_predictions(MASK, found), MASK @ matrix, rtol=1e-4, atol=1e-4)


def test_self_influence_is_the_diagonal_of_trak_for_the_training_samples() -> None:
    found = made_features()
    gradients = RNG.normal(size=found.features.shape)
    of_itself = trak_matrix(found._replace(test_gradients=gradients))
    leverage = (found.features * gradients).sum(axis=2)
    np.testing.assert_allclose(self_influence(leverage, found.out_to_loss), np.diag(of_itself), rtol=1e-10)


def test_influence_predicts_trials_as_the_dense_matrix_does() -> None:
    right = RNG.random((TRIALS, TEST)) < 0.6
    estimated = MASK.copy()
    estimated[:, 2] = True  # never left out: no influence
    expected = MASK @ np.nan_to_num(influence_matrix(estimated, right))
    np.testing.assert_allclose(influence_predictions(MASK, estimated, right), expected, atol=1e-12)


def test_influence_of_one_half_predicts_the_other_where_one_sample_decides() -> None:
    """Test sample t is right exactly where training sample t was trained on."""
    mask = np.random.default_rng(2).random((400, TRAIN)) < 0.7
    right, half = mask[:, :TEST], np.arange(400) < 200
    scores = linear_datamodeling_scores(
        influence_predictions(mask[~half], mask[half], right[half]), right[~half].astype(float)
    )
    assert scores.min() > 0.5


def test_margins_are_log_odds() -> None:
    p = np.array([[0.5, 0.75, 0.0, 1.0]], np.float16)
    np.testing.assert_allclose(margins(p)[0, :2], [0, np.log(3)], atol=1e-12)
    assert np.isfinite(margins(p)).all()
    np.testing.assert_allclose(margins(1 - p), -margins(p), atol=1e-12)


def test_the_interval_is_students() -> None:
    values = np.append(RNG.normal(size=20), np.nan)
    found = mean_over_samples(values)
    expected = stats.ttest_1samp(values[:20], 0).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high))
    assert found.number == 20
    assert np.isnan(mean_over_samples(np.array([np.nan, 1.0])).low)
    assert np.isnan(mean_over_samples(np.array([np.nan])).mean)
