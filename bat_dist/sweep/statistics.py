"""How sure are a sweep's numbers?  Few seeds a point, many points: the spread over seeds is taken from all together."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

LEVEL = 0.95


class Spread(NamedTuple):
    """Standard deviation of a run's value over seeds, pooled over points, and its degrees of freedom.

    NaN where no point has two seeds.
    """

    deviation: float
    freedom: int

    def standard_error(self, num_seeds: int) -> float:
        """Of the mean over so many seeds."""
        return self.deviation / math.sqrt(num_seeds)

    def half_width(self, num_seeds: int, level: float = LEVEL) -> float:
        """Of the t interval around the mean over so many seeds."""
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


class Comparison(NamedTuple):
    """A point's mean minus the reference's; the interval and p-value hold for all comparisons together."""

    difference: float
    low: float
    high: float
    p_value: float


def against_reference(groups: Mapping[str, Sequence[float]], reference: str) -> dict[str, Comparison]:
    """Dunnett's test (1955): many points against one, as `scipy.stats.dunnett` has it.

    The more points are tried, the more a difference must be to count: the chance that any of these intervals misses is
    1 - LEVEL.  Empty without two seeds anywhere, without the reference, or if no value varies.
    """
    others = [name for name in groups if name != reference]
    spread = pooled_spread(list(groups.values()))
    if reference not in groups or not others or not spread.freedom or spread.deviation == 0:
        return {}
    samples = [np.asarray(groups[name], float) for name in others]
    control = np.asarray(groups[reference], float)
    found = stats.dunnett(*samples, control=control, rng=np.random.default_rng(0))
    interval = found.confidence_interval(LEVEL)
    means = [float(np.mean(sample) - np.mean(control)) for sample in samples]
    numbers = zip(means, interval.low, interval.high, found.pvalue, strict=True)
    return {name: Comparison(*map(float, row)) for name, row in zip(others, numbers, strict=True)}


def pareto_front(values: Float[np.ndarray, "points metrics"]) -> Bool[np.ndarray, " points"]:
    """Which points no other is at least as good as in all metrics and better in one (more is better)."""
    at_least = np.all(values[None] >= values[:, None], axis=-1)
    better = np.any(values[None] > values[:, None], axis=-1)
    return np.logical_not(np.any(at_least & better, axis=1))
