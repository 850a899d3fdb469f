"""Memorization of every training sample, from the correctness of leave-out trials (Eq. 1)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt16

from bat_dist.memorization.columns import BLOCK_VALUES, TrialColumns, count_by_sample, tiles_of
from bat_dist.memorization.proportions import newcombe_interval, proportion, wald_se


@dataclass(frozen=True)
class Memorization:
    """Memorization by training sample. Undefined (a side with zero trials) is NaN.

    `mem_se` is the plug-in (Wald) standard error, 0 where both accuracies are 0 or 1: for statements
    about such samples, or about few trials, take `interval`.
    """

    mem: Float[np.ndarray, " train"]
    mem_se: Float[np.ndarray, " train"]
    n_in: Int[np.ndarray, " train"]
    n_out: Int[np.ndarray, " train"]
    accuracy_in: Float[np.ndarray, " train"]
    accuracy_out: Float[np.ndarray, " train"]

    @property
    def num_undefined(self) -> int:
        """Samples that were never in, or never out."""
        return int(np.isnan(self.mem).sum())

    def interval(self, level: float = 0.95) -> tuple[Float[np.ndarray, " train"], Float[np.ndarray, " train"]]:
        """Newcombe's hybrid score interval (lower, upper) at confidence `level`."""
        correct_in, correct_out = self._correct()
        return newcombe_interval(correct_in, self.n_in, correct_out, self.n_out, level)

    def posterior(self, threshold: float) -> tuple[Float[np.ndarray, " train"], Float[np.ndarray, " train"]]:
        """Posterior mean of mem, and posterior probability of mem > threshold, with a prior from all samples.

        Empirical Bayes, see `mixture`: of smaller error than `mem` where trials are few, at the price of a bias towards
        what is frequent.  NaN where mem is undefined.
        """
        from bat_dist.memorization.mixture import posterior_of_counts  # here: it needs scipy

        correct_in, correct_out = (np.nan_to_num(count).astype(np.int64) for count in self._correct())
        mean, above = posterior_of_counts(correct_in, self.n_in, correct_out, self.n_out, threshold)
        undefined = np.isnan(self.mem)
        return np.where(undefined, np.nan, mean), np.where(undefined, np.nan, above)

    def _correct(self) -> tuple[Float[np.ndarray, " train"], Float[np.ndarray, " train"]]:
        """In how many of the trials with the sample networks are right on it, and in how many of those without it."""
        return np.rint(self.accuracy_in * self.n_in), np.rint(self.accuracy_out * self.n_out)


def estimate_memorization(
    mask: Bool[np.ndarray, "trials train"] | TrialColumns,
    train_correct: Bool[np.ndarray, "trials train"] | TrialColumns,
) -> Memorization:
    """mem(i) = mean correctness of i over the trials with i in, minus that over the trials with i out (Eq. 1).

    Counts are exact; nothing is clipped (negative values occur).
    """
    check_trials(mask, train_correct=train_correct)
    if mask.shape != train_correct.shape:
        raise ValueError(f"train_correct must have the mask's shape {mask.shape}, got {train_correct.shape}")
    n_in = count_by_sample(mask)
    n_out = len(mask) - n_in
    correct_in = np.empty_like(n_in)
    for tile in tiles_of(mask):
        correct_in[tile] = np.count_nonzero(mask[:, tile] & train_correct[:, tile], axis=0)
    correct_out = count_by_sample(train_correct) - correct_in
    accuracy_in, accuracy_out = proportion(correct_in, n_in), proportion(correct_out, n_out)
    se = wald_se(correct_in, n_in, correct_out, n_out)
    return Memorization(accuracy_in - accuracy_out, se, n_in, n_out, accuracy_in, accuracy_out)


def predicted_left_out(
    mask: Bool[np.ndarray, "trials train"] | TrialColumns,
    train_predicted: UInt16[np.ndarray, "trials train"] | TrialColumns,
    num_classes: int,
) -> tuple[Int[np.ndarray, " train"], Float[np.ndarray, " train"]]:
    """What networks that were not trained on a sample take it for: the most frequent class, and its share of them.

    -1 and NaN for a sample that was never left out. A prediction of `num_classes` or more is none, and only lowers the
    share. Of two equally frequent classes the first is given.
    """
    n_out = len(mask) - count_by_sample(mask)
    frequent, times = np.empty((2, mask.shape[1]), np.int64)
    for tile in tiles_of(mask, BLOCK_VALUES * len(mask) // max(len(mask), num_classes)):
        kept, predicted = mask[:, tile], train_predicted[:, tile]
        said, sample = np.nonzero(~kept & (predicted < num_classes))
        size = kept.shape[1] * num_classes
        counts = np.bincount(sample * num_classes + predicted[said, sample], minlength=size)
        counts = counts.reshape(-1, num_classes)
        frequent[tile], times[tile] = counts.argmax(axis=1), counts.max(axis=1)
    return np.where(n_out > 0, frequent, -1), proportion(times, n_out)


def check_trials(
    mask: Bool[np.ndarray, "trials train"] | TrialColumns, **others: Bool[np.ndarray, "trials samples"] | TrialColumns
) -> None:
    """ValueError unless all are bool [trials, samples] with one number of trials, at least one."""
    for name, array in {"mask": mask, **others}.items():
        if array.ndim != 2 or array.dtype != bool:
            raise ValueError(f"{name} must be bool [trials, samples], got {array.dtype} of shape {array.shape}")
        if len(array) != len(mask):
            raise ValueError(f"{name} has {len(array)} trials and mask {len(mask)}: give the same trials to both")
    if len(mask) == 0:
        raise ValueError("mask has no trials: run at least one first")
