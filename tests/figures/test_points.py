from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from bat_dist.figures.points import MOST_CLASSES, Panel, Projection, points_by_category, projections

Look = Callable[[Figure], list[str]]
SERIES = {
    "PGD-AT": {"0%": [0.5, 0.7], "100%": [0.4, 0.2], "random\nout": [0.3, 0.3]},
    "ERM": {"0%": [0.9, 0.8], "100%": [0.8, 0.8], "random\nout": [np.nan, np.nan]},
}


def picture(panels: list[Panel]) -> Figure:
    return points_by_category(panels, title="Accuracies", xlabel="share", note="tinynet on digits, 2 seeds")


def test_every_seed_is_a_point_and_the_line_is_their_mean(visible_texts: Look) -> None:
    fig = picture([Panel("all, n = 5", "accuracy", SERIES, percent=True), Panel("few", "silhouette", SERIES)])
    texts = visible_texts(fig)
    assert {"PGD-AT", "ERM", "0%", "100%", "random\nout", "accuracy", "silhouette"} <= set(texts)
    assert "tinynet on digits, 2 seeds" in texts
    ax = fig.axes[0]
    drawn = [np.asarray(line.get_ydata(), float) for line in ax.lines if len(np.asarray(line.get_xdata()))]
    expected = [values for groups in SERIES.values() for of in groups.values() for values in (of, [np.mean(of)] * 2)]
    assert len(drawn) == len(expected)
    for one, other in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(one, other)
    x = [float(np.mean(np.asarray(line.get_xdata(), float))) for line in ax.lines[:2]]
    assert x == pytest.approx([-0.11, -0.11])  # the first of two series, left of its category


@pytest.mark.parametrize("value", [1.0, 0.98])
def test_no_share_above_all_of_them_is_on_the_axis(value: float) -> None:
    (ax,) = picture([Panel("covered", "share", {"ERM": {"0%": [value, value, 1.0]}}, percent=True)]).axes
    bottom, top = ax.get_ylim()
    assert bottom < value <= 1 < top
    assert all(tick <= 1 for tick in ax.get_yticks() if bottom <= tick <= top)


@pytest.mark.parametrize("number", [1, 3, 6])
def test_nothing_is_cut_off_with_any_number_of_panels(visible_texts: Look, number: int) -> None:
    texts = visible_texts(picture([Panel(f"panel {n}", "accuracy", SERIES) for n in range(number)]))
    assert [text for text in texts if text.startswith("panel")] == [f"panel {n}" for n in range(number)]


def test_nothing_to_draw_is_said(visible_texts: Look) -> None:
    assert "There is no value to draw." in visible_texts(picture([Panel("a", "b", {"clean": {}})]))


def plane(num_classes: int, names: list[str]) -> Figure:
    labels = np.repeat(np.arange(num_classes), np.arange(num_classes, 0, -1))  # the first class is the largest
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    panels = [Projection(f"{share}%", points, np.array([0.5, 0.25])) for share in (0, 20, 100)]
    return projections(panels, labels, names, title="Features", note="seed 0")


def test_a_class_has_a_look_of_its_own_in_all_panels(visible_texts: Look) -> None:
    fig = plane(10, [f"class {n}" for n in range(10)])
    texts = visible_texts(fig)
    assert {"component 1 (50%)", "component 2 (25%)", "seed 0", "class 0", "class 9"} <= set(texts)
    looks = [[(line.get_color(), line.get_marker()) for line in ax.lines] for ax in fig.axes]
    assert looks[0] == looks[1] == looks[2]
    assert len(set(looks[0])) == 10
    assert [len(np.asarray(line.get_xdata())) for line in fig.axes[0].lines] == list(range(10, 0, -1))


def test_of_many_classes_the_largest_are_drawn_and_it_is_said(visible_texts: Look) -> None:
    fig = plane(30, [f"a long name of class {n}" for n in range(30)])
    assert "seed 0; the 10 largest of 30 classes" in visible_texts(fig)
    assert len(fig.axes[0].lines) == MOST_CLASSES
