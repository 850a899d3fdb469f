"""How sure are a sweep's numbers?  Few seeds a point, many points: the spread over seeds is taken from all together."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, special, stats

LEVEL = 0.95
TINY = 1e-9  # a standard error of an accuracy that is rounding alone


class Spread(NamedTuple):
    """Standard deviation of a run's value over seeds, pooled over points, and its degrees of freedom.

    NaN where no point has two seeds.
    """

    deviation: float
    freedom: int

    def standard_error(self, num_seeds: int) -> float:
        """The standard error of the mean over so many seeds."""
        return self.deviation / math.sqrt(num_seeds)

    def half_width(self, num_seeds: int, level: float = LEVEL) -> float:
        """Half the width of the t interval around the mean over so many seeds."""
        if not self.freedom:
            return math.nan
        return float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.standard_error(num_seeds)


def pooled_spread(groups: Sequence[Sequence[float]]) -> Spread:
    """Assumes that seeds matter as much at one point as at another; groups: the values of each point's seeds."""
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return Spread(math.nan, 0)
    squares = sum(float(np.sum((np.asarray(group) - np.mean(group)) ** 2)) for group in groups)
    return Spread(math.sqrt(squares / freedom), freedom)


class PointComparison(NamedTuple):
    """A point's mean minus the reference's; the interval and p-value hold for all comparisons together."""

    difference: float
    low: float
    high: float
    p_value: float


def against_reference(groups: Mapping[str, Sequence[float]], reference: str) -> dict[str, PointComparison]:
    """Dunnett's test (1955), many points against one, with seeds as blocks.

    groups: for each point a value per seed, the same seeds in the same order: what a seed does to all points alike
    (weights, order, noise) tells nothing about their difference, and is taken out. The more points are tried, the more
    a difference must be to count: the chance that any of these intervals misses is 1 - LEVEL, over other seeds and on
    the same images. For two points it is the paired t test. A point with fewer seeds (while a sweep goes on) is left
    out. Empty without two seeds, without the reference, or if all differences are the same at every seed.
    """
    num_seeds = len(groups.get(reference, ()))
    others = [name for name in groups if name != reference and len(groups[name]) == num_seeds]
    if not others or num_seeds < 2:
        return {}
    values = np.array([groups[reference], *(groups[name] for name in others)], float)
    num_points = len(values)
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    freedom = (num_points - 1) * (num_seeds - 1)
    error = math.sqrt(float(np.sum(rest**2)) / freedom * 2 / num_seeds)
    if error < TINY:
        return {}
    chance = _chance_inside(len(others), freedom)
    one, bonferroni = (stats.t.ppf(1 - (1 - LEVEL) / 2 / many, freedom) for many in (1, len(others)))
    critical: Any = optimize.brentq(lambda width: chance(width) - LEVEL, 0.99 * one, 1.01 * bonferroni)
    found = {}
    for name, difference in zip(others, (values[1:] - values[0]).mean(1), strict=True):
        low, high = difference - critical * error, difference + critical * error
        p_value = 1 - chance(abs(difference) / error)
        found[name] = PointComparison(*map(float, (difference, low, high, min(1.0, max(0.0, p_value)))))
    return found


@functools.cache
def _chance_inside(many: int, freedom: int) -> Callable[[float], float]:
    """The chance that all of `many` differences to one point, each divided by its error, lie in [-width, width].

    If none is real. All share the reference, whose own deviation is z: given it and the estimated spread s they are
    independent, which leaves an integral over z (normal) and s (chi with so many degrees of freedom).
    """
    z, weights = np.polynomial.hermite_e.hermegauss(100)
    legendre, share = np.polynomial.legendre.leggauss(400)
    s = np.sqrt(stats.chi2.ppf((legendre + 1) / 2, freedom) / freedom)
    weight = np.outer(share / 2, weights / math.sqrt(2 * math.pi))

    def chance(width: float) -> float:
        reach = math.sqrt(2) * width * s[:, None]
        return float(np.sum(weight * (special.ndtr(z + reach) - special.ndtr(z - reach)) ** many))

    return chance


def pareto_front(values: Float[np.ndarray, "points metrics"]) -> Bool[np.ndarray, " points"]:
    """Which points no other is at least as good as in all metrics and better in one (more is better)."""
    at_least = np.all(values[None] >= values[:, None], axis=-1)
    better = np.any(values[None] > values[:, None], axis=-1)
    return np.logical_not(np.any(at_least & better, axis=1))
