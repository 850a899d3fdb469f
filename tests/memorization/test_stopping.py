"""Rules for enough trials: the prefix in order decides, whatever arrives when."""

import math

import numpy as np
import pytest

from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.reliability import split_half_reliability
from bat_dist.memorization.sequential import confidence_sequence, decided
from bat_dist.memorization.stopping import Look, OrderedTrials, Replay, StoppingRule, is_look, replay

Trials = tuple[np.ndarray, np.ndarray]
EASY = StoppingRule("undecided", 0.3, max_trials=400)


@pytest.fixture(scope="module")
def trials() -> Trials:
    """300 trials on 203 samples, a quarter of them memorized."""
    rng = np.random.default_rng(0)
    q = np.where(np.arange(203) % 4 == 0, 0.3, 0.995)
    mask = rng.random((300, 203)) < 0.7
    return mask, rng.random((300, 203)) < np.where(mask, 0.998, q)


def naive_stop(mask: np.ndarray, correct: np.ndarray, rule: StoppingRule) -> int:
    """The first look, in a plain loop over counts from the beginning, at which the rule is met."""
    for n in [*range(10, 101, 10), *range(125, len(mask) + 1, 25)]:
        inside, right = mask[:n], correct[:n]
        counts = ((inside & right).sum(0), inside.sum(0), (~inside & right).sum(0), (~inside).sum(0))
        low, high = confidence_sequence(*counts)
        met = {
            "undecided": np.mean((low < 0.15) & (high > 0.15)) <= rule.target,
            "reliability": split_half_reliability(inside, right) >= rule.target,
            "width": np.median(high - low) <= rule.target,
        }
        if met[rule.criterion]:
            return n
    raise AssertionError("the rule is never met")


@pytest.mark.parametrize(
    "rule", [EASY, StoppingRule("reliability", 0.97, 400), StoppingRule("width", 0.2, 400)], ids=lambda r: r.criterion
)
def test_a_replay_ends_where_a_plain_loop_does(trials: Trials, rule: StoppingRule) -> None:
    found = replay(*trials, rule)
    assert found.is_met
    assert found.num_trials == naive_stop(*trials, rule) < 300
    prefix = [part[: found.num_trials] for part in trials]
    estimate = estimate_memorization(*prefix)
    assert ((found.low <= estimate.mem) & (estimate.mem <= found.high)).all()
    np.testing.assert_array_equal(found.verdicts, decided(found.low, found.high))
    last = found.looks[-1]
    assert last.above == np.mean(found.verdicts == 1)
    assert last.below == np.mean(found.verdicts == -1)
    assert last.above + last.below + last.undecided == pytest.approx(1)
    assert last.reliability == pytest.approx(split_half_reliability(*prefix))
    assert [look.num_trials for look in found.looks] == [n for n in range(found.num_trials + 1) if is_look(n)]


def test_a_replay_takes_the_trials_in_the_order_that_it_is_given(trials: Trials) -> None:
    order = np.random.default_rng(5).permutation(300)
    shuffled, sorted_before = replay(*trials, EASY, order), replay(trials[0][order], trials[1][order], EASY)
    same(shuffled, sorted_before)
    assert not np.array_equal(shuffled.low, replay(*trials, EASY).low)


def same(one: Replay, other: Replay) -> None:
    assert one.num_trials == other.num_trials
    for name in ("verdicts", "low", "high"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert str(one.looks) == str(other.looks)  # NaN is NaN


def test_too_few_trials_are_said_to_be_too_few(trials: Trials) -> None:
    found = replay(trials[0][:37], trials[1][:37], EASY)
    assert (found.num_trials, found.is_met) == (37, False)
    assert [look.num_trials for look in found.looks] == [10, 20, 30, 37]
    at_most = replay(*trials, StoppingRule("undecided", 0.3, max_trials=25))
    assert (at_most.num_trials, at_most.is_met) == (25, False)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_arrival_changes_nothing(trials: Trials, seed: int) -> None:
    """Shuffled in windows of any width, and wholly; some trials are given up, and the next take their places."""
    mask, correct = trials
    lost = {3, 40, 41, 299}
    kept = [n for n in range(300) if n not in lost]
    expected = replay(mask, correct, EASY, kept)
    rng = np.random.default_rng(seed)
    arrival = np.argsort(np.arange(300) + rng.uniform(0, [1, 8, 60, 1e6][seed], 300))
    found = OrderedTrials(EASY, 203)
    for number in arrival.tolist():
        found.note(number, None if number in lost else (mask[number], correct[number]))
    assert found.is_met
    assert found.numbers == kept[: expected.num_trials]
    assert found.given_up == [n for n in sorted(lost) if n < found.numbers[-1]]
    assert str(found.looks) == str(list(expected.looks))
    np.testing.assert_array_equal(found.prefix.intervals(), [expected.low, expected.high])


def test_nothing_is_decided_while_an_earlier_trial_is_missing(trials: Trials) -> None:
    mask, correct = trials
    found = OrderedTrials(EASY, 203)
    assert not any(found.note(n, (mask[n], correct[n])) for n in range(1, 300))
    assert (found.numbers, found.looks) == ([], [])
    assert found.note(0, (mask[0], correct[0]))
    assert found.is_met
    assert found.numbers == list(range(replay(*trials, EASY).num_trials))
    assert not found.note(299, (mask[299], correct[299]))  # too late to count


def test_the_last_look_is_at_the_last_trial_even_if_that_was_given_up(trials: Trials) -> None:
    mask, correct = trials
    rule = StoppingRule("undecided", 0.01, max_trials=15)
    found = OrderedTrials(rule, 203)
    for number in range(15):
        found.note(number, None if number in (2, 14) else (mask[number], correct[number]))
    assert found.is_over
    assert not found.is_met
    assert [look.num_trials for look in found.looks] == [10, 13]
    assert (found.numbers, found.given_up) == ([n for n in range(14) if n != 2], [2, 14])


def test_an_unknown_reliability_is_not_enough() -> None:
    assert not StoppingRule("reliability", 0.5).is_met(Look(10, 0, 0, 1, 1, math.nan))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (dict(criterion="undecided", target=0.0), r"in \(0, 1\) for undecided, got 0"),
        (dict(criterion="undecided", target=1.0), r"in \(0, 1\) for undecided, got 1"),
        (dict(criterion="reliability", target=1.2), r"in \(0, 1\) for reliability, got 1.2"),
        (dict(criterion="width", target=2.0), r"in \(0, 2\) for width, got 2"),
        (dict(criterion="width", target=0.1, max_trials=1), "max_trials must be at least 2, got 1"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(rule: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StoppingRule(**rule)  # pyright: ignore[reportArgumentType]
