"""When are there enough trials?  Rules that are asked of the first n trials, and the same on a store of past trials.

A rule looks at the trials 0, 1, 2, ... in the order of their numbers, never at those that happened to arrive, so that
it ends at the same trial whatever the order of arrival, the number of workers and the interruptions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from bat_dist.memorization.estimate import check_trials
from bat_dist.memorization.reliability import split_half_reliability
from bat_dist.memorization.sequential import LEVEL, confidence_sequence, decided, guarantee
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD

Criterion = Literal["undecided", "reliability", "width"]
Correct = Bool[np.ndarray, " samples"]

TARGETS: dict[Criterion, float] = {"undecided": 0.25, "reliability": 0.9, "width": 0.15}
"""What is enough where nothing else was said: a share of the samples, a correlation, a difference of accuracies."""
OFTEN, OFTEN_UNTIL, LATER = 10, 100, 25  # trials


class Look(NamedTuple):
    """What the first `num_trials` trials say.  above, below, undecided: shares of the samples, of mem > sigma.

    median_width: of the intervals that hold at all times. reliability: of mem, by split halves; NaN for few trials.
    """

    num_trials: int
    above: float
    below: float
    undecided: float
    median_width: float
    reliability: float


@dataclass(frozen=True)
class StoppingRule:
    """Enough trials are those after which `criterion` has reached `target`, or `max_trials` of them.

    undecided: the share of samples of which it is not decided whether mem > sigma is at most the target. reliability:
    that of mem, by split halves (`reliability`), is at least the target. width: the median width of the intervals that
    hold at all times is at most the target.
    """

    criterion: Criterion
    target: float
    max_trials: int = 1000
    sigma: float = ATYPICAL_THRESHOLD

    def __post_init__(self) -> None:
        highest = 2 if self.criterion == "width" else 1
        if not 0 < self.target < highest:
            raise ValueError(f"precision_target must be in (0, {highest}) for {self.criterion}, got {self.target:g}")
        if self.max_trials < 2:
            raise ValueError(f"max_trials must be at least 2, got {self.max_trials}")

    def is_met(self, look: Look) -> bool:
        """Are these trials enough?"""
        if self.criterion == "reliability":
            return look.reliability >= self.target
        return (look.undecided if self.criterion == "undecided" else look.median_width) <= self.target

    @property
    def in_words(self) -> str:
        """`at most 25% of the samples undecided about mem > 0.15`."""
        return {
            "undecided": f"at most {100 * self.target:.4g}% of the samples undecided about mem > {self.sigma:g}",
            "reliability": f"a reliability of memorization of at least {self.target:g}",
            "width": f"a median width of the intervals of at most {self.target:g}",
        }[self.criterion]


def is_look(num_trials: int) -> bool:
    """Whether a rule is asked after so many trials: every 10 up to 100, every 25 from there on.

    The intervals hold at all times, so that looks cost no certainty, only a second or less of the driver for 50,000
    samples and 1,000 trials. Waiting for the next one costs 9 trials at most, or 24 later.
    """
    return num_trials > 0 and num_trials % (OFTEN if num_trials <= OFTEN_UNTIL else LATER) == 0


class TrialPrefix:
    """The first n trials, to which the next is added: counts, and what they say."""

    def __init__(self, num_samples: int) -> None:
        self.num_trials = 0
        self._num_samples = num_samples
        self._n_in, self._correct_in, self._correct = (np.zeros(num_samples, np.int32) for _ in range(3))
        self._rows: list[np.ndarray] = []  # mask and correctness of each trial in bits: the halves are drawn anew

    def add(self, mask: Correct, correct: Correct) -> None:
        """One more trial: who was in its training set, and on whom its network is right."""
        self.num_trials += 1
        self._n_in += mask
        self._correct_in += mask & correct
        self._correct += correct
        self._rows.append(np.packbits([mask, correct], axis=1))

    def intervals(self, level: float = LEVEL) -> tuple[Float[np.ndarray, " samples"], Float[np.ndarray, " samples"]]:
        """Both ends of each sample's interval of mem, as `confidence_sequence`."""
        n_out, correct_out = self.num_trials - self._n_in, self._correct - self._correct_in
        return confidence_sequence(self._correct_in, self._n_in, correct_out, n_out, level)

    def look(self, sigma: float = ATYPICAL_THRESHOLD) -> Look:
        """What these trials say of all samples."""
        low, high = self.intervals()
        verdicts = decided(low, high, sigma)
        above, below, undecided = (float(np.mean(verdicts == verdict)) for verdict in (1, -1, 0))
        rows = np.unpackbits(np.stack(self._rows), axis=2, count=self._num_samples).view(bool)
        reliability = split_half_reliability(rows[:, 0], rows[:, 1])
        return Look(self.num_trials, above, below, undecided, float(np.median(high - low)), reliability)


