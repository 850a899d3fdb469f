"""How sure an accuracy is, and whether two models differ."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from bat_dist.memorization.proportions import wilson_interval


class Accuracy(NamedTuple):
    """A share of n images; `standard_error` is sqrt(p (1 - p) / n). NaN for n = 0."""

    accuracy: float
    standard_error: float
    n: int

    def __str__(self) -> str:
        """`97.2% [95.1%, 98.4%]`; `none` without an image."""
        return share_with_interval(self.accuracy, self.n)


class Paired(NamedTuple):
    """Two models on the same images. difference: of accuracies, first minus second."""

    difference: float
    standard_error: float
    only_first: int  # images that the first alone gets right
    only_second: int
    p_value: float


def bounds_of_share(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n images, within [0, 1]; NaN for n = 0."""
    low, high = wilson_interval(np.array(share * n), np.array(n))
    return float(np.maximum(low, 0)), float(np.minimum(high, 1))


def share_with_interval(share: float, n: int) -> str:
    """A share of n images with its interval: `100.0% [96.3%, 100.0%]`, where a standard error would be 0."""
    low, high = bounds_of_share(share, n)
    return f"{share:.1%} [{low:.1%}, {high:.1%}]" if n else "none"


def accuracy(flags: Bool[np.ndarray, " images"]) -> Accuracy:
    """The accuracy of a row of flags, and its binomial standard error."""
    n = len(flags)
    if not n:
        return Accuracy(float("nan"), float("nan"), 0)
    p = float(flags.mean())
    return Accuracy(p, (p * (1 - p) / n) ** 0.5, n)


def mcnemar(first: Bool[np.ndarray, " images"], second: Bool[np.ndarray, " images"]) -> Paired:
    """McNemar's exact test of two models on the same images (two-sided binomial on those where they differ).

    Raises ValueError if the rows are not of equally many images, at least one.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"flags must be of the same images, got shapes {first.shape} and {second.shape}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    from scipy.stats import binomtest  # half a second to import, which workers do without

    n, differ = len(first), only_first + only_second
    difference = (only_first - only_second) / n
    standard_error = max(0.0, differ / n - difference**2) ** 0.5 / n**0.5
    p_value = float(binomtest(only_first, differ).pvalue) if differ else 1.0
    return Paired(difference, standard_error, only_first, only_second, p_value)
