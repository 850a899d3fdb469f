"""How far the trials agree on which samples are memorized: the reliability of mem, by split halves.

Half of the trials give one estimate of every sample's memorization, the others another. Their correlation is the
reliability of half as many trials, from which that of all follows (Spearman 1910, Brown 1910). It is the share of the
variance of mem between samples that another set of trials would find again; the rest is noise.
"""

import math

import numpy as np
from jaxtyping import Bool, Float

from bat_dist.memorization.columns import TrialColumns, tiles_of
from bat_dist.memorization.estimate import check_trials
from bat_dist.wording import counted

NUM_SPLITS = 20
ENOUGH = 0.8  # the usual demand on a measurement by which individuals are compared
_SPLIT_VALUES = 2**23  # samples of as many splits as are compared in one pass over the trials


def split_half_reliability(
    mask: Bool[np.ndarray, "trials train"] | TrialColumns,
    train_correct: Bool[np.ndarray, "trials train"] | TrialColumns,
    *,
    num_splits: int = NUM_SPLITS,
) -> float:
    """Reliability of the memorization estimated from all these trials (Eq. 1), over random halves of them.

    The correlation of the halves is averaged over `num_splits` splits, always the same ones, before Spearman and
    Brown's formula. Samples that are undefined in a half are left out of that split. NaN for fewer than four trials,
    and where nothing differs between samples.
    """
    check_trials(mask, train_correct=train_correct)
    if len(mask) < 4:
        return math.nan
    first = first_halves(len(mask), num_splits)
    correlations = []
    at_once = max(1, _SPLIT_VALUES // mask.shape[1])
    for start in range(0, num_splits, at_once):
        halves = first[start : start + at_once]
        mem = mem_by_group(mask, train_correct, np.concatenate([halves, ~halves]))
        for one, other in zip(mem[: len(halves)], mem[len(halves) :], strict=True):
            both = ~(np.isnan(one) | np.isnan(other))
            one, other = one[both].astype(float), other[both].astype(float)
            differ = len(one) >= 2 and one.std() and other.std()
            correlations.append(np.corrcoef(one, other)[0, 1] if differ else math.nan)
    half = float(np.mean(correlations))
    return 2 * half / (1 + half)


def reliability_in_words(reliability: float, num_trials: int) -> str:
    """The first thing to know of scores: how far another set of trials would agree."""
    trials = counted(num_trials, "trial")
    if math.isnan(reliability):
        return f"unknown with {trials}"
    return f"{reliability:.2f} of 1 (halves of {trials} compared, Spearman-Brown)"


def trials_for(reliability: float, num_trials: int, wanted: float = ENOUGH) -> int | None:
    """How many trials would be as reliable as wanted, by Spearman and Brown's formula; None where it says nothing."""
    if not 0 < reliability < 1:
        return None
    return math.ceil(num_trials * wanted * (1 - reliability) / (reliability * (1 - wanted)))


def first_halves(num_trials: int, num_splits: int) -> Bool[np.ndarray, "splits trials"]:
    """Which trials are in the first half, for each split."""
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(num_trials), (num_splits, 1)), axis=1)
    return order < num_trials // 2


def mem_by_group(
    mask: Bool[np.ndarray, "trials train"] | TrialColumns,
    train_correct: Bool[np.ndarray, "trials train"] | TrialColumns,
    groups: Bool[np.ndarray, "groups trials"],
) -> Float[np.ndarray, "groups train"]:
    """Memorization estimated from each group of trials alone (Eq. 1); NaN where it is undefined.

    As products of matrices, a block of samples at a time; counts are exact in float32.
    """
    weights = groups.astype(np.float32)
    sizes = weights.sum(axis=1, keepdims=True)
    mem = np.empty((len(groups), mask.shape[1]), np.float32)
    for tile in tiles_of(mask):
        inside, correct = (array[:, tile].astype(np.float32) for array in (mask, train_correct))
        n_in, correct_in = weights @ inside, weights @ (inside * correct)
        n_out, correct_out = sizes - n_in, weights @ correct - correct_in
        with np.errstate(invalid="ignore"):
            mem[:, tile] = correct_in / n_in - correct_out / n_out
    return mem
