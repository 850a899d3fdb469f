"""What a sweep says of its numbers, against closed forms, statsmodels and simulation."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from bat_dist.sweep.statistics import against_reference, pareto_front, pooled_spread


def test_the_pooled_spread_is_the_residual_of_an_anova() -> None:
    rng = np.random.default_rng(0)
    groups = [list(rng.normal(mean, 0.3, size)) for mean, size in ((0, 2), (1, 3), (5, 1), (2, 4))]
    design = np.repeat(np.eye(4), [len(group) for group in groups], axis=0)
    fitted = sm.OLS(np.concatenate(groups), design).fit()
    spread = pooled_spread(groups)
    assert spread.freedom == fitted.df_resid == 6
    assert spread.deviation == pytest.approx(math.sqrt(fitted.mse_resid))
    low, high = fitted.conf_int()[1]
    assert spread.half_width(3) == pytest.approx((high - low) / 2)
    assert spread.standard_error(3) == pytest.approx(fitted.bse[1])


def test_without_two_seeds_nothing_is_known_of_the_spread() -> None:
    spread = pooled_spread([[0.1], [0.7]])
    assert math.isnan(spread.deviation)
    assert math.isnan(spread.half_width(1))
    assert against_reference({"a": [0.1], "b": [0.7]}, "a") == {}


def test_two_points_are_the_paired_t_test() -> None:
    a, b = [0.50, 0.52, 0.49], [0.55, 0.54, 0.58]
    [found] = against_reference({"pgd_at": a, "bat": b}, "pgd_at").values()
    student = stats.ttest_rel(b, a)
    interval = student.confidence_interval(0.95)
    assert found.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert found.p_value == pytest.approx(student.pvalue, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-5)


def test_the_error_is_that_of_a_two_way_anova() -> None:
    """The interval's half-width over its critical value; any difference over its error has the p-value's quantile."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.01, (5, 3)) + rng.normal(0, 0.05, 3)
    points, seeds = np.repeat(np.eye(5), 3, axis=0), np.tile(np.eye(3), (5, 1))
    fitted = sm.OLS(values.ravel(), np.hstack([points, seeds[:, 1:]])).fit()
    contrast = np.zeros(7)
    contrast[[0, 1]] = -1, 1
    tested = fitted.t_test(contrast)
    found = against_reference({f"p{k}": list(row) for k, row in enumerate(values)}, "p0")
    assert found["p1"].difference == pytest.approx(tested.effect[0])
    many_sided = (found["p1"].high - found["p1"].low) / 2 / tested.sd[0][0]
    # Dunnett's table, two-sided, 5%, 4 treatments, 8 degrees of freedom.
    assert fitted.df_resid == 8
    assert many_sided == pytest.approx(3.02, abs=0.01)


def test_without_an_effect_of_seeds_it_is_nearly_scipys() -> None:
    """scipy's has no blocks: a few degrees of freedom more."""
    rng = np.random.default_rng(3)
    values = rng.normal(0.5, 0.01, (8, 12)) + np.array([0, 0.008, *[0] * 6])[:, None]
    found = against_reference({f"p{k}": list(row) for k, row in enumerate(values)}, "p0")
    theirs = stats.dunnett(*values[1:], control=values[0], rng=np.random.default_rng(0)).confidence_interval(0.95)
    for k in range(7):
        assert found[f"p{k + 1}"].low == pytest.approx(theirs.low[k], abs=1.5e-3)
        assert found[f"p{k + 1}"].high == pytest.approx(theirs.high[k], abs=1.5e-3)


def test_many_null_points_are_seldom_called_better() -> None:
    """With no real difference, one in twenty sweeps may have an interval without 0, not one in twenty points."""
    rng, misses, sweeps = np.random.default_rng(1), 0, 400
    for _ in range(sweeps):
        of_seeds = rng.normal(0, 0.03, 2)  # what a seed does to all alike
        groups = {f"p{k}": list(rng.normal(0.5, 0.01, 2) + of_seeds) for k in range(6)}
        found = against_reference(groups, "p0")
        misses += any(c.low > 0 or c.high < 0 for c in found.values())
    # Binomial: within four standard deviations of 5%; without the correction it would be near 20%.
    assert abs(misses - 0.05 * sweeps) < 4 * math.sqrt(sweeps * 0.05 * 0.95)


def test_a_real_difference_is_seen_through_the_noise_of_seeds() -> None:
    groups = {"pgd_at": [0.30, 0.40], "a": [0.33, 0.431], "b": [0.301, 0.40], "c": [0.30, 0.399]}
    found = against_reference(groups, "pgd_at")
    assert found["a"].low > 0
    assert found["b"].low < 0 < found["b"].high


def test_a_point_with_fewer_seeds_is_left_out() -> None:
    groups = {"pgd_at": [0.30, 0.40], "a": [0.33, 0.431], "b": [0.301, 0.40], "c": [0.3]}
    assert against_reference(groups, "pgd_at").keys() == {"a", "b"}
    assert against_reference(groups, "c") == {}


def test_without_the_reference_or_any_spread_nothing_is_compared() -> None:
    assert against_reference({"a": [1.0, 2.0]}, "b") == {}
    assert against_reference({"a": [1.0, 2.0]}, "a") == {}
    assert against_reference({"a": [1.0, 1.0], "b": [2.0, 2.0]}, "a") == {}


def test_the_front_is_what_a_naive_search_finds() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(0, 6, (40, 2)).astype(float)

    def beaten(i: int) -> bool:
        return any(
            all(other >= mine for other, mine in zip(values[j], values[i], strict=True))
            and tuple(values[j]) != tuple(values[i])
            for j in range(len(values))
        )

    assert pareto_front(values).tolist() == [not beaten(i) for i in range(len(values))]
