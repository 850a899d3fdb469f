"""Trial counts of every pair of a training and a test sample, by blocks of bounded memory (Eq. 2).

    infl(i, j) = mean correctness of j over the trials with i in - mean over the trials with i out

One matrix product gives the in-sums of a block, out-sum = total - in-sum. The product is exact, so that no result
depends on the block size, nor on whether the trials are in memory or are read from a file (`columns`). Everything after
it is float64, in strips that fit the processor's cache; where few pairs are wanted, for these alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
from jaxtyping import Bool, Float, Int

from bat_dist.memorization.bit_products import MAX_TRIALS, Counts, count_both
from bat_dist.memorization.columns import TrialColumns, count_by_sample, order_of
from bat_dist.memorization.estimate import check_trials
from bat_dist.memorization.proportions import agresti_caffo_se, difference, wald_se

BLOCK_BYTES = 128 * 2**20
_STRIP_PAIRS = 2**16  # 256 KiB of counts, 512 KiB of float64

Mask = Bool[np.ndarray, "trials train"] | TrialColumns
Correct = Bool[np.ndarray, "trials test"] | TrialColumns
Labels = Int[np.ndarray, " samples"]
Index = Int[np.ndarray, " samples"]


@dataclass(frozen=True)
class InfluenceBlock:
    """Trial counts of some training samples (rows) against some test samples (columns).

    in_counts: in how many trials the training sample was in and the test sample correct.
    correct: in how many trials the test sample was correct.
    n_in, n_out: how many trials the training sample was in, and was not in.
    """

    train_index: Index
    test_index: Index
    in_counts: Counts
    correct: Float[np.ndarray, " test"]
    n_in: Float[np.ndarray, "train 1"]
    n_out: Float[np.ndarray, "train 1"]

    @cached_property
    def correct_in(self) -> Float[np.ndarray, "train test"]:
        """`in_counts` as float64."""
        return self.in_counts.astype(np.float64)

    @cached_property
    def correct_out(self) -> Float[np.ndarray, "train test"]:
        """In how many trials the training sample was out and the test sample correct."""
        return self.correct - self.correct_in

    @property
    def influence(self) -> Float[np.ndarray, "train test"]:
        """The influence (Eq. 2); NaN in the rows of training samples that were never in or never out."""
        return difference(self.correct_in, self.n_in, self.correct_out, self.n_out)

    @property
    def influence_se(self) -> Float[np.ndarray, "train test"]:
        """Plug-in standard error, 0 where both accuracies are 0 or 1."""
        return wald_se(self.correct_in, self.n_in, self.correct_out, self.n_out)

    @property
    def smoothed_se(self) -> Float[np.ndarray, "train test"]:
        """Agresti and Caffo's standard error, never 0: the one to test with."""
        return agresti_caffo_se(self.correct_in, self.n_in, self.correct_out, self.n_out)

    def candidates(self, least: float | Float[np.ndarray, " test"]) -> tuple[Index, Index]:
        """Rows and columns of all pairs whose influence is at least that much, among a few others.

        infl >= least says in_counts >= (correct + least n_out) n_in / (n_in + n_out): one comparison for a pair, where
        the influence takes several operations. The bound is float32, with its rounding taken off.
        """
        n_in, n_out = (self.n_in, self.n_out) if np.ptp(self.n_in) else (self.n_in[:1], self.n_out[:1])
        trials = n_in[0, 0] + n_out[0, 0]
        bound = (n_in / trials).astype(np.float32) * self.correct.astype(np.float32)
        bound += (n_out * n_in / trials).astype(np.float32) * np.asarray(least, np.float32)
        bound -= np.float32(trials / 2**20)
        found = np.flatnonzero(self.in_counts >= bound.clip(min=0).astype(self.in_counts.dtype))
        return np.divmod(found, len(self.test_index))

    def influence_of(self, row: Index, column: Index) -> Float[np.ndarray, " pairs"]:
        """The influence of the pairs in these rows and columns."""
        inside = self.in_counts[row, column].astype(np.float64)
        return difference(inside, self.n_in[row, 0], self.correct[column] - inside, self.n_out[row, 0])


def influence_matrix(
    mask: Mask, test_correct: Correct, *, block_bytes: int = BLOCK_BYTES
) -> Float[np.ndarray, "train test"]:
    """The whole float64 matrix of Eq. 2, for problems where it fits; undefined rows are NaN."""
    matrix = np.full((mask.shape[1], test_correct.shape[1]), np.nan)
    for block in influence_blocks(mask, test_correct, same_class=False, block_bytes=block_bytes):
        matrix[np.ix_(block.train_index, block.test_index)] = block.influence
    return matrix


