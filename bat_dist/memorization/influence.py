"""Influence of every training sample on every test sample (Eq. 2), by blocks of bounded memory.

    infl(i, j) = mean correctness of j over the trials with i in - mean over the trials with i out

One matrix product gives the in-sums of a block, out-sum = total - in-sum. Sums are whole numbers below
2^24, so the float32 product is exact and no result depends on the block size. Everything after it is
float64, in strips that fit the processor's cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from jaxtyping import Bool, Float, Int

from bat_dist.memorization.estimate import check_trials
from bat_dist.memorization.proportions import agresti_caffo_se, difference, newcombe_interval, wald_se

BLOCK_BYTES = 128 * 2**20
_STRIP_PAIRS = 2**15  # 256 KiB of float64
_PENDING_PAIRS = 2**16
_BLOCK_PAIRS = 2**13

Mask = Bool[np.ndarray, "trials train"]
Correct = Bool[np.ndarray, "trials test"]
Labels = Int[np.ndarray, " samples"]
Index = Int[np.ndarray, " samples"]


@dataclass(frozen=True)
class InfluenceBlock:
    """Trial counts of some training samples (rows) against some test samples (columns)."""

    train_index: Index
    test_index: Index
    correct_in: Float[np.ndarray, "train test"]
    n_in: Float[np.ndarray, "train 1"]
    correct_out: Float[np.ndarray, "train test"]
    n_out: Float[np.ndarray, "train 1"]

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


@dataclass(frozen=True)
class InfluencePairs:
    """Pairs over a threshold, largest influence first (ties: by train, then by test index).

    `influence_se` is the plug-in standard error. `num_found` counts all pairs over the threshold, also
    those that `max_pairs` cut off.
    """

    train_index: Index
    test_index: Index
    influence: Float[np.ndarray, " pairs"]
    influence_se: Float[np.ndarray, " pairs"]
    num_found: int

    def of(self, chosen: Bool[np.ndarray, " train"]) -> "InfluencePairs":
        """The pairs that are here of these training samples."""
        kept = np.flatnonzero(chosen[self.train_index])
        return replace(self.take(kept), num_found=len(kept))

    def take(self, positions: Index) -> "InfluencePairs":
        """The pairs at these positions, in this order; `num_found` stays."""
        columns = (self.train_index, self.test_index, self.influence, self.influence_se)
        return InfluencePairs(*(column[positions] for column in columns), num_found=self.num_found)


@dataclass(frozen=True)
class MaxInfluence:
    """The largest influence on each test sample, of the training samples compared with it; NaN where there was none.

    `excess_z[t]` is the largest (influence - thresholds[t]) / se, with the smoothed standard error.
    """

    influence: Float[np.ndarray, " test"]
    excess_z: Float[np.ndarray, "thresholds test"]


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
    (indices or a bool per training sample) restricts the rows. Memory beside the inputs and some vectors
    stays below `block_bytes`, or what a handful of samples needs if that is more.
    """
    check_trials(mask, test_correct=test_correct)
    if len(mask) >= 2**24:
        raise ValueError(f"{len(mask)} trials are too many for exact float32 sums: take fewer than {2**24}")
    n_in, total = np.count_nonzero(mask, axis=0).astype(np.float64), np.count_nonzero(test_correct, axis=0)
    n_out = len(mask) - n_in
    rows = np.flatnonzero(_as_mask(train_subset, len(n_in)) & (n_in > 0) & (n_out > 0))
    groups = [(rows, np.arange(len(total)))]  # train_index and test_index of sets within which every pair counts
    if same_class:
        if train_labels is None or test_labels is None:
            raise ValueError("same_class=True needs train_labels and test_labels, or give same_class=False")
        check_labels(mask, test_correct, train_labels, test_labels)
        of_rows = train_labels[rows]
        groups = [(rows[of_rows == label], np.flatnonzero(test_labels == label)) for label in np.unique(of_rows)]
    for train_index, test_index in groups:
        for train_tile, test_tile, counts in _tiles(mask, test_correct, train_index, test_index, block_bytes):
            height = max(1, _STRIP_PAIRS // len(test_tile))
            for start in range(0, len(train_tile), height):
                strip = train_tile[start : start + height]
                correct_in = counts[start : start + height].astype(np.float64)
                correct_out = total[test_tile] - correct_in
                yield InfluenceBlock(strip, test_tile, correct_in, n_in[strip, None], correct_out, n_out[strip, None])
            del counts  # or it would stay while the next product is made


def influential_pairs(
    mask: Mask,
    test_correct: Correct,
    train_labels: Labels | None = None,
    test_labels: Labels | None = None,
    *,
    threshold: float,
    same_class: bool = True,
    max_pairs: int | None = None,
    train_subset: Index | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> InfluencePairs:
    """All pairs with influence > threshold, or the `max_pairs` largest of them.

    Memory grows by 32 bytes per pair kept; with `max_pairs` it is bounded.
    """
    if max_pairs is not None and max_pairs < 1:
        raise ValueError(f"max_pairs must be at least 1 or None, got {max_pairs}")
    num_found, num_pending, floor = 0, 0, threshold
    pending = [[np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0)]]  # columns of InfluencePairs
    for block in influence_blocks(
        mask,
        test_correct,
        train_labels,
        test_labels,
        same_class=same_class,
        train_subset=train_subset,
        block_bytes=block_bytes,
    ):
        influence = block.influence
        row, column = np.nonzero(influence > threshold)
        num_found += len(row)
        keep = influence[row, column] >= floor
        row, column = row[keep], column[keep]
        n_in, n_out = block.n_in[row, 0], block.n_out[row, 0]
        se = wald_se(block.correct_in[row, column], n_in, block.correct_out[row, column], n_out)
        pending.append([block.train_index[row], block.test_index[column], influence[row, column], se])
        num_pending += len(row)
        if max_pairs is not None and num_pending > 2 * max_pairs + _PENDING_PAIRS:
            pending, num_pending = [_largest(pending, max_pairs)], max_pairs
            floor = pending[0][2][-1]
    return InfluencePairs(*_largest(pending, max_pairs), num_found=num_found)


def influence_intervals(
    mask: Mask, test_correct: Correct, train_index: Index, test_index: Index, *, level: float = 0.95
) -> tuple[Float[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """Newcombe's interval (lower, upper) of the influence of each pair (train_index[p], test_index[p]).

    Memory beside the inputs grows by 32 bytes per pair, and by two bytes per trial of a block of pairs.
    """
    check_trials(mask, test_correct=test_correct)
    bounds = [np.empty((2, 0))]
    for start in range(0, len(train_index), _BLOCK_PAIRS):
        inside = mask[:, train_index[start : start + _BLOCK_PAIRS]]
        correct = test_correct[:, test_index[start : start + _BLOCK_PAIRS]]
        n_in, correct_in = np.count_nonzero(inside, axis=0), np.count_nonzero(inside & correct, axis=0)
        correct_out = np.count_nonzero(correct, axis=0) - correct_in
        bounds.append(np.array(newcombe_interval(correct_in, n_in, correct_out, len(mask) - n_in, level)))
    low, high = np.concatenate(bounds, axis=1)
    return low, high


def max_influence(
    mask: Mask,
    test_correct: Correct,
    train_labels: Labels | None = None,
    test_labels: Labels | None = None,
    *,
    thresholds: Sequence[float] = (),
    same_class: bool = True,
    train_subset: Index | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> MaxInfluence:
    """Largest influence on, and most significant excess over each threshold for, every test sample."""
    best = np.full((1 + len(thresholds), test_correct.shape[1]), np.nan)
    for block in influence_blocks(
        mask,
        test_correct,
        train_labels,
        test_labels,
        same_class=same_class,
        train_subset=train_subset,
        block_bytes=block_bytes,
    ):
        scores = [block.influence]
        if thresholds:
            se = block.smoothed_se
            scores += [(scores[0] - threshold) / se for threshold in thresholds]
        for row, score in zip(best, scores, strict=True):
            row[block.test_index] = np.fmax(row[block.test_index], score.max(axis=0))
    return MaxInfluence(best[0], best[1:])


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


def _tiles(
    mask: Mask, test_correct: Correct, train_index: Index, test_index: Index, block_bytes: int
) -> Iterator[tuple[Index, Index, Float[np.ndarray, "train test"]]]:
    """(train_tile, test_tile, in-sums) of one group; bool and float32 inputs and float32 product fit `block_bytes`."""
    budget = block_bytes - 16 * 8 * _STRIP_PAIRS  # some strips of float64
    inputs = 5 * len(mask)
    side = (isqrt(4 * inputs**2 + 16 * max(budget, 0)) - 2 * inputs) // 8  # 4 side^2 + 2 inputs side = budget
    columns = max(1, min(len(test_index), side))
    rows = max(1, (budget - inputs * columns) // (inputs + 4 * columns))
    for start_test in range(0, len(test_index), columns):
        test_tile = test_index[start_test : start_test + columns]
        answers = test_correct[:, test_tile].astype(np.float32)
        for start_train in range(0, len(train_index), rows):
            train_tile = train_index[start_train : start_train + rows]
            yield train_tile, test_tile, mask[:, train_tile].astype(np.float32).T @ answers
        del answers


def _largest(pending: list[list[np.ndarray]], max_pairs: int | None) -> list[np.ndarray]:
    columns = [np.concatenate(parts) for parts in zip(*pending, strict=True)]
    train_index, test_index, influence, _ = columns
    order = np.lexsort((test_index, train_index, -influence))[:max_pairs]
    return [column[order] for column in columns]
