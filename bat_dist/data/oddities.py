"""What is odd about some data, said before anything is spent on them: copies, contradictory labels, unequal classes."""

from collections import defaultdict
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from bat_dist.wording import counted

if TYPE_CHECKING:
    from bat_dist.data.datasets import Split


def oddities(train: "Split", test: "Split") -> list[str]:
    """A line for each kind, with an example; images are equal if all their pixels are.

    A copy in the training set hides that a sample is memorized, since the other one is left in; a test image that was
    trained on measures no generalization.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for position, image in enumerate(train.images):
        groups[_digest(image)].append(position)
    labels, ids = train.labels, train.ids
    several = [group for group in groups.values() if len(group) > 1]
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
    known = [
        (position, groups[key][0]) for position, image in enumerate(test.images) if (key := _digest(image)) in groups
    ]
    if known:
        position, other = known[0]
        count = counted(len(known), "test image is a training image", "test images are training images")
        lines.append(f"{count} too, such as {test.ids[position]} and {ids[other]}")
    sizes = np.bincount(labels)
    if sizes.max() >= 2 * sizes.min():
        lines.append(f"the classes are of unequal size: from {sizes.min():,} to {sizes.max():,} training images")
    return lines


def _digest(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    return blake2b(image.tobytes(), digest_size=16).digest()


def _both(ids: np.ndarray, group: list[int]) -> str:
    return f"{ids[group[0]]} and {ids[group[1]]}"
