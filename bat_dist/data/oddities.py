"""What is odd about some data, said before anything is spent on them: copies, contradictory labels, unequal classes."""

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bat_dist.data.mapped_images import hashes_of
from bat_dist.wording import counted

if TYPE_CHECKING:
    from bat_dist.data.datasets import Split


def oddities(train: "Split", test: "Split") -> list[str]:
    """A line for each kind, with an example; images are equal if all their pixels are.

    A copy in the training set hides that a sample is memorized, since the other one is left in; a test image that was
    trained on measures no generalization.
    """
    hashes, test_hashes = hashes_of(train.images), hashes_of(test.images)
    values, counts = np.unique(hashes, return_counts=True)
    groups: dict[int, list[int]] = defaultdict(list)
    for position in np.flatnonzero(np.isin(hashes, values[counts > 1])).tolist():
        groups[int(hashes[position])].append(position)
    labels, ids, several = train.labels, train.ids, list(groups.values())
    torn = [group for group in several if len({*labels[group].tolist()}) > 1]
    alike = [group for group in several if len({*labels[group].tolist()}) == 1]
    lines = []
    if alike:
        copies = counted(
            sum(len(group) - 1 for group in alike), "training image is a copy", "training images are copies"
        )
        lines.append(f"{copies} of another of the same label, such as {_both(ids, alike[0])}")
    if torn:
        count = counted(len(torn), "image is in the training set", "images are in the training set")
        lines.append(f"{count} under several labels, such as {_both(ids, torn[0])}")
    known = np.flatnonzero(np.isin(test_hashes, values))
    if known.size:
        position, other = known[0], np.argmax(hashes == test_hashes[known[0]])
        count = counted(len(known), "test image is a training image", "test images are training images")
        lines.append(f"{count} too, such as {test.ids[position]} and {ids[other]}")
    sizes = np.bincount(labels)
    if sizes.max() >= 2 * sizes.min():
        lines.append(f"the classes are of unequal size: from {sizes.min():,} to {sizes.max():,} training images")
    return lines


def _both(ids: np.ndarray, group: list[int]) -> str:
    return f"{ids[group[0]]} and {ids[group[1]]}"
