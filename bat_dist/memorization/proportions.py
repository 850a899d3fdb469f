"""The difference of two proportions, p1 - p0 = k1/n1 - k0/n0: estimate, standard errors, interval.

Counts are whole numbers held in any numeric array; all arguments broadcast. A proportion of zero trials is NaN.
"""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Num

Counts = Num[np.ndarray, "..."]
Floats = Float[np.ndarray, "..."]


def proportion(count: Counts, trials: Counts) -> Floats:
    """count / trials; NaN where there were no trials."""
    with np.errstate(invalid="ignore"):
        return np.true_divide(count, trials)


def difference(k1: Counts, n1: Counts, k0: Counts, n0: Counts) -> Floats:
    """k1/n1 - k0/n0, unclipped."""
    return proportion(k1, n1) - proportion(k0, n0)


def wald_se(k1: Counts, n1: Counts, k0: Counts, n0: Counts) -> Floats:
    """Plug-in standard error: se^2 = p1(1-p1)/n1 + p0(1-p0)/n0. 0 where both proportions are 0 or 1."""
    p1, p0 = proportion(k1, n1), proportion(k0, n0)
    with np.errstate(invalid="ignore"):
        return np.sqrt(p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0)


def agresti_caffo_se(k1: Counts, n1: Counts, k0: Counts, n0: Counts) -> Floats:
    """The same with one success and one failure added to each side; never 0.

    Agresti & Caffo (2000), Simple and effective confidence intervals for proportions and differences of
    proportions result from adding two successes and two failures, The American Statistician 54(4).
    """
    return wald_se(k1 + 1, n1 + 2, k0 + 1, n0 + 2)


def newcombe_interval(k1: Counts, n1: Counts, k0: Counts, n0: Counts, level: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper limit for p1 - p0 by Newcombe's hybrid score method; sound at proportions of 0 and 1.

    Newcombe (1998), Interval estimation for the difference between independent proportions: comparison of eleven
    methods, Statistics in Medicine 17, method 10 (no continuity correction). NaN where a side has no trials.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    p1, p0 = proportion(k1, n1), proportion(k0, n0)
    (low1, high1), (low0, high0) = wilson_interval(k1, n1, level), wilson_interval(k0, n0, level)
    center = p1 - p0
    return center - np.hypot(p1 - low1, high0 - p0), center + np.hypot(high1 - p1, p0 - low0)


def wilson_interval(count: Counts, trials: Counts, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's score interval (1927) of one proportion: it has a width at 0 and at 1 too.  NaN for no trials."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = proportion(count, trials)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = z * np.sqrt(p * (1 - p) / trials + (z / (2 * np.asarray(trials))) ** 2)
        center, scale = p + z**2 / (2 * np.asarray(trials)), 1 + z**2 / trials
        return (center - spread) / scale, (center + spread) / scale
