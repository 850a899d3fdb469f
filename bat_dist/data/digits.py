"""scikit-learn's digits: 1,797 images of 8x8 pixels, 17 grey levels, which ship with that package."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from bat_dist.data.source import Source, array_samples

TEST_PER_CLASS = 50


@contextmanager
def open_digits() -> Iterator[Source]:
    """Digits as RGB, grey levels 0..16 scaled to 0..255 (`round(255 * level / 16)`) and replicated.

    scikit-learn has no split. Ours: the last 50 images of each class, in its order, are the test split (500);
    all before them are the train split (1,297). Ids are positions in scikit-learn's order.
    """
    from sklearn.datasets import (
        load_digits,
    )  # here, since it takes a second that other datasets need not wait

    digits: Any = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images, labels = np.repeat(grey[..., None], 3, axis=3), digits.target
    in_test = last_of_each_class(labels, TEST_PER_CLASS)
    train, test = (
        array_samples(images[at], labels[at], at) for at in (np.flatnonzero(~in_test), np.flatnonzero(in_test))
    )
    yield Source("digits", train, test, tuple(str(name) for name in digits.target_names))


def last_of_each_class(labels: Int[np.ndarray, " samples"], count: int) -> Bool[np.ndarray, " samples"]:
    """Mask of the last `count` samples of each class."""
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mask[np.flatnonzero(labels == label)[-count:]] = True
    return mask
