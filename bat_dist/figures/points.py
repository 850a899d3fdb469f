"""Charts with a point for each seed, and features in the plane."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bat_dist.figures.curves import COLORS
from bat_dist.figures.style import (
    SOFT_INK,
    WIDTH,
    fit,
    legend_below,
    message_figure,
    panel_figure,
    style,
    titled_figure,
)

MARKERS = "os^Dv"
MOST_CLASSES = 10  # of a projection: more colours and markers could not be told apart
_APART = 0.22  # of series at one category


class Panel(NamedTuple):
    """A panel of `points_by_category`.  series: for each line of the legend, by category, a value of each seed."""

    title: str
    ylabel: str
    series: Mapping[str, Mapping[str, Sequence[float]]]
    percent: bool = False


class Projection(NamedTuple):
    """Samples in the plane of two principal components.  explained: the share of the variance in each."""

    title: str
    points: Float[np.ndarray, "samples 2"]
    explained: Float[np.ndarray, "2"]


@style()
def points_by_category(panels: Sequence[Panel], *, title: str, xlabel: str, note: str) -> Figure:
    """A point for each seed and a line at their mean, by category; two panels in a row.

    note: n and seeds, below the figure.
    """
    panels = [panel for panel in panels if any(panel.series.values())]
    if not panels:
        return message_figure(title, "There is no value to draw.")
    fig, axes = panel_figure(title, len(panels), height=1.1, row=2.5)
    for ax, panel in zip(axes, panels, strict=True):
        _points(ax, panel)
    for ax in axes[-2:]:
        ax.set_xlabel(xlabel)
    legend_below(fig, axes[0], note=note, columns=4)
    return fig


@style()
def projections(
    panels: Sequence[Projection],
    labels: Int[np.ndarray, " samples"],
    class_names: Sequence[str],
    *,
    title: str,
    note: str,
) -> Figure:
    """Samples in the plane, beside each other for several networks; a colour and a marker for each class.

    Of more than ten classes the ten largest are drawn, which the note then says. note: what is drawn, below.
    """
    size = np.bincount(labels, minlength=len(class_names))
    largest = np.argsort(-size, kind="stable")[:MOST_CLASSES]
    drawn = np.sort(largest[size[largest] > 0])
    if not len(drawn):
        return message_figure(title, "There is no sample to draw.")
    fig = titled_figure(title, 4.0)
    for ax, panel in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, label in enumerate(drawn):
            look = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
            x, y = panel.points[labels == label].T
            ax.plot(
                x, y, linestyle="", ms=3.5, mew=0, alpha=0.75, label=fit(class_names[label], WIDTH / 8.5, 9), **look
            )
        ax.set_title(panel.title)
        first, second = (
            f"component {n} ({100 * share:.0f}%)" for n, share in zip((1, 2), panel.explained, strict=True)
        )
        ax.set(xlabel=first, ylabel=second, xticks=[], yticks=[])
        ax.set_aspect("equal", adjustable="datalim")
    if np.count_nonzero(size) > len(drawn):
        note += f"; the {len(drawn)} largest of {np.count_nonzero(size)} classes"
    handles = fig.axes[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=min(5, len(drawn)), title=note, title_fontsize=9)
    fig.legends[0].get_title().set_color(SOFT_INK)
    return fig


def _points(ax: Axes, panel: Panel) -> None:
    categories = list(dict.fromkeys(name for groups in panel.series.values() for name in groups))
    middle = (len(panel.series) - 1) / 2
    for number, (name, groups) in enumerate(panel.series.items()):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        for category, values in groups.items():
            x = categories.index(category) + (number - middle) * _APART
            ax.plot([x] * len(values), values, marker, color=color, ms=4, mew=0, alpha=0.75)
            mean = float(np.mean(values))
            ax.plot([x - 0.09, x + 0.09], [mean, mean], color=color, linewidth=1.6)
        ax.plot([], [], marker, linestyle="-", color=color, ms=4, label=name)
    ax.set_xticks(range(len(categories)), categories)
    ax.set_xlim(-0.6, len(categories) - 0.4)
    ax.set_title(panel.title)
    ax.set_ylabel(panel.ylabel)
    ax.grid(axis="y")
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if panel.percent:
        low, high = ax.get_ylim()
        ax.set_ylim(top=min(high, 1 + 0.05 * (1 - low)))  # no share is larger than 1
        ax.yaxis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g}%")
