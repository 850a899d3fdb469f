"""Paired tests over seeds and images: against statsmodels' mean squares, scipy's t test, and by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from bat_dist.results.statistics import compare_methods, holm


def networks(
    rng: np.random.Generator, shape: tuple[int, int], *, by_seed: float, by_image: float = 0.2, effect: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Flags of two methods: an image is right if ability, luck of seed and image and noise exceed its difficulty."""
    seeds, images = shape
    difficulty = rng.normal(0.3, 1.2, images)
    first, second = (
        ability
        + rng.normal(0, by_seed, (seeds, 1))
        + rng.normal(0, by_image, (1, images))
        + rng.normal(0, 0.6, (seeds, images))
        > difficulty
        for ability in (effect, 0.0)
    )
    return first, second


def test_it_is_the_two_way_analysis_of_variance() -> None:
    first, second = networks(np.random.default_rng(1), (4, 30), by_seed=0.5, effect=0.4)
    d = first.astype(float) - second
    seeds, images = np.indices(d.shape)
    table = pd.DataFrame({"d": d.ravel(), "seed": seeds.ravel(), "image": images.ravel()})
    squares = anova_lm(ols("d ~ C(seed) + C(image)", table).fit())["mean_sq"]
    by_seed, by_image, rest = squares["C(seed)"], squares["C(image)"], squares["Residual"]
    total = max(by_seed + by_image - rest, by_seed, by_image)
    freedom = total**2 / (by_seed**2 / 3 + by_image**2 / 29 + rest**2 / 87)
    error = np.sqrt(total / d.size)
    found = compare_methods(first, second)
    assert found is not None
    assert found.difference == pytest.approx(d.mean())
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(d.mean()) / error, freedom))
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, freedom) * error)


def test_where_seeds_decide_it_is_the_paired_t_test_over_seeds() -> None:
    """Networks that are right everywhere or nowhere: images tell nothing, seeds all."""
    first = np.repeat(np.array([[1], [1], [1], [0], [1]], bool), 50, axis=1)
    second = np.repeat(np.array([[0], [1], [0], [0], [0]], bool), 50, axis=1)
    found = compare_methods(first, second)
    truth = stats.ttest_rel(first.mean(1), second.mean(1))
    assert found is not None
    assert found.p_value == pytest.approx(truth.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(truth.confidence_interval()))


def test_one_image_gives_no_verdict_however_many_seeds() -> None:
    for seeds in (1, 8):
        assert compare_methods(np.ones((seeds, 1), bool), np.zeros((seeds, 1), bool)) is None


def test_one_seed_is_mcnemars_test() -> None:
    first, second = networks(np.random.default_rng(2), (1, 80), by_seed=0.5)
    table = [[np.sum(first & second), np.sum(first & ~second)], [np.sum(~first & second), np.sum(~first & ~second)]]
    found = compare_methods(first, second)
    assert found is not None
    assert found.p_value == pytest.approx(vars(reference_mcnemar(table, exact=True))["pvalue"])
    assert found.num_seeds == 1


def test_it_is_antisymmetric_and_knows_equals() -> None:
    first, second = networks(np.random.default_rng(3), (3, 100), by_seed=0.1, effect=0.3)
    there, back = compare_methods(first, second), compare_methods(second, first)
    assert there is not None
    assert back is not None
    assert (there.difference, there.low, there.p_value) == pytest.approx((-back.difference, -back.high, back.p_value))
    same = compare_methods(first, first)
    assert same is not None
    assert (same.difference, same.p_value) == (0, 1)


def test_without_images_nothing_is_said() -> None:
    assert compare_methods(np.zeros((3, 0), bool), np.zeros((3, 0), bool)) is None
    with pytest.raises(ValueError, match="same seeds and images"):
        compare_methods(np.zeros((3, 4), bool), np.zeros((3, 5), bool))


@pytest.mark.parametrize(("by_seed", "lowest"), [(0.0, 0.005), (0.05, 0.02), (0.15, 0.03)])
def test_a_null_difference_is_significant_in_a_twentieth_of_all_cases(by_seed: float, lowest: float) -> None:
    """Of 1,500 null comparisons: 5%, fewer where seeds do not matter (the variance is not let below either's own)."""
    rng = np.random.default_rng(4)
    found = [compare_methods(*networks(rng, (3, 600), by_seed=by_seed)) for _ in range(1500)]
    share = np.mean([one.p_value < 0.05 for one in found if one])
    assert lowest < share < 0.072
    covered = np.mean([one.low <= 0 <= one.high for one in found if one])
    assert covered == pytest.approx(1 - share, abs=1e-9)


def test_a_test_over_images_alone_would_be_fooled_by_seeds() -> None:
    """Why seeds are in the model: two equal methods, one pair of networks, many images."""
    rng = np.random.default_rng(5)
    found = [compare_methods(*networks(rng, (1, 2000), by_seed=0.15)) for _ in range(300)]
    assert np.mean([one.p_value < 0.05 for one in found if one]) > 0.3


def test_a_real_difference_is_seen() -> None:
    rng = np.random.default_rng(6)
    found = [compare_methods(*networks(rng, (3, 1000), by_seed=0.03, effect=0.3)) for _ in range(100)]
    assert np.mean([one.p_value < 0.05 for one in found if one]) > 0.9


@pytest.mark.parametrize("number", [1, 2, 5, 40])
def test_holm_is_statsmodels(number: int) -> None:
    p_values = np.random.default_rng(number).uniform(size=number) ** 3
    assert holm(p_values.tolist()) == pytest.approx(np.asarray(multipletests(p_values, method="holm")[1]).tolist())


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []
