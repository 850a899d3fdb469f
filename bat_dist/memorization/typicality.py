"""Typical and atypical samples of both splits (Sec. 2.1, 3.1, 3.2).

The paper's sets, where "any" and "all" run over the train-atypical i:
    train atypical   mem(i) > 0.15
    train typical    mem(i) < 0.02
    test atypical    infl(i, j) > 0.15 for any i
    test typical     infl(i, j) <= 0.02 for all i, and accuracy on j at least 0.8
Two rules decide when an influence is over a threshold:
    paper            The estimate is, over all pairs; as printed. At 1000 trials 0.02 is below the noise of
                     one pair: the maximum over thousands of them excludes most test samples by chance.
    significant      (ours, the default) Only samples of one class are paired, and the excess must be
                     significant, one-sided and pair by pair: (infl - threshold) / se > z(level). The
                     plug-in se is 0 where all answers agree and would make any excess significant, so
                     the se is smoothed (Agresti and Caffo). A sample counts as typical if there is no
                     evidence against it: with few trials that says little, and a warning says so.
Test accuracy is the mean over the trials, that is over models trained on a share r of the training set.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtri

from bat_dist.memorization.columns import count_by_sample
from bat_dist.memorization.estimate import check_trials
from bat_dist.memorization.influence import MaxInfluence, max_influence
from bat_dist.memorization.influence_blocks import BLOCK_BYTES, Correct, Mask
from bat_dist.memorization.noise import Noise, noise_notes

ATYPICAL_THRESHOLD = 0.15  # Sec. 2.1
TYPICAL_THRESHOLD = 0.02  # Sec. 3.2
MIN_ACCURACY = 0.8  # Sec. 3.2
LEVEL = 0.001

SET_NAMES = ("train_typical", "train_atypical", "test_typical", "test_atypical")

Rule = Literal["significant", "paper"]


@dataclass(frozen=True)
class TypicalSets:
    """Four sets as bool by sample, and what to know before using them."""

    train_typical: Bool[np.ndarray, " train"]
    train_atypical: Bool[np.ndarray, " train"]
    test_typical: Bool[np.ndarray, " test"]
    test_atypical: Bool[np.ndarray, " test"]
    warnings: tuple[str, ...]

    def sizes(self) -> dict[str, int]:
        """Number of samples by set."""
        return {name: int(getattr(self, name).sum()) for name in SET_NAMES}


@dataclass(frozen=True)
class SetRule:
    """How an influence is found to be over a threshold.

    same_class: None means the rule's own: all pairs for `paper`, pairs of one class for `significant`.
    level: the one-sided error probability of one pair's test; 0.5 asks for no significance.
    """

    rule: Rule = "significant"
    same_class: bool | None = None
    atypical_threshold: float = ATYPICAL_THRESHOLD
    typical_threshold: float = TYPICAL_THRESHOLD
    min_accuracy: float = MIN_ACCURACY
    level: float = LEVEL

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule must be one of {list(get_args(Rule))}, got {self.rule!r}")
        if not 0 < self.level <= 0.5:
            raise ValueError(f"level must be in (0, 0.5], got {self.level}")
        if self.typical_threshold > self.atypical_threshold:
            raise ValueError(
                f"typical_threshold must not exceed atypical_threshold {self.atypical_threshold}, "
                f"got {self.typical_threshold}"
            )

    @property
    def within_class(self) -> bool:
        """Whether only pairs of one class are looked at."""
        return self.rule == "significant" if self.same_class is None else self.same_class

    @property
    def thresholds(self) -> tuple[float, float]:
        """Those of influence: (atypical, typical)."""
        return self.atypical_threshold, self.typical_threshold

    @property
    def tested(self) -> tuple[float, ...]:
        """The thresholds over which an excess is tested: what `max_influence` is to be asked for."""
        return self.thresholds if self.rule == "significant" else ()


def typical_sets(
    mem: Float[np.ndarray, " train"],
    mask: Mask,
    test_correct: Correct,
    train_labels: Int[np.ndarray, " train"],
    test_labels: Int[np.ndarray, " test"],
    *,
    rule: Rule = "significant",
    same_class: bool | None = None,
    atypical_threshold: float = ATYPICAL_THRESHOLD,
    typical_threshold: float = TYPICAL_THRESHOLD,
    min_accuracy: float = MIN_ACCURACY,
    level: float = LEVEL,
    block_bytes: int = BLOCK_BYTES,
) -> TypicalSets:
    """The four sets under `rule`; samples with undefined (NaN) memorization are in neither training set.

    The other arguments are those of `SetRule`, and `block_bytes` that of `influence_blocks`.
    """
    check_trials(mask, test_correct=test_correct)
    asked = SetRule(rule, same_class, atypical_threshold, typical_threshold, min_accuracy, level)
    _check_mem(mem, mask)
    found = max_influence(
        mask,
        test_correct,
        train_labels,
        test_labels,
        thresholds=asked.tested,
        same_class=asked.within_class,
        train_subset=mem > atypical_threshold,
        block_bytes=block_bytes,
    )
    return sets_of(asked, found, mem, mask, test_correct, train_labels, test_labels)


def sets_of(
    asked: SetRule,
    found: MaxInfluence,
    mem: Float[np.ndarray, " train"],
    mask: Mask,
    test_correct: Correct,
    train_labels: Int[np.ndarray, " train"],
    test_labels: Int[np.ndarray, " test"],
) -> TypicalSets:
    """The four sets from what `max_influence` has found of the samples with mem above the atypical threshold."""
    _check_mem(mem, mask)
    z = float(-ndtri(asked.level)) if asked.rule == "significant" else None
    atypical, typical = mem > asked.atypical_threshold, mem < asked.typical_threshold
    if z is None:
        over_atypical, over_typical = (found.influence > threshold for threshold in asked.thresholds)
    else:
        over_atypical, over_typical = found.excess_z > z
    accurate = count_by_sample(test_correct) / len(test_correct) >= asked.min_accuracy
    sets: dict[str, np.ndarray] = dict(
        zip(SET_NAMES, (typical, atypical, ~over_typical & accurate, over_atypical), strict=True)
    )
    labels = (train_labels[atypical], test_labels) if asked.within_class else None
    noise = Noise.of(len(mask), count_by_sample(mask)[atypical], count_by_sample(test_correct), labels)
    notes = noise_notes(noise, accurate, asked.thresholds, z)
    if undefined := int(np.isnan(mem).sum()):
        notes.insert(
            0,
            f"{undefined} of {len(mem)} training samples have undefined memorization (never in, or never out) "
            "and are in neither set: run more trials, or a balanced plan",
        )
    notes += [f"{name} is empty" for name, members in sets.items() if not members.any()]
    return TypicalSets(**sets, warnings=tuple(notes))


def _check_mem(mem: Float[np.ndarray, " train"], mask: Mask) -> None:
    if mem.shape != mask.shape[1:]:
        raise ValueError(f"mem must have one value per training sample, {mask.shape[1:]}, got {mem.shape}")
