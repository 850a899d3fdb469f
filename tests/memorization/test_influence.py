"""Influence by blocks: equal to plain loops for every block size, ordered, bounded in memory."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bat_dist.memorization import influence as gathering
from bat_dist.memorization import influence_blocks as module
from bat_dist.memorization.bit_products import count_in_float32, count_in_int8
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import influence_intervals, influential_pairs, max_influence
from bat_dist.memorization.influence_blocks import influence_blocks, influence_matrix
from bat_dist.memorization.proportions import newcombe_interval


def naive_influence(mask, test_correct):
    """Eq. 2 and its standard error, one pair at a time."""
    shape = mask.shape[1], test_correct.shape[1]
    influence, se = np.full(shape, np.nan), np.full(shape, np.nan)
    for i in range(shape[0]):
        for j in range(shape[1]):
            inside, outside = test_correct[mask[:, i], j], test_correct[~mask[:, i], j]
            if len(inside) and len(outside):
                p1, p0 = inside.mean(), outside.mean()
                influence[i, j] = p1 - p0
                se[i, j] = np.sqrt(p1 * (1 - p1) / len(inside) + p0 * (1 - p0) / len(outside))
    return influence, se


def random_trials(seed, num_trials=30, num_train=17, num_test=11, num_classes=3):
    rng = np.random.default_rng(seed)
    mask = rng.random((num_trials, num_train)) < 0.7
    mask[:, 0], mask[:, 1] = True, False  # never out, never in
    test_correct = rng.random((num_trials, num_test)) < rng.random(num_test)
    return (
        mask,
        test_correct,
        rng.integers(num_classes, size=num_train),
        rng.integers(num_classes, size=num_test),
    )


@pytest.fixture(params=[count_in_float32, count_in_int8])
def product(request, monkeypatch):
    monkeypatch.setattr(module, "count_both", lambda first, second, work: request.param(first, second))


@pytest.fixture(params=[1, 2**22 + 10_000, module.BLOCK_BYTES], ids=["one pair", "small", "default"])
def block_bytes(request, monkeypatch, product):
    monkeypatch.setattr(module, "_STRIP_PAIRS", 8)
    return request.param


@pytest.mark.parametrize("seed", range(3))
def test_matrix_equals_plain_loops(seed, block_bytes):
    mask, test_correct, *_ = random_trials(seed)
    expected, se = naive_influence(mask, test_correct)
    np.testing.assert_array_equal(influence_matrix(mask, test_correct, block_bytes=block_bytes), expected)
    found = np.full_like(se, np.nan)
    for block in influence_blocks(mask, test_correct, same_class=False, block_bytes=block_bytes):
        found[np.ix_(block.train_index, block.test_index)] = block.influence_se
    np.testing.assert_allclose(found, se, rtol=1e-12)


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("threshold", [-2, 0.0, 0.15, 2])
def test_pairs_are_those_of_plain_loops_in_order(same_class, threshold, block_bytes):
    mask, test_correct, train_labels, test_labels = random_trials(5)
    influence, se = naive_influence(mask, test_correct)
    allowed = (train_labels[:, None] == test_labels) if same_class else np.ones_like(influence, bool)
    rows, columns = np.nonzero(allowed & (influence > threshold))
    order = sorted(range(len(rows)), key=lambda k: (-influence[rows[k], columns[k]], rows[k], columns[k]))
    rows, columns = rows[order], columns[order]
    options = {"threshold": threshold, "same_class": same_class, "block_bytes": block_bytes}
    for cut in (None, 1, 5):
        pairs = influential_pairs(mask, test_correct, train_labels, test_labels, max_pairs=cut, **options)
        assert pairs.num_found == len(rows)
        np.testing.assert_array_equal(pairs.train_index, rows[:cut])
        np.testing.assert_array_equal(pairs.test_index, columns[:cut])
        np.testing.assert_array_equal(pairs.influence, influence[rows, columns][:cut])
        np.testing.assert_allclose(pairs.influence_se, se[rows, columns][:cut], rtol=1e-12)


@pytest.mark.parametrize("max_pairs", [10, 100, 200, 320])
def test_cutting_early_keeps_the_same_pairs(max_pairs, monkeypatch):
    """Many blocks in both directions, far more pairs than are kept, ties everywhere (5 trials)."""
    monkeypatch.setattr(module, "_STRIP_PAIRS", 64)
    monkeypatch.setattr(gathering, "_PENDING_PAIRS", 50)
    mask, test_correct, *_ = random_trials(8, num_trials=5, num_train=90, num_test=70)
    everything = influential_pairs(mask, test_correct, threshold=-2, same_class=False)
    assert everything.num_found == len(everything.influence) > 3000
    options = {"same_class": False, "max_pairs": max_pairs, "block_bytes": 16_000}
    cut = influential_pairs(mask, test_correct, threshold=-2, **options)
    for name in ("train_index", "test_index", "influence", "influence_se"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(everything, name)[:max_pairs])


def test_the_intervals_of_pairs_are_those_of_their_counts(monkeypatch):
    """Block by block; NaN where a training sample was never in or never out."""
    monkeypatch.setattr(gathering, "_BLOCK_PAIRS", 7)
    mask, test_correct, *_ = random_trials(4)
    train, test = np.divmod(np.arange(17 * 11), 11)
    low, high = influence_intervals(mask, test_correct, train, test)
    for p, (i, j) in enumerate(zip(train, test, strict=True)):
        inside, outside = test_correct[mask[:, i], j], test_correct[~mask[:, i], j]
        k1, n1, k0, n0 = (np.array(value) for value in (inside.sum(), len(inside), outside.sum(), len(outside)))
        np.testing.assert_allclose((low[p], high[p]), newcombe_interval(k1, n1, k0, n0))
        assert np.isnan(low[p]) == (i in (0, 1))
    assert influence_intervals(mask, test_correct, train[:0], test[:0])[0].shape == (0,)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(3, 400), st.booleans(), st.floats(-1.1, 1.1))
@pytest.mark.usefixtures("product")
def test_candidates_are_all_that_reach_the_bound(seed, num_trials, as_often, least):
    """As exact fractions, for one bound and for one of each test sample; training samples are in as often, or not."""
    rng = np.random.default_rng(seed)
    mask = np.stack([rng.permutation(num_trials) < (num_trials // 2 if as_often else 1 + i) for i in range(2)], axis=1)
    test_correct = rng.random((num_trials, 9)) < rng.random(9)
    (block,) = influence_blocks(mask, test_correct, same_class=False)
    exact = [
        [
            Fraction(int(answers[kept].sum()), int(kept.sum()))
            - Fraction(int(answers[~kept].sum()), int((~kept).sum()))
            for answers in test_correct.T
        ]
        for kept in mask.T
    ]
    for bounds in (least, np.where(rng.random(9) < 0.2, -np.inf, block.influence[0])):
        found = np.zeros((2, 9), bool)
        found[block.candidates(bounds)] = True
        for i, j in np.ndindex(2, 9):
            assert found[i, j] or float(exact[i][j]) < np.broadcast_to(bounds, 9)[j]


def test_few_are_candidates_that_do_not_reach_the_bound():
    """Those that a trial more would lift to it, which is 1/n_in + 1/n_out."""
    mask, test_correct, *_ = random_trials(3, num_trials=2000, num_train=60, num_test=50)
    for block in influence_blocks(mask, test_correct, same_class=False):
        for bound in (0.0, 0.02, 0.05):
            below = bound - 1.01 * (1 / block.n_in + 1 / block.n_out)
            assert len(block.candidates(bound)[0]) <= (block.influence >= below).sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 2**23), st.booleans(), st.booleans())
def test_every_pair_comes_once_for_any_block_size(seed, size, same_class, as_mask):
    mask, test_correct, train_labels, test_labels = random_trials(seed)
    subset = np.random.default_rng(seed).random(17) < 0.6
    train_subset = subset if as_mask else np.flatnonzero(subset)
    options = {"same_class": same_class, "train_subset": train_subset, "block_bytes": size}
    visits = np.zeros((17, 11), int)
    for block in influence_blocks(mask, test_correct, train_labels, test_labels, **options):
        visits[np.ix_(block.train_index, block.test_index)] += 1
    was_in_and_out = mask.any(0) & ~mask.all(0)
    expected = np.repeat((subset & was_in_and_out)[:, None], 11, axis=1)
    if same_class:
        expected &= train_labels[:, None] == test_labels
    np.testing.assert_array_equal(visits, expected)


@pytest.mark.parametrize("same_class", [True, False])
def test_largest_influence_and_significance_equal_plain_loops(same_class, block_bytes):
    mask, test_correct, train_labels, test_labels = random_trials(2)
    test_labels[0] = 7  # a class without training samples
    subset = np.array([0, 1, 3, 4, 9, 12])
    options = {
        "thresholds": (0.15, 0.02),
        "same_class": same_class,
        "train_subset": subset,
        "block_bytes": block_bytes,
    }
    found = max_influence(mask, test_correct, train_labels, test_labels, **options)
    for j in range(11):
        influence, z = [], []
        for i in subset[2:]:
            if same_class and train_labels[i] != test_labels[j]:
                continue
            inside, outside = test_correct[mask[:, i], j], test_correct[~mask[:, i], j]
            influence.append(inside.mean() - outside.mean())
            smooth = [((part.sum() + 1) / (len(part) + 2), len(part) + 2) for part in (inside, outside)]
            se = np.sqrt(sum(p * (1 - p) / n for p, n in smooth))
            z.append([(influence[-1] - threshold) / se for threshold in (0.15, 0.02)])
        if influence:
            assert found.influence[j] == max(influence)
            np.testing.assert_allclose(found.excess_z[:, j], np.max(z, axis=0), rtol=1e-12)
        else:
            assert np.isnan(found.influence[j])
            assert np.isnan(found.excess_z[:, j]).all()


def test_influence_on_oneself_is_memorization():
    mask, *_ = random_trials(4)
    train_correct = np.random.default_rng(9).random(mask.shape) < 0.8
    own = np.diagonal(influence_matrix(mask, train_correct))
    np.testing.assert_array_equal(own, estimate_memorization(mask, train_correct).mem)


def test_scaling_closed_form():
    """j is right iff i is in: influence 1; iff i is out: -1; always right: 0 for everyone."""
    mask = np.random.default_rng(0).random((50, 6)) < 0.7
    test_correct = np.stack([mask[:, 2], ~mask[:, 2], np.ones(50, bool)], axis=1)
    matrix = influence_matrix(mask, test_correct)
    np.testing.assert_array_equal(matrix[2], [1, -1, 0])
    np.testing.assert_array_equal(matrix[:, 2], np.zeros(6))


def peak_bytes(function):
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    function()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


@pytest.fixture(scope="module")
def large_trials():
    """The whole matrix would take 96 MB in float64."""
    rng = np.random.default_rng(0)
    return rng.random((100, 8_000)) < 0.7, rng.random((100, 1_500)) < 0.9


@pytest.mark.parametrize("size", [6 * 2**20, 24 * 2**20])
def test_memory_stays_within_the_block(large_trials, size):
    vectors = 2 * 2**20  # counts and indices by sample
    options = {"same_class": False, "block_bytes": size}
    assert peak_bytes(lambda: max_influence(*large_trials, thresholds=(0.15, 0.02), **options)) < size + vectors
    assert peak_bytes(lambda: influential_pairs(*large_trials, threshold=0.35, **options)) < size + vectors


def test_memory_of_pairs_is_bounded_by_max_pairs(large_trials):
    size = 6 * 2**20
    kept = (2 * 1000 + gathering._PENDING_PAIRS + 20 * module._strip_pairs(size)) * 32 * 2
    options = {"threshold": -2, "same_class": False, "block_bytes": size, "max_pairs": 1000}
    assert peak_bytes(lambda: influential_pairs(*large_trials, **options)) < size + kept < 60 * 2**20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "same_class=True needs train_labels and test_labels"),
        (
            {"train_labels": np.zeros(17, int), "test_labels": np.zeros(3, int)},
            r"test_labels must have shape \(11,\), got \(3,\)",
        ),
        (
            {"train_labels": np.zeros(1, int), "test_labels": np.zeros(11, int)},
            r"train_labels must have shape \(17,\)",
        ),
        (
            {"same_class": False, "train_subset": np.array([3, 17])},
            "train_subset must hold indices below 17, got 3 to 17",
        ),
        (
            {"same_class": False, "train_subset": np.ones(4, bool)},
            r"train_subset as bool must have shape \(17,\)",
        ),
        ({"same_class": False, "max_pairs": 0}, "max_pairs must be at least 1 or None, got 0"),
    ],
)
def test_bad_input_is_refused(options, message):
    mask, test_correct, *_ = random_trials(0)
    with pytest.raises(ValueError, match=message):
        influential_pairs(mask, test_correct, threshold=0.1, **options)


def test_different_numbers_of_trials_are_refused():
    with pytest.raises(ValueError, match="test_correct has 4 trials and mask 5"):
        influence_matrix(np.ones((5, 2), bool), np.ones((4, 2), bool))


def test_an_empty_subset_gives_no_pairs():
    mask, test_correct, *_ = random_trials(0)
    pairs = influential_pairs(mask, test_correct, threshold=-2, same_class=False, train_subset=np.array([], int))
    assert pairs.num_found == 0
    assert len(pairs.influence) == 0
    assert np.isnan(
        max_influence(mask, test_correct, same_class=False, train_subset=np.zeros(17, bool)).influence
    ).all()
