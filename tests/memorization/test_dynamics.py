"""Forgetting events, learning time and EL2N: histories made by hand, and naive loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bat_dist.memorization.dynamics import RIGHT, UNSEEN, WRONG, early_epoch, el2n, forgetting_events, learning_time

BY_HAND = {  # w: wrong, r: right, -: not seen; then events and the first epoch of being right
    "rrrrrr": (0, 1),
    "wwrrrr": (0, 3),
    "wrwrwr": (2, 2),
    "rwrwrw": (3, 1),
    "rw----": (1, 1),
    "r--wr-": (1, 1),
    "---wwr": (0, 6),
    "wwwwww": (6, 7),
    "------": (6, 7),
}


def history_of(*samples: str) -> np.ndarray:
    marks = {"w": WRONG, "r": RIGHT, "-": UNSEEN}
    return np.array([[marks[mark] for mark in one] for one in samples], np.int8).T


def test_histories_made_by_hand() -> None:
    history = history_of(*BY_HAND)
    assert forgetting_events(history).tolist() == [events for events, _ in BY_HAND.values()]
    assert learning_time(history).tolist() == [first for _, first in BY_HAND.values()]


@given(st.lists(st.text("wr-", min_size=4, max_size=4), min_size=1, max_size=8))
def test_every_history_equals_a_naive_loop(samples: list[str]) -> None:
    events, first = forgetting_events(history_of(*samples)), learning_time(history_of(*samples))
    for i, marks in enumerate(samples):
        assert events[i] == (marks.replace("-", "").count("rw") if "r" in marks else 4)
        assert first[i] == (marks.index("r") + 1 if "r" in marks else 5)


def test_who_is_never_right_ranks_above_all_who_are() -> None:
    most_forgotten, never = history_of("rwrwrw", "wwwwww"), 1
    assert forgetting_events(most_forgotten).argmax() == learning_time(most_forgotten).argmax() == never


def test_el2n_of_softmax_outputs_by_hand() -> None:
    outputs = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.3, 0.2]], np.float32)
    found = el2n(outputs, np.array([0, 0, 2]))
    expected = [0, math.sqrt(2), math.sqrt(0.5**2 + 0.3**2 + 0.8**2)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert outputs[0, 0] == 1  # what it was given stays


@pytest.mark.parametrize(("epochs", "early"), [(1, 1), (2, 1), (8, 2), (20, 4), (160, 32)])
def test_the_early_epoch_is_a_fifth_of_the_training_and_one_at_least(epochs: int, early: int) -> None:
    assert early_epoch(epochs) == early
