"""The numbers of a run, counted by hand."""

import numpy as np
import pytest

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.memorization.estimate import Memorization, estimate_memorization
from bat_dist.memorization.influence import InfluencePairs
from bat_dist.reporting.summary import in_words, leave_out_summary
from bat_dist.storage.scores import LeaveOutScores, Trials

NO_PAIRS = InfluencePairs(np.empty(0, int), np.empty(0, int), np.empty(0), np.empty(0), 7)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_train=10, num_test=10)


def test_what_was_counted_is_what_is_said(digits: Dataset) -> None:
    mask = np.ones((4, 10), bool)
    mask[:2, 0] = mask[2:, 1] = False  # all other samples are never left out
    correct = np.ones((4, 10), bool)
    correct[:2, 0] = False  # sample 0 is right only when trained on, sample 1 always
    correct[3, 9] = False
    test_correct = np.zeros((4, 10), bool)
    test_correct[:, :6] = True
    trials = Trials(np.arange(4), mask, correct, test_correct, np.array([[0.5, 2.0]] * 4))
    scores = LeaveOutScores(estimate_memorization(mask, correct), NO_PAIRS, trials)
    summary = leave_out_summary(digits, scores, influence_threshold=0.15, failed={4: "NonFiniteLoss: nan"})
    assert summary["num_undefined"] == 8
    assert summary["mean_mem"] == summary["share_atypical"] == summary["share_typical"] == 0.5
    assert summary["accuracy_in"] == pytest.approx((1 + 1 + 1 + 8 / 9) / 4)
    assert summary["accuracy_out"] == 0.5
    assert summary["accuracy_test"] == pytest.approx(0.6)
    words = in_words(summary)
    assert words["trials"] == "4 complete, 1 failed, 2.0 s each"
    assert words["accuracy on samples of the test set"] == "60.0% ± 0.0% (sd over trials)"
    assert words["influence > 0.15"] == "7 pairs"
    assert summary["warnings"] == ["1 trial failed, which the scores leave out"]


def test_undefined_is_nan_not_a_crash(digits: Dataset) -> None:
    nothing, zeros = np.full(10, np.nan), np.zeros(10, int)
    scores = LeaveOutScores(Memorization(nothing, nothing, zeros, zeros, nothing, nothing), NO_PAIRS)
    summary = leave_out_summary(digits, scores, influence_threshold=0.15, failed={})
    assert np.isnan(summary["mean_mem"])
    assert in_words(summary)["undefined"] == "10 samples never in or never out"
    assert "trials" not in in_words(summary)
