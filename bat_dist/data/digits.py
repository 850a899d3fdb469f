"""The digits that scikit-learn ships: 1,797 images of 8x8 pixels, 17 grey levels.

`digits.npz` holds them in scikit-learn's order, because importing scikit-learn takes two seconds of CPU time.  They are
the test set of Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(doi:10.24432/C50P49, CC BY 4.0).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bat_dist.data.source import Source, array_samples

FILE = Path(__file__).with_suffix(".npz")
CLASS_NAMES = tuple("0123456789")
TEST_PER_CLASS = 50


@contextmanager
def open_digits() -> Iterator[Source]:
    """Digits as RGB, grey levels 0..16 scaled to 0..255 (`round(255 * level / 16)`) and replicated.

    There is no published split.  Ours: the last 50 images of each class, in scikit-learn's order, are the test split
    (500); all before them are the train split (1,297).  Ids are positions in that order.
    """
    with np.load(FILE) as digits:
        levels, labels = digits["levels"], digits["labels"].astype(np.int64)
    grey = np.rint(levels * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    in_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        in_test[np.flatnonzero(labels == label)[-TEST_PER_CLASS:]] = True
    train, test = (
        array_samples(images[at], labels[at], at) for at in (np.flatnonzero(~in_test), np.flatnonzero(in_test))
    )
    yield Source("digits", train, test, CLASS_NAMES)