@dataclass
class OrderedTrials:
    """Trials that arrive in any order, given to a rule in the order of their numbers, until it is met.

    A trial that was given up is left out, and the next takes its place. `numbers` are those of the trials that count,
    `given_up` of those left out before the last of them, and `looks` what was found; what arrives afterwards, or waits
    for an earlier trial, does not count.
    """

    rule: StoppingRule
    num_samples: int
    looks: list[Look] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefix = TrialPrefix(self.num_samples)
        self._next = 0
        self._waiting: dict[int, np.ndarray | None] = {}

    @property
    def is_met(self) -> bool:
        """Is the rule met, by the last look?"""
        return bool(self.looks) and self.rule.is_met(self.looks[-1])

    @property
    def is_over(self) -> bool:
        """Is no further trial needed?"""
        return self.is_met or self._next >= self.rule.max_trials

    def note(self, number: int, trial: tuple[Correct, Correct] | None) -> bool:
        """Take a trial's mask and correctness, or None if it was given up; True if there was a look."""
        if self.is_over or number < self._next:
            return False
        self._waiting[number] = None if trial is None else np.packbits(trial, axis=1)
        before = len(self.looks)
        while not self.is_over and self._next in self._waiting:
            following, packed = self._next, self._waiting.pop(self._next)
            self._next += 1
            if packed is None:
                self.given_up.append(following)
            else:
                mask, correct = np.unpackbits(packed, axis=1, count=self.num_samples).view(bool)
                self.prefix.add(mask, correct)
                self.numbers.append(following)
            found = self.prefix.num_trials
            is_new = not self.looks or self.looks[-1].num_trials < found
            if found and is_new and (is_look(found) or self._next >= self.rule.max_trials):
                self.looks.append(self.prefix.look(self.rule.sigma))
        return len(self.looks) > before

    def facts(self, mask_plan: str) -> Mapping[str, object]:
        """The rule, what it has seen, and what that promises, for JSON.  mask_plan: the trials'."""
        return {
            "rule": vars(self.rule),
            "goal": self.rule.in_words,
            "guarantee": guarantee(mask_plan),
            "is_met": self.is_met,
            "is_over": self.is_over,
            "num_trials": len(self.numbers),
            "given_up": self.given_up,
            "looks": [look._asdict() for look in self.looks],
        }


class Replay(NamedTuple):
    """How a rule would have ended.  num_trials: after how many trials; is_met: or else they were not enough.

    verdicts: for each sample 1 if mem > sigma is decided, -1 if its contrary is, 0 if neither; low, high: its interval.
    """

    num_trials: int
    is_met: bool
    verdicts: Int8[np.ndarray, " samples"]
    low: Float[np.ndarray, " samples"]
    high: Float[np.ndarray, " samples"]
    looks: tuple[Look, ...]


def replay(
    mask: Bool[np.ndarray, "trials samples"],
    train_correct: Bool[np.ndarray, "trials samples"],
    rule: StoppingRule,
    order: Sequence[int] | Int[np.ndarray, " order"] | None = None,
) -> Replay:
    """Ask the rule of trials that are there, in this order (default: as they are), as if they were run one by one.

    order: positions of trials, each at most once. Raises ValueError for trials that are none.
    """
    check_trials(mask, train_correct=train_correct)
    positions: Iterable[int] = range(len(mask)) if order is None else order
    trials = OrderedTrials(rule, mask.shape[1])
    for number, position in enumerate(positions):
        trials.note(number, (mask[position], train_correct[position]))
        if trials.is_over:
            break
    if not trials.looks or trials.looks[-1].num_trials < trials.prefix.num_trials:
        trials.looks.append(trials.prefix.look(rule.sigma))
    low, high = trials.prefix.intervals()
    verdicts = decided(low, high, rule.sigma)
    return Replay(trials.prefix.num_trials, trials.is_met, verdicts, low, high, tuple(trials.looks))
