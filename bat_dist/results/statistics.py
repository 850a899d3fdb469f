"""Do two methods differ?  Paired tests on the flags of their networks, over seeds and images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from bat_dist.evaluation.statistics import mcnemar

LEVEL = 0.95


class Difference(NamedTuple):
    """Accuracy of the first minus that of the second, as a fraction; the interval is a 95% one.

    num_seeds: pairs of networks behind it. With one pair it is about these two networks, not about their methods.
    """

    difference: float
    low: float
    high: float
    p_value: float
    num_seeds: int


def compare_methods(
    first: Bool[np.ndarray, "seeds images"], second: Bool[np.ndarray, "seeds images"]
) -> Difference | None:
    """A paired test of two methods: row s of both was trained with the same seed, column j is the same image.

    The differences d[s, j] in {-1, 0, 1} are taken as a mean, plus what seed s adds, plus what image j adds, plus a
    rest, all random: the answer is to hold for other seeds and for other images. With the mean squares of this
    two-way table, Var(mean) = (MS_seeds + MS_images - MS_rest) / (seeds * images), and t with the degrees of freedom of
    Satterthwaite (1946); the same model as in studies of many readers and many cases (Dorfman, Berbaum & Metz 1992).
    The variance is not let below what seeds alone or images alone say: two or three seeds estimate theirs badly.

    With one seed: McNemar's exact test of two networks. None unless there are two images: one says nothing of others,
    whatever the seeds. Raises ValueError for other shapes.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"flags must be of the same seeds and images, got {first.shape} and {second.shape}")
    num_seeds, num_images = first.shape
    if not num_seeds or num_images < 2:
        return None
    if num_seeds == 1:
        found = mcnemar(first.ravel(), second.ravel())
        reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * found.standard_error
        mean = found.difference
        return Difference(mean, mean - reach, mean + reach, found.p_value, num_seeds)
    return mean_over_seeds_and_images(first.astype(float) - second.astype(float))


def mean_over_seeds_and_images(d: Float[np.ndarray, "seeds images"]) -> Difference:
    """The mean of a two-way table, with an interval for other seeds and other images: see `compare_methods`.

    Raises ValueError unless there are two seeds and two images.
    """
    num_seeds, num_images = d.shape
    if num_seeds < 2 or num_images < 2:
        raise ValueError(f"two seeds and two images are needed, got {num_seeds} and {num_images}")
    mean, of_seed, of_image = d.mean(), d.mean(axis=1), d.mean(axis=0)
    seeds = num_images * float(np.var(of_seed, ddof=1))
    images = num_seeds * float(np.var(of_image, ddof=1))
    rest_freedom = (num_seeds - 1) * (num_images - 1)
    rest = float(np.sum((d - of_seed[:, None] - of_image + mean) ** 2)) / rest_freedom
    if seeds == images == rest == 0.0:
        return Difference(float(mean), float(mean), float(mean), 1.0 if mean == 0 else 0.0, num_seeds)
    total = max(seeds + images - rest, seeds, images)
    freedom = total**2 / (seeds**2 / (num_seeds - 1) + images**2 / (num_images - 1) + rest**2 / rest_freedom)
    error = math.sqrt(total / d.size)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Difference(float(mean), float(mean - reach), float(mean + reach), p_value, num_seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold together (Holm 1979): all below 0.05 are real, but for a chance of 5% of any error."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = np.empty(len(p_values)), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted.tolist()
