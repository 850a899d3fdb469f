"""The numbers of a run, counted by hand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bat_dist.artifacts.scores import LeaveOutScores, Trials
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.memorization.estimate import Memorization, estimate_memorization
from bat_dist.memorization.influence import InfluencePairs
from bat_dist.reporting.findings import of_scores
from bat_dist.reporting.summary import in_words, leave_out_summary

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
    assert summary["warnings"][-1] == "1 trial failed, which the scores leave out"


def of_networks(
    dataset: Dataset, *, num_trials: int, fitted: float | np.ndarray, left_out: np.ndarray | None = None
) -> Mapping[str, Any]:
    """Each of a thousand samples is right with a chance of its own if left out, with that of `fitted` if trained on."""
    dataset = load_dataset(dataset.name, num_train=1000, num_test=10)
    rng = np.random.default_rng(0)
    mask = rng.random((num_trials, 1000)) < 0.7
    correct = rng.random(mask.shape) < np.where(
        mask, fitted, rng.uniform(0.3, 1, 1000) if left_out is None else left_out
    )
    trials = Trials(np.arange(num_trials), mask, correct, correct, np.ones((num_trials, 2)))
    scores = LeaveOutScores(estimate_memorization(mask, correct), NO_PAIRS, trials)
    return leave_out_summary(dataset, scores, influence_threshold=0.15, failed={})


def test_reliability_is_the_first_thing_said_after_the_data(digits: Dataset) -> None:
    summary = of_networks(digits, num_trials=200, fitted=0.99)
    words = in_words(summary)
    assert list(words)[1] == "reliability of memorization"
    assert words["reliability of memorization"].startswith(f"{summary['reliability']:.2f} of 1 (halves of 200 trials")
    assert summary["reliability"] > 0.8
    assert not summary["warnings"]


def test_few_trials_are_doubted_and_more_are_advised(digits: Dataset) -> None:
    summary = of_networks(digits, num_trials=10, fitted=0.99)
    (warning,) = summary["warnings"]
    advised = int(warning.split("about ")[1].split(" trials")[0])
    assert of_networks(digits, num_trials=advised, fitted=0.99)["reliability"] == pytest.approx(0.8, abs=0.05)


def test_networks_that_did_not_learn_the_data_are_doubted(digits: Dataset) -> None:
    summary = of_networks(digits, num_trials=400, fitted=0.85)
    (warning,) = (text for text in summary["warnings"] if "classify only" in text)
    assert 0.84 < summary["accuracy_in"] < 0.86
    assert f"only {summary['accuracy_in']:.1%} of the samples that they were trained on" in warning
    assert "--crop_padding 0" in warning
    assert "--no_flip" not in warning  # digits are not mirrored anyway


@pytest.mark.parametrize(("hard_ones", "doubted"), [(0.2, True), (0.4, True), (0.7, False), (1.0, False)])
def test_networks_that_learned_all_but_the_hard_samples_are_doubted(
    digits: Dataset, hard_ones: float, doubted: bool
) -> None:
    """A tenth is wrong when left out; of these errors training mends a share."""
    hard = np.arange(1000) < 100
    how = {"fitted": np.where(hard, hard_ones, 1.0), "left_out": np.where(hard, 0.0, 1.0)}
    summary = of_networks(digits, num_trials=400, **how)
    assert summary["accuracy_in"] > 0.9
    assert any("classify only" in text for text in summary["warnings"]) == doubted


def test_undefined_is_nan_not_a_crash(digits: Dataset) -> None:
    nothing, zeros = np.full(10, np.nan), np.zeros(10, int)
    scores = LeaveOutScores(Memorization(nothing, nothing, zeros, zeros, nothing, nothing), NO_PAIRS)
    summary = leave_out_summary(digits, scores, influence_threshold=0.15, failed={})
    assert np.isnan(summary["mean_mem"])
    assert in_words(summary)["undefined"] == "10 samples never in or never out"
    assert "trials" not in in_words(summary)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_an_undefined_correlation_is_called_so(nothing: float | None) -> None:
    """NaN in the process that computes it, null in the file that is read again."""
    found = {"spearman": nothing, "spearman_interval": [nothing, nothing], "auroc": nothing}
    words = in_words({"alignment": {"el2n": found}})
    assert words["el2n and memorization"] == "Spearman undefined (95%: undefined to undefined), AUROC undefined"
    assert not list(of_scores({"alignment": {"el2n": found}}))