def influence_blocks(
    mask: Mask,
    test_correct: Correct,
    train_labels: Labels | None = None,
    test_labels: Labels | None = None,
    *,
    same_class: bool = True,
    train_subset: Index | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[InfluenceBlock]:
    """Every pair exactly once, in small blocks; `same_class` leaves out pairs of different labels.

    Training samples that were never in or never out have no influence and do not appear. `train_subset`
    (indices or a bool per training sample) restricts the rows. Memory beside inputs that are arrays and some vectors
    stays below `block_bytes`, or what a handful of samples needs if that is more.
    """
    check_trials(mask, test_correct=test_correct)
    if len(mask) >= MAX_TRIALS:
        raise ValueError(f"{len(mask)} trials are too many for exact float32 sums: take fewer than {MAX_TRIALS}")
    n_in, total = (count_by_sample(matrix).astype(np.float64) for matrix in (mask, test_correct))
    n_out = len(mask) - n_in
    rows = order_of(mask)
    rows = rows[(_as_mask(train_subset, len(n_in)) & (n_in > 0) & (n_out > 0))[rows]]
    groups = [(rows, order_of(test_correct))]  # train_index and test_index of sets within which every pair counts
    if same_class:
        if train_labels is None or test_labels is None:
            raise ValueError("same_class=True needs train_labels and test_labels, or give same_class=False")
        check_labels(mask, test_correct, train_labels, test_labels)
        of_rows = train_labels[rows]
        groups = [(rows[of_rows == label], np.flatnonzero(test_labels == label)) for label in np.unique(of_rows)]
    work = len(mask) * sum(len(train_index) * len(test_index) for train_index, test_index in groups)
    for train_index, test_index in groups:
        for train_tile, test_tile, counts in _tiles(mask, test_correct, train_index, test_index, work, block_bytes):
            height = max(1, _strip_pairs(block_bytes) // len(test_tile))
            for start in range(0, len(train_tile), height):
                strip = train_tile[start : start + height]
                in_counts = counts[start : start + height].copy()  # a view would keep the product
                yield InfluenceBlock(
                    strip, test_tile, in_counts, total[test_tile], n_in[strip, None], n_out[strip, None]
                )
            del counts  # or it would stay while the next product is made


def check_labels(mask: Mask, test_correct: Correct, train_labels: Labels, test_labels: Labels) -> None:
    """ValueError unless there is one label per training and one per test sample."""
    for name, labels, of in (("train", train_labels, mask), ("test", test_labels, test_correct)):
        if np.shape(labels) != of.shape[1:]:
            raise ValueError(f"{name}_labels must have shape {of.shape[1:]}, got {np.shape(labels)}")


def _as_mask(train_subset: Index | None, num_train: int) -> Bool[np.ndarray, " train"]:
    if train_subset is None:
        return np.ones(num_train, dtype=bool)
    subset = np.asarray(train_subset)
    if subset.dtype == bool:
        if subset.shape != (num_train,):
            raise ValueError(f"train_subset as bool must have shape ({num_train},), got {subset.shape}")
        return subset
    if subset.size and not 0 <= subset.min() <= subset.max() < num_train:
        raise ValueError(f"train_subset must hold indices below {num_train}, got {subset.min()} to {subset.max()}")
    wanted = np.zeros(num_train, dtype=bool)
    wanted[subset.astype(np.intp)] = True
    return wanted


def _strip_pairs(block_bytes: int) -> int:
    """So few that sixteen float64 of each take half of the memory at most."""
    return min(_STRIP_PAIRS, block_bytes // 256)


def _tiles(
    mask: Mask, test_correct: Correct, train_index: Index, test_index: Index, work: int, block_bytes: int
) -> Iterator[tuple[Index, Index, Counts]]:
    """(train_tile, test_tile, in-sums) of one group; bool and float32 inputs and the product fit `block_bytes`."""
    budget = block_bytes - 16 * 8 * _strip_pairs(block_bytes)  # some strips of float64
    inputs = 5 * len(mask) + len(mask) // 4  # bits that are read from a file
    side = (isqrt(4 * inputs**2 + 16 * max(budget, 0)) - 2 * inputs) // 8  # 4 side^2 + 2 inputs side = budget
    columns = max(1, min(len(test_index), side))
    rows = max(1, (budget - inputs * columns) // (inputs + 4 * columns))
    for start_test in range(0, len(test_index), columns):
        test_tile = test_index[start_test : start_test + columns]
        answers = test_correct[:, test_tile]
        for start_train in range(0, len(train_index), rows):
            train_tile = train_index[start_train : start_train + rows]
            yield train_tile, test_tile, count_both(mask[:, train_tile], answers, work=work)
        del answers
