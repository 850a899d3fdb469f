import numpy as np
import pytest

from bat_dist.figures.selection import distinct_pairs, extremes, near_targets

NAN = np.nan


def test_extremes_break_ties_by_index_and_leave_nan_out():
    mem = np.array([0.5, NAN, 0.9, 0.5, 0.0, 0.9, 0.0, 0.0])
    top, bottom = extremes(mem, 3)
    assert top.tolist() == [2, 5, 0]
    assert bottom.tolist() == [4, 6, 7]


def test_the_bottom_is_plain_not_noisy():
    """Nearest to 0 before the most negative; among zeros the always right before the always wrong."""
    mem = np.array([-0.4, 0.0, 0.8, 0.0, 0.01, 0.0])
    top, bottom = extremes(mem, 3, accuracy_out=np.array([0.5, 0.0, 0.1, 1.0, 0.9, NAN]))
    assert top.tolist() == [2, 4, 3]
    assert bottom.tolist() == [1, 5, 0]
    assert extremes(mem, 1, accuracy_out=np.array([0.5, 0.0, 0.1, 1.0, 0.9, NAN]))[1].tolist() == [3]


def test_ties_go_to_each_class_in_turn():
    """Six easy zeros, of which the first class has most, and a hard one of a fourth class."""
    mem = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9])
    labels = np.array([0, 0, 0, 2, 1, 2, 3, 0])
    ease = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0])
    assert extremes(mem, 1, ease, labels)[0].tolist() == [7]
    order = [0, 4, 3, 1, 5, 2, 6]
    for k in range(1, 5):
        top, bottom = extremes(mem, k, ease, labels)
        assert bottom.tolist() == [i for i in order if i not in top][:k]


@pytest.mark.parametrize(
    ("num", "k", "num_top", "num_bottom"), [(0, 3, 0, 0), (1, 3, 1, 0), (5, 3, 3, 2), (9, 3, 3, 3)]
)
def test_no_sample_is_both_high_and_low(num, k, num_top, num_bottom):
    top, bottom = extremes(np.zeros(num), k)
    assert (len(top), len(bottom)) == (num_top, num_bottom)
    assert not set(top) & set(bottom)


def test_pairs_come_once_per_train_sample_by_falling_influence():
    train = np.array([7, 7, 3, 3, 9, 1])
    test = np.array([0, 1, 2, 0, 5, 4])
    influence = np.array([0.4, 0.9, 0.6, 0.6, NAN, 0.2])
    shown = distinct_pairs(train, test, influence, 8)
    assert [(train[p], test[p]) for p in shown] == [(7, 1), (3, 0), (1, 4)]
    assert distinct_pairs(train, test, influence, 1).tolist() == [1]
    assert distinct_pairs(train[:0], test[:0], influence[:0], 8).tolist() == []


def test_every_cell_is_the_nearest_of_its_class():
    """The naive reference: among a class's samples nearest to this target, the nearest."""
    rng = np.random.default_rng(0)
    mem, labels = rng.random(400), rng.integers(0, 4, 400)
    targets = np.array([0.0, 0.5, 1.0])
    grid = near_targets(mem, labels, targets.tolist(), 4)
    for row, column in np.ndindex(3, 4):
        mine = [i for i in range(400) if labels[i] == column and np.abs(targets - mem[i]).argmin() == row]
        assert grid[row, column] == min(mine, key=lambda i: abs(mem[i] - targets[row]))


def test_a_sample_too_far_from_every_value_is_not_shown():
    mem, labels = np.array([0.29, 0.05, 0.6, 0.65]), np.zeros(4, dtype=np.int64)
    assert near_targets(mem, labels, (0, 0.5, 1), 8).tolist() == [[1], [2], [-1]]
    assert near_targets(mem, labels, (0, 0.5, 1), 8, within=0.3).tolist() == [[1, -1, -1], [2, 3, 0], [-1, -1, -1]]


def test_full_columns_go_first_and_a_missing_cell_stays_empty():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    mem = np.array([0.0, 0.1, 0.45, 0.0, 0.5, 1.0, 0.05, 0.5, NAN])
    assert near_targets(mem, labels, (0, 0.5, 1), 1).T.tolist() == [[3, 4, 5]]  # class 1 alone is complete
    assert near_targets(mem, labels, (0, 0.5, 1), 3).T.tolist() == [[0, 2, -1], [3, 4, 5], [6, 7, -1]]


def test_few_classes_get_further_columns_and_none_gives_an_empty_grid():
    labels, mem = np.zeros(4, dtype=np.int64), np.array([0.0, 0.01, 0.5, 1.0])
    assert near_targets(mem, labels, (0, 0.5, 1), 8).T.tolist() == [[0, 2, 3], [1, -1, -1]]
    assert near_targets(np.full(4, NAN), labels, (0, 0.5, 1), 8).shape == (3, 0)
