"""The sentences at the top of the pages: what was found, of how many, and how sure it is."""

import itertools
import json
from pathlib import Path

import numpy as np

from bat_dist.artifacts.scores import LeaveOutScores, Trials
from bat_dist.data.datasets import load_dataset
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import InfluencePairs
from bat_dist.reporting.findings import of_report, of_scores
from bat_dist.reporting.summary import in_words, leave_out_summary
from bat_dist.results.claim import COST
from bat_dist.results.claims import CLAIMS, Finding
from bat_dist.results.compare import ComparedResults, compare
from bat_dist.results.find import Found, find_results
from bat_dist.results.findings_file import FoundStudy
from bat_dist.storage.files import Folder
from tests.helpers.made_results import study, write_evaluation

NO_PAIRS = InfluencePairs(np.empty(0, int), np.empty(0, int), np.empty(0), np.empty(0), 7)


def test_of_scores_by_hand() -> None:
    """Ten samples, each in half of 40 trials: sample 0 is right only if trained on, sample 1 in 16 of the 20 others."""
    digits = load_dataset("digits", num_train=10, num_test=10)
    mask = np.zeros((40, 10), bool)
    mask[:20, ::2] = mask[20:, 1::2] = True
    correct = np.ones((40, 10), bool)
    correct[20:, 0] = correct[:4, 1] = False
    predicted = np.where(correct, digits.train.labels, (digits.train.labels + 1) % 10).astype(np.uint16)
    trials = Trials(np.arange(40), mask, correct, np.ones((40, 10), bool), np.ones((40, 2)), predicted)
    scores = LeaveOutScores(estimate_memorization(mask, correct), NO_PAIRS, trials)
    summary = leave_out_summary(digits, scores, influence_threshold=0.15, failed={})
    atypical, most, taken, sure, influence = of_scores(summary)
    # With Wilson's bound b = 20 / (20 + z^2) = 0.839 of 20 right of 20: sample 0 from 1 - sqrt(2) (1 - b) = 0.77 on,
    # sample 1, whose mem is 1 - 16/20, from below 0.15 on.
    assert atypical.startswith("2 of 10 training samples (20.0%) are atypical: mem above 0.15")
    assert "whole 95% interval above it for 1 of them; 80.0% are typical" in atypical
    assert f"is {digits.train.ids[0]} ({digits.class_names[digits.train.labels[0]]}): mem 1.00 [0.77, 1.00]" in most
    assert "take 1 training sample for one other class" in taken
    assert sure.startswith("How sure: the reliability of these scores is")
    assert "halves of 40 trials compared" in sure
    # Of the eight samples that all networks have right: 2 (1 - b).
    assert "the 95% interval of one sample is 0.32 wide (median)" in sure
    assert influence == "An influence above 0.15 was found for 7 pairs of a training and a test sample."
    assert "95% interval of one sample: 0.32 wide" in in_words(summary)["mean memorization"]


def test_a_summary_of_an_earlier_version_is_told_without_what_it_lacks() -> None:
    found = {"num_train": 10, "num_undefined": 0, "share_atypical": 0.2, "share_typical": 0.5}
    assert list(of_scores(found)) == [
        "2 of 10 training samples (20.0%) are atypical: mem above 0.15; 50.0% are typical: mem below 0.02."
    ]
    assert list(of_scores({"num_train": 10, "num_test": 3})) == []


def test_of_a_report(tmp_path: Path) -> None:
    """BAT has 40 of 200 images more right than PGD-AT under PGD, with each of three seeds; TRADES differs by chance."""
    study(tmp_path)
    (tmp_path / "scores").mkdir()
    np.savez(tmp_path / "scores" / "memorization.npz", mem=np.zeros(10))
    summary = {"dataset": "digits", "num_train": 10, "num_undefined": 0, "share_atypical": 0.2, "share_typical": 0.5}
    (tmp_path / "scores" / "summary.json").write_text(json.dumps(summary))
    found = find_results([str(tmp_path)])
    sentences = list(of_report(found, compare(found)))
    assert "200 test images, 3 seeds: against PGD-AT" in sentences[0]
    (pgd,) = (words for words in sentences if words.startswith("PGD-20: "))
    assert pgd.startswith("PGD-20: better than PGD-AT: BAT")
    assert ", +20.0 [" in pgd
    assert pgd.endswith("no significant difference for the other 1.")
    assert sentences[-1].startswith("digits: 2 of 10 training samples (20.0%) are atypical")


def test_each_checkpoint_has_a_sentence_of_its_own(tmp_path: Path) -> None:
    """The best checkpoint of BAT has 80 of 200 images more right than that of PGD-AT, the last one 60."""
    right = np.arange(200) < 100
    for seed, (which, more) in itertools.product(range(3), (("best", 80), ("last", 60))):
        for method, flags in {"pgd_at": right, "bat": np.arange(200) < 100 + more + seed}.items():
            place = tmp_path / f"{method}-{which}-{seed}"
            write_evaluation(place, {"pgd20": flags}, method=method, seed=seed, settings={"which": which})
    found = find_results([str(tmp_path)])
    _, best, last = of_report(found, compare(found))
    assert best.startswith("PGD-20, best checkpoint: better than PGD-AT: BAT")
    assert best.count(", +40.5 [") == 1
    assert last.startswith("PGD-20, last checkpoint: better than PGD-AT: BAT")
    assert last.count(", +30.5 [") == 1


def test_of_one_seed_and_of_nothing(tmp_path: Path) -> None:
    study(tmp_path / "one", seeds=1)
    found = find_results([str(tmp_path / "one")])
    assert any("one seed each says nothing of other seeds" in words for words in of_report(found, compare(found)))
    (tmp_path / "empty").mkdir()
    found = find_results([str(tmp_path / "empty")])
    assert list(of_report(found, compare(found))) == ["Nothing is finished yet."]


def test_claims_are_counted_once_whatever_the_order_of_the_studies(tmp_path: Path) -> None:
    """Two studies contradict each other on a claim of the paper; one has a claim on the cost of scores."""

    def found_in(name: str, *findings: Finding) -> FoundStudy:
        return FoundStudy(Folder(tmp_path / name), "typical", {"note": ""}, findings)

    first = found_in("a", Finding("at_clean_drops", 0.02, 0.01, 0.03, ""), Finding("stops_early", 0.3, 0.2, 0.35, ""))
    second = found_in("b", Finding("at_clean_drops", -0.02, -0.03, -0.01, ""), Finding("at_fits_clean", 1, 0.99, 1, ""))
    sentences = [
        list(of_report(Found(studies=list(studies)), ComparedResults((), (), ())))
        for studies in ((first, second), (second, first))
    ]
    of_paper = sum(claim.place not in ("ours", COST) for claim in CLAIMS.values())
    assert sentences[0] == sentences[1]
    assert sentences[0] == [
        f"Of {of_paper} claims of the paper: {of_paper - 2} not tested, 1 reproduced, 1 with different verdicts.",
        "Of 1 claim of ours: 1 reproduced.",
    ]


def test_only_the_rule_that_tests_says_significantly() -> None:
    found = {"num_influential_pairs": 5, "influence_threshold": 0.15, "num_test": 100, "sets": {"test_atypical": 40}}
    (tested,) = of_scores({**found, "settings": {"typicality": "significant"}})
    assert tested.endswith("40 of 100 test samples depend significantly on an atypical training sample.")
    (as_printed,) = of_scores({**found, "settings": {"typicality": "paper"}})
    assert "significant" not in as_printed
    assert as_printed.endswith("depend on an atypical training sample by their estimates, which are not tested.")
