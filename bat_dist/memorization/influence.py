"""What is kept of the influence of every training sample on every test sample (Eq. 2): of all pairs together there
would be too many.

The pairs above a threshold, the largest of each test sample, and the extremes on which typical sets rest. Blocks come
from `influence_blocks`; whatever is kept does not depend on their sizes and their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from bat_dist.memorization.estimate import check_trials
from bat_dist.memorization.influence_blocks import (
    BLOCK_BYTES,
    Correct,
    Index,
    InfluenceBlock,
    Labels,
    Mask,
    influence_blocks,
)
from bat_dist.memorization.proportions import newcombe_interval, wald_se

_PENDING_PAIRS = 2**16
_BLOCK_PAIRS = 2**13


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

    def with_top(self, top: "TopInfluence") -> "InfluencePairs":
        """These, and those of the largest influence on each test sample, each once; `num_found` stays."""
        test_index, rank = np.nonzero(top.train_index >= 0)
        more = (top.train_index[test_index, rank], test_index, top.influence[test_index, rank])
        columns = (self.train_index, self.test_index, self.influence, self.influence_se)
        both = [np.concatenate(two) for two in zip(columns, (*more, top.influence_se[test_index, rank]), strict=True)]
        _, first = np.unique(np.stack(both[:2]), axis=1, return_index=True)  # in the order of pairs: ties keep it
        order = first[np.argsort(-both[2][first], kind="stable")]
        return InfluencePairs(*(column[order] for column in both), num_found=self.num_found)


@dataclass(frozen=True)
class TopInfluence:
    """The training samples of the largest influence on each test sample, largest first (ties: by train index).

    Where fewer were compared with it than are kept, `train_index` is -1 and the others are NaN. `influence_se` is the
    plug-in standard error.
    """

    train_index: Int[np.ndarray, "test top"]
    influence: Float[np.ndarray, "test top"]
    influence_se: Float[np.ndarray, "test top"]


@dataclass(frozen=True)
class MaxInfluence:
    """The largest influence on each test sample, of the training samples compared with it; NaN where there was none.

    `excess_z[t]` is the largest (influence - thresholds[t]) / se, with the smoothed standard error.
    """

    influence: Float[np.ndarray, " test"]
    excess_z: Float[np.ndarray, "thresholds test"]


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
    kept = PairsAbove(threshold, max_pairs)
    for block in influence_blocks(
        mask,
        test_correct,
        train_labels,
        test_labels,
        same_class=same_class,
        train_subset=train_subset,
        block_bytes=block_bytes,
    ):
        kept.add(block)
    return kept.found()


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


class PairsAbove:
    """Gathers the pairs above a threshold, of which at most `max_pairs` are kept, block by block."""

    def __init__(self, threshold: float, max_pairs: int | None = None):
        if max_pairs is not None and max_pairs < 1:
            raise ValueError(f"max_pairs must be at least 1 or None, got {max_pairs}")
        self.threshold, self.max_pairs = threshold, max_pairs
        self._num_found, self._num_pending, self._floor = 0, 0, threshold
        self._pending = [[np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0)]]

    def add(self, block: InfluenceBlock) -> None:
        """Take the pairs of a block that may stay."""
        row, column = block.candidates(self.threshold)
        influence = block.influence_of(row, column)
        above = influence > self.threshold
        kept = above & (influence >= self._floor)
        self.add_pairs(_pairs(block, influence[kept], row[kept], column[kept], int(above.sum())))

    def add_pairs(self, pairs: InfluencePairs) -> None:
        """Take pairs that are above the threshold, as `found` of another part gives them."""
        self._num_found += pairs.num_found
        self._num_pending += len(pairs.influence)
        self._pending.append([pairs.train_index, pairs.test_index, pairs.influence, pairs.influence_se])
        if self.max_pairs is not None and self._num_pending > 2 * self.max_pairs + _PENDING_PAIRS:
            self._pending = [_largest(self._pending, self.max_pairs)]
            self._num_pending, self._floor = self.max_pairs, self._pending[0][2][-1]

    def found(self) -> InfluencePairs:
        """The pairs, largest influence first."""
        return InfluencePairs(*_largest(self._pending, self.max_pairs), num_found=self._num_found)


class TopOfEach:
    """Gathers the `top` largest influences on each of `num_test` test samples, block by block."""

    def __init__(self, top: int, num_test: int):
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        shape = (num_test, top)
        self._top = TopInfluence(np.full(shape, -1), np.full(shape, -np.inf), np.full(shape, np.nan))
        self._num_pending = 0
        self._pending: list[InfluencePairs] = []

    def add(self, block: InfluenceBlock) -> None:
        """Take the pairs of a block that may stay."""
        least = self._top.influence[block.test_index, -1]
        row, column = block.candidates(least)
        influence = block.influence_of(row, column)
        kept = influence >= least[column]
        pairs = _pairs(block, influence[kept], row[kept], column[kept], int(kept.sum()))
        self._add_pairs(pairs, len(block.test_index))

    def add_top(self, found: TopInfluence, test_index: Index) -> None:
        """Take what `found` of other training samples gives for these test samples."""
        row, column = np.nonzero(found.train_index >= 0)
        columns = found.train_index[row, column], test_index[row], found.influence[row, column]
        pairs = InfluencePairs(*columns, found.influence_se[row, column], num_found=len(row))
        self._add_pairs(pairs, len(test_index))

    def found(self) -> TopInfluence:
        """The largest influences of each test sample."""
        self._reduce()
        return replace(self._top, influence=np.where(self._top.train_index < 0, np.nan, self._top.influence))

    def _add_pairs(self, pairs: InfluencePairs, num_test: int) -> None:
        self._num_pending += len(pairs.influence)
        self._pending.append(pairs)
        if self._num_pending > 2 * num_test * self._top.influence.shape[1] + _PENDING_PAIRS:
            self._reduce()

    def _reduce(self) -> None:
        """Keep the largest of each test sample."""
        tests = np.unique(np.concatenate([np.empty(0, np.int64), *(pairs.test_index for pairs in self._pending)]))
        row, column = np.nonzero(self._top.train_index[tests] >= 0)
        before = [array[tests[row], column] for array in vars(self._top).values()]
        columns = [[pairs.train_index, pairs.influence, pairs.influence_se] for pairs in self._pending]
        train_index, influence, se = (np.concatenate(parts) for parts in zip(before, *columns, strict=True))
        test = np.concatenate([row, *(np.searchsorted(tests, pairs.test_index) for pairs in self._pending)])
        order = np.lexsort((train_index, -influence, test))
        rank = np.arange(len(order)) - np.searchsorted(test[order], np.arange(len(tests)))[test[order]]
        order, rank = order[rank < self._top.influence.shape[1]], rank[rank < self._top.influence.shape[1]]
        place = tests[test[order]], rank
        self._top.train_index[place] = train_index[order]
        self._top.influence[place], self._top.influence_se[place] = influence[order], se[order]
        self._pending, self._num_pending = [], 0


def _pairs(
    block: InfluenceBlock, influence: Float[np.ndarray, " pairs"], row: Index, column: Index, num_found: int
) -> InfluencePairs:
    """The pairs in these rows and columns of a block, of this influence, with their standard errors."""
    inside, n_in, n_out = block.in_counts[row, column].astype(np.float64), block.n_in[row, 0], block.n_out[row, 0]
    se = wald_se(inside, n_in, block.correct[column] - inside, n_out)
    return InfluencePairs(block.train_index[row], block.test_index[column], influence, se, num_found=num_found)


def _largest(pending: list[list[np.ndarray]], max_pairs: int | None) -> list[np.ndarray]:
    columns = [np.concatenate(parts) for parts in zip(*pending, strict=True)]
    train_index, test_index, influence, _ = columns
    order = np.lexsort((test_index, train_index, -influence))[:max_pairs]
    return [column[order] for column in columns]
