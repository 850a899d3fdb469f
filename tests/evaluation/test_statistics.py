"""Against statsmodels, a closed form, and simulation."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference
from statsmodels.stats.proportion import proportion_confint

from bat_dist.evaluation.statistics import accuracy, bounds_of_share, mcnemar


def test_accuracy_and_its_standard_error() -> None:
    assert accuracy(np.array([True] * 3 + [False])) == pytest.approx((0.75, (0.75 * 0.25 / 4) ** 0.5, 4))
    assert accuracy(np.ones(5, bool)) == (1.0, 0.0, 5)
    empty = accuracy(np.zeros(0, bool))
    assert empty.n == 0
    assert np.isnan(empty.accuracy)


def test_the_interval_of_a_share_is_the_reference() -> None:
    for right, n in ((0, 7), (3, 7), (7, 7), (481, 1000)):
        assert bounds_of_share(right / n, n) == pytest.approx(proportion_confint(right, n, method="wilson"))


def test_no_accuracy_is_said_to_be_certain() -> None:
    """Where all images are right the standard error is 0; the bound is n / (n + z^2), by hand."""
    assert str(accuracy(np.ones(100, bool))) == "100.0% [96.3%, 100.0%]"
    assert str(accuracy(np.zeros(100, bool))) == "0.0% [0.0%, 3.7%]"
    assert str(accuracy(np.zeros(0, bool))) == "none"


def test_mcnemar_is_the_reference() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 200)) < rng.random((2, 1))
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        found = mcnemar(a, b)
        assert found.p_value == pytest.approx(vars(reference(table, exact=True))["pvalue"])
        assert found.difference == pytest.approx(a.mean() - b.mean())
        paired = a.astype(float) - b
        assert found.standard_error == pytest.approx(paired.std() / 200**0.5)


def test_models_that_never_differ() -> None:
    flags = np.array([True, False, True])
    assert mcnemar(flags, flags) == (0.0, 0.0, 0, 0, 1.0)
    with pytest.raises(ValueError, match="of the same images"):
        mcnemar(flags, flags[:2])


def test_a_null_difference_is_seldom_significant() -> None:
    """The exact test is conservative: below 5%, and not useless."""
    rng = np.random.default_rng(1)
    base = rng.random((2000, 400)) < 0.5
    noise = rng.random((2, 2000, 400)) < 0.15
    significant = [mcnemar(b ^ n0, b ^ n1).p_value < 0.05 for b, n0, n1 in zip(base, *noise, strict=True)]
    assert 0.02 < np.mean(significant) < 0.06
