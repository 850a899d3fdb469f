"""All that is kept of the influences at once, and a large problem of them in parts.

A part is some training samples against some test samples. It is computed from the columns of these samples alone, in
any process and in any order, and what it leaves is small. `Gathered` puts parts together to what one pass over all
pairs gives, to the last bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from bat_dist.memorization.influence import (
    InfluencePairs,
    MaxInfluence,
    PairsAbove,
    TopInfluence,
    TopOfEach,
    max_influence,
)
from bat_dist.memorization.influence_blocks import BLOCK_BYTES, Correct, Index, Labels, Mask, influence_blocks

PART_WORK = 2**37  # trials x pairs of a part: some ten seconds of a processor core
PART_BYTES = 2**26  # of the trials of a part's samples, a byte each


@dataclass(frozen=True)
class Wanted:
    """What is kept.

    threshold, same_class, max_pairs: of the pairs, as for `influential_pairs`.
    top: how many training samples for each test sample, of the same pairs; None for no such list.
    tested, within_class: the thresholds of `max_influence`, and whether it looks at pairs of one class alone.
    """

    threshold: float
    same_class: bool
    max_pairs: int
    top: int | None
    tested: tuple[float, ...]
    within_class: bool

    @property
    def only_same_class(self) -> bool:
        """Whether no pair of two classes is looked at."""
        return self.same_class and self.within_class


@dataclass(frozen=True)
class Influences:
    """What is kept of the influences: see `Wanted`."""

    pairs: InfluencePairs
    top: TopInfluence | None
    largest: MaxInfluence

    def arrays(self) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        """All of it as arrays by name, for a file."""
        top = {} if self.top is None else {f"top_{name}": value for name, value in vars(self.top).items()}
        pairs = {name: np.asarray(value) for name, value in vars(self.pairs).items()}
        return {**pairs, **top, **{f"largest_{name}": value for name, value in vars(self.largest).items()}}

    @classmethod
    def of(cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> "Influences":
        """From the arrays of a file.  Raises KeyError if one is missing."""
        names = ("train_index", "influence", "influence_se")
        return cls(
            InfluencePairs(
                *(arrays[name] for name in ("train_index", "test_index", "influence", "influence_se")),
                num_found=int(arrays["num_found"]),
            ),
            TopInfluence(*(arrays[f"top_{name}"] for name in names)) if "top_influence" in arrays else None,
            MaxInfluence(arrays["largest_influence"], arrays["largest_excess_z"]),
        )


def find_influences(
    wanted: Wanted,
    mask: Mask,
    test_correct: Correct,
    train_labels: Labels,
    test_labels: Labels,
    atypical: Bool[np.ndarray, " train"],
    *,
    block_bytes: int = BLOCK_BYTES,
) -> Influences:
    """What is wanted of these samples.

    atypical: the training samples that typical sets of test samples are about; the largest influence is that of these.
    """
    samples = (mask, test_correct, train_labels, test_labels)
    pairs = PairsAbove(wanted.threshold, wanted.max_pairs)
    top = None if wanted.top is None else TopOfEach(wanted.top, test_correct.shape[1])
    for block in influence_blocks(*samples, same_class=wanted.same_class, block_bytes=block_bytes):
        pairs.add(block)
        if top:
            top.add(block)
    largest = max_influence(
        *samples,
        thresholds=wanted.tested,
        same_class=wanted.within_class,
        train_subset=atypical,
        block_bytes=block_bytes,
    )
    return Influences(pairs.found(), top.found() if top else None, largest)


class InfluencePart(NamedTuple):
    """Some training and some test samples: from a place to before another in the order of `by_class`."""

    train: tuple[int, int]
    test: tuple[int, int]


def by_class(labels: Labels) -> Index:
    """The samples sorted by class; within a class they keep their order."""
    return np.argsort(labels, kind="stable")


def samples_at(order: Index, places: tuple[int, int]) -> Index:
    """The samples at these places, ascending, so that ties are broken as in one pass over all."""
    return np.sort(order[slice(*places)])


def num_pairs(train_labels: Labels, test_labels: Labels, *, same_class: bool) -> int:
    """How many pairs there are, or how many of one class."""
    if not same_class:
        return len(train_labels) * len(test_labels)
    _, train, test = _class_sizes(train_labels, test_labels)
    return int(train @ test)


def parts_of(
    num_trials: int,
    train_labels: Labels,
    test_labels: Labels,
    *,
    same_class: bool,
    part_work: int = PART_WORK,
    part_bytes: int = PART_BYTES,
) -> list[InfluencePart]:
    """Parts that have every pair in exactly one of them, or every pair of one class.

    Several small classes are one part. A part has at most `part_work` trials x pairs and at most `part_bytes` of
    trials, or a pair if that is more.
    """
    side = max(1, min(isqrt(part_work // num_trials), part_bytes // (2 * num_trials)))

    def fits(train: int, test: int) -> bool:
        return num_trials * train * test <= part_work and num_trials * (train + test) <= part_bytes

    def tiles(train: tuple[int, int], test: tuple[int, int]) -> Iterator[InfluencePart]:
        width = min(side, test[1] - test[0])
        if not width:
            return
        height = max(1, min(part_work // (num_trials * width), part_bytes // num_trials - width))
        for first in range(*test, width):
            for start in range(*train, height):
                yield InfluencePart((start, min(start + height, train[1])), (first, min(first + width, test[1])))

    if not same_class:
        return list(tiles((0, len(train_labels)), (0, len(test_labels))))
    found: list[InfluencePart] = []
    train_start = test_start = train_stop = test_stop = 0
    for train, test in zip(*_class_sizes(train_labels, test_labels)[1:], strict=True):
        if not fits(train_stop + train - train_start, test_stop + test - test_start):
            found += tiles((train_start, train_stop), (test_start, test_stop))
            train_start, test_start = train_stop, test_stop
        train_stop, test_stop = train_stop + int(train), test_stop + int(test)
    return [*found, *tiles((train_start, train_stop), (test_start, test_stop))]


class Gathered:
    """Puts the parts of a problem together, in any order."""

    def __init__(self, wanted: Wanted, num_test: int):
        self._pairs = PairsAbove(wanted.threshold, wanted.max_pairs)
        self._top = None if wanted.top is None else TopOfEach(wanted.top, num_test)
        self._largest: Float[np.ndarray, "kinds test"] = np.full((1 + len(wanted.tested), num_test), np.nan)

    def add(self, part: Influences, train_index: Index, test_index: Index) -> None:
        """Take what `find_influences` has found of these samples, whose positions among them it tells."""
        pairs, top, largest = part.pairs, part.top, part.largest
        columns = train_index[pairs.train_index], test_index[pairs.test_index], pairs.influence, pairs.influence_se
        self._pairs.add_pairs(InfluencePairs(*columns, num_found=pairs.num_found))
        if self._top and top:
            named = np.where(top.train_index < 0, -1, train_index[top.train_index])
            self._top.add_top(TopInfluence(named, top.influence, top.influence_se), test_index)
        before = self._largest[:, test_index]
        self._largest[:, test_index] = np.fmax(before, [largest.influence, *largest.excess_z])

    def found(self) -> Influences:
        """What one pass over all pairs would give."""
        top = self._top.found() if self._top else None
        return Influences(self._pairs.found(), top, MaxInfluence(self._largest[0], self._largest[1:]))


def _class_sizes(train_labels: Labels, test_labels: Labels) -> tuple[Labels, Index, Index]:
    """The labels that occur, ascending, and how many training and test samples have each."""
    labels = np.union1d(train_labels, test_labels)
    train, test = (
        np.diff(np.searchsorted(np.sort(of), [*labels, labels[-1] + 1])) for of in (train_labels, test_labels)
    )
    return labels, train, test
