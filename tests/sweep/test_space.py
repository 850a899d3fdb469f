"""Points of a sweep: which there are, and what they are called."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bat_dist.sweep.space import (
    Dimension,
    draws,
    grid,
    is_reference,
    point_name,
    read_space,
    with_references,
    without_repetition,
)

BASE = {"alpha": 1.0, "beta": 0.2, "lr": 0.1}


def test_a_grid_is_every_combination() -> None:
    found = grid(read_space({"alpha": [0, 1, 2], "beta": [0, 0.1], "arch": {"choice": ["resnet18", "wrn28-10"]}}))
    expected = [
        {"alpha": a, "beta": b, "arch": c}
        for a, b, c in itertools.product([0, 1, 2], [0, 0.1], ["resnet18", "wrn28-10"])
    ]
    assert found == expected


def test_a_grid_has_no_endless_dimension() -> None:
    with pytest.raises(ValueError, match="search grid needs a list of values for beta"):
        grid(read_space({"alpha": [0, 1], "beta": {"uniform": [0, 1]}}))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (3, "must be a list of values"),
        ({"unifrom": [0, 1]}, "no 'unifrom'; did you mean uniform?"),
        ({"uniform": [1, 0]}, "low < high"),
        ({"uniform": [1]}, "two numbers"),
        ({"uniform": ["a", "b"]}, "two numbers"),
        ({"loguniform": [0, 1]}, "0 < low < high"),
        ({"grid": 3}, "wants a list"),
        ([], "wants a list"),
        ([1, 1], "twice"),
        ({"uniform": [0, 1], "grid": [2]}, "must be a list"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_rule(line: object, words: str) -> None:
    with pytest.raises(ValueError, match="x in space") as caught:
        read_space({"x": line})
    assert words in str(caught.value)


def test_all_lines_that_cannot_be_read_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)a in space.*\nb in space"):
        read_space({"a": 1, "b": 2, "c": [3]})


def test_draws_are_inside_and_uniform() -> None:
    space = read_space({"x": {"uniform": [2, 4]}, "y": {"loguniform": [1e-4, 1]}, "z": ["a", "b"]})
    found = draws(space, 2000, seed=0)
    x, y = (np.array([point[name] for point in found]) for name in "xy")
    assert x.min() >= 2
    assert x.max() <= 4
    # Means of uniform variables, to within five standard errors.
    assert abs(x.mean() - 3) < 5 * 2 / math.sqrt(12 * len(x))
    assert abs(np.log10(y).mean() + 2) < 5 * 4 / math.sqrt(12 * len(y))
    assert abs(sum(point["z"] == "a" for point in found) - 1000) < 5 * math.sqrt(500)


def test_more_draws_begin_with_the_same() -> None:
    space = read_space({"x": {"uniform": [0, 1]}, "z": [1, 2, 3]})
    assert draws(space, 20, seed=3)[:7] == draws(space, 7, seed=3)
    assert draws(space, 7, seed=4) != draws(space, 7, seed=3)


def test_draws_never_repeat_and_end_where_there_are_no_more() -> None:
    assert sorted(point["x"] for point in draws([Dimension("x", (1, 2, 3))], 10, seed=0)) == [1, 2, 3]


def test_pgd_at_is_among_the_points_of_bat_for_each_listed_other() -> None:
    space = read_space({"alpha": [1, 2], "lr": [0.1, 0.2]})
    found = with_references(grid(space), space, BASE)
    references = [point for point in found if is_reference(point)]
    assert references == [{"alpha": 0, "beta": 0, "lr": 0.1}, {"alpha": 0, "beta": 0, "lr": 0.2}]
    assert {"alpha": 2, "beta": 0.2, "lr": 0.1} in found  # beta is the base's
    assert len(found) == 6


def test_pgd_at_of_an_endless_other_has_the_bases_value() -> None:
    space = read_space({"alpha": {"uniform": [0, 3]}, "lr": {"loguniform": [0.01, 1]}})
    assert with_references([], space, BASE) == [{"alpha": 0, "beta": 0, "lr": 0.1}]


def test_a_grid_that_holds_pgd_at_holds_it_once() -> None:
    space = read_space({"alpha": [0, 1.0], "beta": [0.0, 0.1]})
    found = with_references(grid(space), space, BASE)
    assert len(found) == 4
    assert sum(map(is_reference, found)) == 1


def test_names_do_not_depend_on_order_or_type() -> None:
    assert point_name({"beta": 0.2, "alpha": 1.0}) == point_name({"alpha": 1, "beta": 0.2}) == "alpha=1,beta=0.2"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the tables of all letters take a while
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["alpha", "hyper", "arch"]),
            st.one_of(
                st.floats(allow_nan=False, allow_infinity=False),
                st.text(max_size=120),
                st.booleans(),
                st.lists(st.text(max_size=40)),
            ),
        ),
        min_size=2,
        max_size=2,
    )
)
def test_names_are_fit_for_folders(points: list[dict]) -> None:
    for point in points:
        name = point_name(point)
        assert len(name) <= 80
        assert "/" not in name
        assert "\0" not in name
        assert name.isprintable()


def test_names_of_different_points_differ() -> None:
    values = ["a/b", "a_b", "a b", "x" * 100, "x" * 101, 1, 1.5, True, False, 0.1, 0.1 + 1e-12, ["a", "b"], "1e3"]
    names = [point_name({"v": value}) for value in values]
    assert len(set(names)) == len(values)


def test_repetition_goes_and_order_stays() -> None:
    points = [{"a": 2}, {"a": 1}, {"a": 2.0}, {"a": 3}]
    assert without_repetition(points) == [{"a": 2}, {"a": 1}, {"a": 3}]
