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

from bat_dist.memorization.estimate import check_trials
from bat_dist.memorization.influence import BLOCK_BYTES, max_influence
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


def typical_sets(
    mem: Float[np.ndarray, " train"],
    mask: Bool[np.ndarray, "trials train"],
    test_correct: Bool[np.ndarray, "trials test"],
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

    `same_class` None means the rule's own: all pairs for `paper`, pairs of one class for `significant`.
    `level` is the one-sided error probability of one pair's test; 0.5 asks for no significance.
    """
    _check_settings(mem, mask, test_correct, rule, level, typical_threshold, atypical_threshold)
    significant = rule == "significant"
    same_class = significant if same_class is None else same_class
    z = float(-ndtri(level)) if significant else None
    atypical, typical = mem > atypical_threshold, mem < typical_threshold
    thresholds = (atypical_threshold, typical_threshold)
    found = max_influence(
        mask,
        test_correct,
        train_labels,
        test_labels,
        thresholds=thresholds if significant else (),
        same_class=same_class,
        train_subset=atypical,
        block_bytes=block_bytes,
    )
    if z is None:
        over_atypical, over_typical = (found.influence > threshold for threshold in thresholds)
    else:
        over_atypical, over_typical = found.excess_z > z
    accurate = test_correct.mean(axis=0) >= min_accuracy
    sets: dict[str, np.ndarray] = dict(
        zip(SET_NAMES, (typical, atypical, ~over_typical & accurate, over_atypical), strict=True)
    )
    labels = (train_labels[atypical], test_labels) if same_class else None
    noise = Noise.of(mask[:, atypical], test_correct, labels)
    notes = noise_notes(noise, accurate, thresholds, z)
    if undefined := int(np.isnan(mem).sum()):
        notes.insert(
            0,
            f"{undefined} of {len(mem)} training samples have undefined memorization (never in, or never out) "
            "and are in neither set: run more trials, or a balanced plan",
        )
    notes += [f"{name} is empty" for name, members in sets.items() if not members.any()]
    return TypicalSets(**sets, warnings=tuple(notes))


def _check_settings(
    mem: Float[np.ndarray, " train"],
    mask: Bool[np.ndarray, "trials train"],
    test_correct: Bool[np.ndarray, "trials test"],
    rule: str,
    level: float,
    typical_threshold: float,
    atypical_threshold: float,
) -> None:
    check_trials(mask, test_correct=test_correct)
    if mem.shape != mask.shape[1:]:
        raise ValueError(f"mem must have one value per training sample, {mask.shape[1:]}, got {mem.shape}")
    if rule not in get_args(Rule):
        raise ValueError(f"rule must be one of {list(get_args(Rule))}, got {rule!r}")
    if not 0 < level <= 0.5:
        raise ValueError(f"level must be in (0, 0.5], got {level}")
    if typical_threshold > atypical_threshold:
        raise ValueError(
            f"typical_threshold must not exceed atypical_threshold {atypical_threshold}, got {typical_threshold}"
        )
