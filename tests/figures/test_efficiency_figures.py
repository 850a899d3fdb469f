"""Curves and needed trials as they are drawn."""

import math

import numpy as np
from matplotlib.axes import Axes

from bat_dist.figures.efficiency_figures import AgreementCurve, NeededTrials, agreement_over_trials, needed_trials

MEANS, OTHER = "difference of means", "shrunk"


def markers(ax: Axes) -> list[tuple[str, float]]:
    return [
        (str(line.get_marker()), float(np.ravel(line.get_xdata())[0]))
        for line in ax.lines
        if line.get_marker() not in ("None", None)
    ]


def test_each_estimator_is_a_line_with_its_medians_and_one_has_a_band() -> None:
    curves = {
        MEANS: AgreementCurve([25, 50], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7]),
        OTHER: AgreementCurve([25, 50], [0.7, 0.8], [0.6, 0.7], [0.8, 0.9]),
    }
    figure = agreement_over_trials({"one": curves, "two": curves}, title="", note="20 repetitions", band=MEANS)
    for ax in figure.axes:
        drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in ax.lines}
        assert drawn == {MEANS: [0.5, 0.6], OTHER: [0.7, 0.8]}
        assert len({line.get_color() for line in ax.lines}) == len({str(line.get_marker()) for line in ax.lines}) == 2
        assert len(ax.collections) == 1
        assert [label.get_text() for label in ax.get_xticklabels()] == ["25", "50"]
    assert figure.legends[0].get_title().get_text() == "20 repetitions"


def test_no_two_of_many_estimators_look_alike() -> None:
    curves = {
        f"estimator {number}": AgreementCurve([25, 50], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7]) for number in range(10)
    }
    (ax,) = agreement_over_trials({"one": curves}, title="", note="", band=MEANS).axes
    assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 10


def test_what_is_not_reached_is_an_arrow_beyond_the_largest() -> None:
    needed = {OTHER: NeededTrials(0.5, 0.4, 0.6), "masks": NeededTrials(math.inf, 0.9, math.inf)}
    figure = needed_trials({"one": needed}, largest=1.0, title="", note="")
    (ax,) = figure.axes
    assert markers(ax) == [("o", 0.5), (">", 1.25)]
    assert [label.get_text() for label in ax.get_yticklabels()] == [OTHER, "masks"]
    assert len(ax.texts) == 1  # the arrow
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first estimator is above
