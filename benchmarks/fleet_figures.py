"""Figures of `fleet_study`: what preemption costs, and what settings of the autoscaler cost."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bat_dist.figures.curves import COLORS
from bat_dist.figures.style import SOFT_INK, legend_below, panel_figure, style
from benchmarks.preemptible_fleet import MINUTE, attempts_seconds

MARKERS = "os^Dv"
UNLABELLED = (84, 200)  # numbers of machines, too close to others


class Interval(NamedTuple):
    """A quantity over the repetitions: mean and the bounds of the central 95%."""

    mean: float
    low: float
    high: float


class Line(NamedTuple):
    """A quantity by the value of what varies."""

    values: Sequence[float]
    intervals: Sequence[Interval]


@style()
def length_and_rate(
    lost: Mapping[float, Line], paid: Mapping[float, Line], *, expected: Mapping[float, Sequence[float]], note: str
) -> Figure:
    """Work lost in percent, and machine-hours paid over useful ones, by the minutes of a trial; a line for each rate.

    expected: by rate, the percent that the closed form gives at the same minutes, drawn dashed.
    """
    fig, (left, right) = panel_figure("Work lost to preemption, and what is paid", 2, height=1.2, row=3.1)
    for number, (rate, line) in enumerate(lost.items()):
        if rate:
            _points(left, line, number, f"{rate:g}", joined=False)
            left.plot(line.values, expected[rate][: len(line.values)], ls="--", lw=1, color=COLORS[number])
    for number, (rate, line) in enumerate(paid.items()):
        _points(right, line, number, f"{rate:g}")
    for ax, title in ((left, "work lost, % of the useful work"), (right, "machine-hours paid over useful ones")):
        ax.set_title(title)
        ax.set_xlabel("minutes of a trial")
        _log_axis(ax.xaxis, ax, "x", next(iter(lost.values())).values)
    _log_axis(left.yaxis, left, "y", (0.01, 0.1, 1, 10, 100))
    left.set_ylim(bottom=0.008)  # runs that lose nothing are below
    _log_axis(right.yaxis, right, "y", (1, 1.5, 2, 3, 5, 10, 15))
    legend_below(fig, right, note=note, columns=6)
    return fig


@style()
def settings_of_the_autoscaler(
    panels: Mapping[str, tuple[str, Mapping[str, Line]]], *, useful: float, note: str
) -> Figure:
    """A panel for each title: the label of its horizontal axis, and lines by name; vertical axes begin at 0.

    useful: machine-hours of the trials alone, drawn where a title begins with machine-hours.
    """
    fig, axes = panel_figure("What a fleet takes, by its settings", len(panels), height=0.9, row=2.5)
    for ax, (title, (label, lines)) in zip(axes, panels.items(), strict=True):
        for number, (name, line) in enumerate(lines.items()):
            _points(ax, line, number, name)
        ax.set_title(title)
        ax.set_xlabel(label)
        _log_axis(ax.xaxis, ax, "x", [value for value in next(iter(lines.values())).values if value not in UNLABELLED])
        if title.startswith("machine-hours"):
            ax.axhline(useful, color=SOFT_INK, lw=0.9, ls=(0, (2, 2)))
        ax.set_ylim(bottom=0)
        ax.grid(axis="y")
        if len(lines) > 1:
            ax.legend()
    fig.supxlabel(note, fontsize=9, color=SOFT_INK)
    return fig


def lost_percent(minutes: float, preemptions_per_hour: float) -> float:
    """Expected work on attempts that were cut off, in percent of a trial that begins anew after each preemption."""
    return 100 * (attempts_seconds(minutes * MINUTE, preemptions_per_hour) / (minutes * MINUTE) - 1)


def _points(ax: Axes, line: Line, number: int, name: str, *, joined: bool = True) -> None:
    """The means with their intervals."""
    means = np.array([one.mean for one in line.intervals])
    below = means - [one.low for one in line.intervals]
    above = [one.high for one in line.intervals] - means
    ax.errorbar(
        line.values,
        means,
        yerr=np.maximum(0, [below, above]),
        marker=MARKERS[number % len(MARKERS)],
        ms=4,
        ls="-" if joined else "",
        lw=1.2,
        elinewidth=0.9,
        capsize=2,
        color=COLORS[number % len(COLORS)],
        label=name,
    )


def _log_axis(axis: Any, ax: Axes, which: str, ticks: Sequence[float]) -> None:
    """A log scale with these ticks, in plain numbers."""
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())
    if which == "y":
        ax.grid(axis="y")
