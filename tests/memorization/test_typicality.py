"""Typical and atypical sets: both rules against plain loops, their noise, and what they warn of."""

import numpy as np
import pytest
from scipy.stats import norm

from bat_dist.memorization.noise import Noise
from bat_dist.memorization.proportions import agresti_caffo_se, difference
from bat_dist.memorization.typicality import Rule, TypicalSets, typical_sets


def naive_test_sets(mem, mask, test_correct, train_labels, test_labels, *, same_class, z):
    """(typical, atypical) by the module's words, one pair at a time; z None = by the estimate."""
    typical, atypical = test_correct.mean(axis=0) >= 0.8, np.zeros(test_correct.shape[1], bool)
    for j in range(test_correct.shape[1]):
        for i in np.flatnonzero(mem > 0.15):
            if same_class and train_labels[i] != test_labels[j]:
                continue
            inside, outside = test_correct[mask[:, i], j], test_correct[~mask[:, i], j]
            influence = inside.mean() - outside.mean()
            smooth = [((part.sum() + 1) / (len(part) + 2), len(part) + 2) for part in (inside, outside)]
            margin = 0 if z is None else z * np.sqrt(sum(p * (1 - p) / n for p, n in smooth))
            atypical[j] |= influence - 0.15 > margin
            typical[j] &= not influence - 0.02 > margin
    return typical, atypical


def study(num_trials=80, num_train=40, num_test=30, seed=0, accuracy=0.95, effect=0.9):
    """Test sample j < 10 hangs on training sample j, of the same class for even j."""
    rng = np.random.default_rng(seed)
    mask = rng.random((num_trials, num_train)) < 0.7
    test_correct = rng.random((num_trials, num_test)) < accuracy
    for j in range(10):
        test_correct[:, j] = rng.random(num_trials) < np.where(mask[:, j], accuracy, accuracy - effect)
    labels = np.arange(max(num_train, num_test)) % 3
    test_labels = labels[:num_test].copy()
    test_labels[1:10:2] += 1
    mem = np.where(np.arange(num_train) < 20, 0.5, 0.0)
    mem[30] = np.nan
    return mem, mask, test_correct, labels[:num_train], test_labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("rule", ["paper", "significant"])
def test_sets_equal_plain_loops(rule, same_class, seed):
    trials = study(seed=seed)
    sets = typical_sets(*trials, rule=rule, same_class=same_class)
    z = float(norm.isf(0.001)) if rule == "significant" else None
    typical, atypical = naive_test_sets(*trials, same_class=same_class, z=z)
    np.testing.assert_array_equal(sets.test_typical, typical)
    np.testing.assert_array_equal(sets.test_atypical, atypical)
    np.testing.assert_array_equal(sets.train_atypical, np.arange(40) < 20)
    np.testing.assert_array_equal(sets.train_typical, (np.arange(40) >= 20) & (np.arange(40) != 30))


def test_each_rule_has_its_own_pairs_unless_told():
    trials = study()
    own_pairs: dict[Rule, bool] = {"paper": False, "significant": True}
    for rule, same_class in own_pairs.items():
        own, told = typical_sets(*trials, rule=rule), typical_sets(*trials, rule=rule, same_class=same_class)
        np.testing.assert_array_equal(own.test_typical, told.test_typical)
        np.testing.assert_array_equal(own.test_atypical, told.test_atypical)


def test_no_significance_asked_is_the_papers_rule_within_classes():
    trials = study(seed=7)
    ours, paper = typical_sets(*trials, level=0.5), typical_sets(*trials, rule="paper", same_class=True)
    np.testing.assert_array_equal(ours.test_typical, paper.test_typical)
    np.testing.assert_array_equal(ours.test_atypical, paper.test_atypical)


def test_significant_rule_finds_influence_of_the_same_class_only():
    sets = typical_sets(*study(num_trials=400))
    np.testing.assert_array_equal(np.flatnonzero(sets.test_atypical), np.arange(0, 10, 2))


def test_thresholds_are_strict_as_printed():
    """mem of exactly 0.15 is not atypical, of exactly 0.02 not typical; accuracy of exactly 0.8 is enough."""
    mask = np.arange(20)[:, None] % 2 == np.zeros(3)
    test_correct = np.tile(np.arange(20)[:, None] < 16, (1, 2))
    sets = typical_sets(np.array([0.15, 0.02, 0.0199]), mask, test_correct, np.zeros(3, int), np.zeros(2, int))
    assert not sets.train_atypical.any()
    np.testing.assert_array_equal(sets.train_typical, [False, False, True])
    assert sets.test_typical.all()


