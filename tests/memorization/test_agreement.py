"""The cheaper scores against scipy and closed forms, the alignment report against scipy and sklearn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from bat_dist.memorization import agreement
from bat_dist.memorization.agreement import (
    alignment,
    auroc,
    ensemble_confidence,
    ensemble_disagreement,
)


def softmax_outputs(num_models, num_samples, num_classes, scale=5.0, seed=0):
    logits = scale * np.random.default_rng(seed).standard_normal((num_models, num_samples, num_classes))
    probs = np.exp(logits - logits.max(axis=2, keepdims=True))
    return probs / probs.sum(axis=2, keepdims=True)


@pytest.mark.parametrize("block", [1, 100, 2**18])
def test_disagreement_equals_scipy(block, monkeypatch):
    monkeypatch.setattr(agreement, "_BLOCK_VALUES", block)
    probs = softmax_outputs(4, 7, 5)
    probs[0, 0] = [1, 0, 0, 0, 0]
    expected = [
        sum(jensenshannon(probs[j, n], probs[p, n]) ** 2 for j in range(4) for p in range(4)) / 16 for n in range(7)
    ]
    np.testing.assert_allclose(ensemble_disagreement(probs), expected, rtol=1e-10, atol=1e-15)


def test_disagreement_of_equals_is_zero_and_of_opposites_log_2():
    """m models sure of m different classes: m(m-1) ordered pairs at log 2, hence (m-1)/m log 2."""
    np.testing.assert_array_equal(ensemble_disagreement(np.repeat(softmax_outputs(1, 9, 6), 5, axis=0)), np.zeros(9))
    for m in (2, 3, 10):
        np.testing.assert_allclose(ensemble_disagreement(np.eye(m)[:, None]), (m - 1) / m * np.log(2), rtol=1e-14)


def test_disagreement_of_near_equals_is_accurate():
    """JS of (1/2 + e, 1/2 - e) and (1/2, 1/2) is e^2/2 to leading order."""
    for e in (1e-3, 1e-5, 1e-6):
        probs = np.array([[[0.5 + e, 0.5 - e]], [[0.5, 0.5]]])
        np.testing.assert_allclose(ensemble_disagreement(probs), 2 * (e**2 / 2) / 4, rtol=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(0.1, 50))
def test_disagreement_is_between_zero_and_log_2_and_ignores_order(num_models, seed, scale):
    probs = softmax_outputs(num_models, 4, 3, scale, seed)
    score = ensemble_disagreement(probs)
    assert (score >= 0).all()
    assert (score <= np.log(2)).all()
    np.testing.assert_allclose(ensemble_disagreement(probs[::-1, :, ::-1]), score, atol=1e-14)


def test_confidence_is_the_mean_over_models():
    probs = np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [[0.2, 0.5, 0.3], [0.0, 0.4, 0.6]]])
    np.testing.assert_allclose(ensemble_confidence(probs), [0.6, 0.7], rtol=1e-15)
    np.testing.assert_allclose(ensemble_confidence(probs, np.array([1, 0])), [0.35, 0.05], rtol=1e-15)


def test_half_precision_softmax_is_accepted():
    probs = softmax_outputs(3, 20, 10).astype(np.float16)
    np.testing.assert_allclose(
        ensemble_disagreement(probs), ensemble_disagreement(softmax_outputs(3, 20, 10)), atol=2e-3
    )


@pytest.mark.parametrize("score", [ensemble_disagreement, ensemble_confidence])
@pytest.mark.parametrize(
    ("probs", "message"),
    [
        (np.ones((2, 3)), r"probs must be \[models, samples, classes\], got shape \(2, 3\)"),
        (np.ones((0, 3, 2)), r"probs must be \[models, samples, classes\]"),
        (np.full((2, 3, 4), 1.0), "sum to 1 over the classes: give softmax outputs, not logits"),
        (np.array([[[-0.5, 1.5]]]), "probs must be at least 0"),
        (np.full((2, 3, 4), np.nan), "probs must be at least 0"),
    ],
)
def test_bad_probabilities_are_refused(score, probs, message):
    with pytest.raises(ValueError, match=message):
        score(probs)


def test_bad_labels_are_refused():
    for labels in (np.array([0, 1]), np.array([0, 1, 4]), np.array([0, -1, 2])):
        with pytest.raises(ValueError, match="labels must be 3 classes from 0 to 3"):
            ensemble_confidence(softmax_outputs(2, 3, 4), labels)


def scores_with_ties(num_samples=400, seed=0):
    rng = np.random.default_rng(seed)
    mem = np.round(rng.random(num_samples), 2)
    return np.round(mem + 0.5 * rng.standard_normal(num_samples), 1), mem


def test_alignment_equals_scipy_and_sklearn():
    score, mem = scores_with_ties()
    report = alignment(score, mem, num_bootstrap=20)
    np.testing.assert_allclose(report.spearman, np.asarray(spearmanr(score, mem)[0]), rtol=1e-12)
    np.testing.assert_allclose(report.auroc, roc_auc_score(mem > 0.15, score), rtol=1e-12)
    assert (report.num_samples, report.num_atypical, report.num_dropped) == (400, (mem > 0.15).sum(), 0)


def test_bootstrap_interval_equals_resampling_by_hand():
    score, mem = scores_with_ties(60)
    rng = np.random.default_rng(3)
    rows = [rng.integers(60, size=60) for _ in range(200)]
    by_hand = np.quantile([spearmanr(score[row], mem[row])[0] for row in rows], [0.05, 0.95])
    report = alignment(score, mem, num_bootstrap=200, seed=3, level=0.9)
    np.testing.assert_allclose(report.spearman_interval, by_hand, rtol=1e-12)


def test_bootstrap_interval_covers():
    """A bivariate normal has Spearman 6/pi asin(r/2). 200 studies: Monte Carlo error 1.5 points."""
    rng, truth = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.6 / 2)
    covered = 0
    for _ in range(200):
        score = rng.standard_normal(150)
        mem = 0.6 * score + 0.8 * rng.standard_normal(150)
        low, high = alignment(score, mem, num_bootstrap=100).spearman_interval
        covered += low <= truth <= high
    assert abs(covered / 200 - 0.95) < 0.05


def test_sign_is_higher_is_more_atypical():
    _, mem = scores_with_ties()
    assert alignment(mem, mem, num_bootstrap=5).auroc == 1
    opposite = alignment(-mem, mem, num_bootstrap=5)
    assert opposite.auroc == 0
    np.testing.assert_allclose(opposite.spearman, -1, rtol=1e-12)


def test_undefined_samples_are_dropped_and_counted():
    score, mem = scores_with_ties(50)
    longer_score, longer_mem = np.r_[score, 0.3, np.nan, np.nan], np.r_[mem, np.nan, 0.3, np.nan]
    report, clean = alignment(longer_score, longer_mem, seed=1), alignment(score, mem, seed=1)
    assert report.num_dropped == 3
    assert (report.num_samples, report.spearman, report.auroc) == (50, clean.spearman, clean.auroc)
    assert report.spearman_interval == clean.spearman_interval


@pytest.mark.parametrize(
    ("score", "mem"),
    [(np.ones(9), np.arange(9) / 9), (np.zeros(1), np.ones(1)), (np.full(3, np.nan), np.ones(3))],
)
def test_no_alignment_is_undefined_not_zero(score, mem):
    report = alignment(score, mem, num_bootstrap=10)
    assert np.isnan([report.spearman, *report.spearman_interval]).all()


def test_auroc_of_an_empty_class_is_undefined():
    assert np.isnan(auroc(np.arange(4.0), np.zeros(4, bool)))
    assert np.isnan(auroc(np.arange(4.0), np.ones(4, bool)))
    assert auroc(np.zeros(4), np.array([True, False, True, False])) == 0.5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"one value per sample, got shapes \(3,\), \(4,\)"):
        alignment(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got 95"):
        alignment(np.zeros(3), np.zeros(3), level=95)
