"""The validation split: held out of the training set, by which the best checkpoint is chosen."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64


class Held(NamedTuple):
    """Positions in the training split: what is trained on, and what is held out."""

    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]


def hold_out(labels: Int64[np.ndarray, " samples"], num_val: int, *, seed: int) -> Held:
    """Hold `num_val` samples out, each class in its share (to within one), drawn by `seed` alone.

    Raises ValueError unless both parts get at least one sample.
    """
    if not 0 < num_val < len(labels):
        raise ValueError(f"num_val must be in [1, {len(labels) - 1}], got {num_val}: some must be left to train on")
    exact = np.bincount(labels) * num_val / len(labels)
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(-(exact - shares), kind="stable")[: num_val - shares.sum()]] += 1  # the largest remainders
    rng = np.random.default_rng([seed, len(labels), num_val])
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:share] for c, share in enumerate(shares)]
    is_held = np.zeros(len(labels), bool)
    is_held[np.concatenate(chosen)] = True
    return Held(np.flatnonzero(~is_held), np.flatnonzero(is_held))


def default_num_val(num_train: int) -> int:
    """A tenth of the training samples, at most 1,000 (as Rice et al. 2020, arXiv:2002.11569, hold out of CIFAR-10)."""
    return min(1000, max(1, num_train // 10))