def test_agreeing_answers_are_no_proof():
    """4 trials, in 3 of 3 right, out 0 of 1: the plug-in error is 0 and would be infinitely sure."""
    mask = np.array([[1], [1], [1], [0]], dtype=bool)
    arguments = (np.array([1.0]), mask, mask.copy(), np.zeros(1, int), np.zeros(1, int))
    assert typical_sets(*arguments, rule="paper").test_atypical.all()
    assert not typical_sets(*arguments).test_atypical.any()


@pytest.fixture(scope="module")
def no_influence():
    """4000 trials, 30 atypical training samples, 2000 test samples right 95% of the time, no influence."""
    rng = np.random.default_rng(0)
    mask = rng.random((4000, 40)) < 0.7
    mem = np.where(np.arange(40) < 30, 0.5, 0.0)
    return mem, mask, rng.random((4000, 2000)) < 0.95, np.zeros(40, int), np.zeros(2000, int)


def test_the_noise_warning_foretells_what_chance_takes(no_influence):
    sets = typical_sets(*no_influence, rule="paper")
    lost = 2000 - sets.sizes()["test_typical"]
    mem, mask, test_correct, *_ = no_influence
    counts = mask[:, mem > 0.15].sum(axis=0), test_correct.sum(axis=0)
    foretold = Noise.of(4000, *counts, None).expected_excesses(0.02)
    assert 100 < foretold < 400
    assert abs(lost - foretold) < 5 * np.sqrt(foretold)
    assert any(f"about {foretold:.0f} of 2000 accurate test samples leave the typical set" in w for w in sets.warnings)


def test_significance_keeps_what_chance_would_take(no_influence):
    sets = typical_sets(*no_influence)
    assert sets.sizes() == {
        "train_typical": 10,
        "train_atypical": 30,
        "test_typical": 2000,
        "test_atypical": 0,
    }
    assert sets.warnings == ("test_atypical is empty",)


def test_an_excess_of_nothing_is_significant_as_often_as_its_level_says():
    """Influence exactly at the threshold, 1000 trials: the error rate is at most about the level.

    400,000 draws, level 0.01: Monte Carlo error 0.0002.
    """
    rng, draws = np.random.default_rng(0), 400_000
    for p_out in (0.3, 0.6, 0.8, 0.9, 0.95, 0.98):
        k1, k0 = rng.binomial(700, p_out + 0.02, draws), rng.binomial(300, p_out, draws)
        counts = (k1, np.array(700), k0, np.array(300))
        z = (difference(*counts) - 0.02) / agresti_caffo_se(*counts)
        assert (z > norm.isf(0.01)).mean() < 0.012, p_out


def test_at_1000_trials_the_papers_typical_set_is_mostly_chance():
    """2000 atypical samples, test samples right 95% of the time, zero influence: not one is left typical."""
    rng = np.random.default_rng(0)
    mask, test_correct = rng.random((1000, 2000)) < 0.7, rng.random((1000, 200)) < 0.95
    labels = np.arange(2000) % 10
    sets = typical_sets(np.ones(2000), mask, test_correct, labels, labels[:200], rule="paper")
    assert sets.sizes()["test_typical"] == 0
    assert any("about 200 of 200 accurate test samples leave the typical set by chance" in w for w in sets.warnings)
    assert typical_sets(np.ones(2000), mask, test_correct, labels, labels[:200]).sizes()["test_typical"] > 195


def test_few_trials_are_named():
    warnings = typical_sets(*study(num_trials=20)).warnings
    assert any("to keep a sample out of the test typical set" in warning for warning in warnings)
    assert any("to put a sample into the test atypical set" in warning for warning in warnings)


def test_undefined_and_empty_are_named():
    mem, *rest = study()
    mem[:20] = 0.1
    sets = typical_sets(mem, *rest)
    assert sets.warnings == (
        "1 of 40 training samples have undefined memorization (never in, or never out) and are in neither "
        "set: run more trials, or a balanced plan",
        "train_atypical is empty",
        "test_atypical is empty",
    )
    np.testing.assert_array_equal(sets.test_typical, rest[1].mean(axis=0) >= 0.8)


def test_sizes_count_the_sets():
    sets = TypicalSets(np.ones(3, bool), np.zeros(3, bool), np.array([True, False]), np.ones(2, bool), ())
    assert sets.sizes() == {"train_typical": 3, "train_atypical": 0, "test_typical": 1, "test_atypical": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "papers"}, r"rule must be one of \['significant', 'paper'\], got 'papers'"),
        ({"level": 0.7}, r"level must be in \(0, 0\.5\], got 0\.7"),
        ({"typical_threshold": 0.2}, r"typical_threshold must not exceed atypical_threshold 0\.15, got 0\.2"),
        ({"mem": np.zeros(3)}, r"mem must have one value per training sample, \(40,\), got \(3,\)"),
    ],
)
def test_bad_input_is_refused(options, message):
    mem, *rest = study()
    with pytest.raises(ValueError, match=message):
        typical_sets(options.pop("mem", mem), *rest, **options)
