"""The figures of the studies of Sec. 3 and App. B."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bat_dist.figures.curves import COLORS
from bat_dist.figures.style import (
    BLUE,
    INK,
    RED,
    SOFT_INK,
    legend_below,
    message_figure,
    panel_figure,
    style,
    titled_figure,
)

Series = tuple[Sequence[float], Sequence[Sequence[float]]]  # epochs, and for each seed a value per epoch


@style()
def curves_with_bands(panels: Mapping[str, Mapping[str, Series]], *, title: str, note: str) -> Figure:
    """Accuracies (fractions) along the epochs: a panel per kind, a line per group, which is the mean over its seeds.

    The band reaches from the lowest seed to the highest. note: n and seeds, below the figure.
    """
    panels = {name: groups for name, groups in panels.items() if groups}
    if not panels:
        return message_figure(title, "No training has finished an epoch.")
    fig, axes = panel_figure(title, len(panels), height=0.9, row=2.7)
    styles = ("-", "--", ":", "-.")
    for ax, (name, groups) in zip(axes, panels.items(), strict=True):
        for number, (label, (epochs, values)) in enumerate(groups.items()):
            color, over_seeds = COLORS[number % len(COLORS)], np.asarray(values, float)
            ax.plot(epochs, over_seeds.mean(axis=0), styles[number % len(styles)], color=color, label=label)
            ax.fill_between(
                epochs, over_seeds.min(axis=0), over_seeds.max(axis=0), color=color, alpha=0.18, linewidth=0
            )
        ax.set_title(name)
        ax.grid(axis="y")
        ax.set_ylim(bottom=0 if ax.get_ylim()[0] < 0.3 else None)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_xlabel("epoch")
        ax.set_ylabel("accuracy")
    legend_below(fig, axes[0], note=note, columns=3)
    return fig


class Estimate(NamedTuple):
    """A share, the bounds of its 95% interval, and the images behind it."""

    share: float
    low: float
    high: float
    n: int


@style()
def human_labels(
    by_answer: Mapping[str, Mapping[str, Estimate]], by_mem: Mapping[str, Estimate], *, note: str
) -> Figure:
    """What people call samples.  Left: shares of their labels, for sets of samples; right: how many differ, by mem.

    by_answer: by set (a series) and by what the label is (a place on the axis). by_mem: by a range of mem.
    """
    fig = titled_figure("Labels that people gave to training samples", 3.7)
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.15))
    for number, (name, shares) in enumerate(by_answer.items()):
        shift = 0.16 * (2 * number - len(by_answer) + 1)
        label = f"{name}, {next(iter(shares.values())).n:,} images"
        _points(left, shares, shift, color=(RED, BLUE)[number % 2], marker="os"[number % 2], label=label)
    left.set(title="by poisoning score", ylabel="share of people's labels")
    left.set_xlabel("label (y1: the given class, y2: the network's)")
    _points(right, by_mem, 0, color=INK, marker="D", label="")
    right.set_xticks(range(len(by_mem)), [f"{name}\nn = {one.n:,}" for name, one in by_mem.items()], fontsize=8)
    right.set(title="that differ from the given label, by memorization", xlabel="mem value")
    for ax in (left, right):
        ax.grid(axis="y")
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles = left.get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=2, title=note, title_fontsize=9)
    fig.legends[0].get_title().set_color(SOFT_INK)
    return fig


@style()
def estimates(
    panels: Mapping[str, Mapping[str, Estimate]], *, title: str, note: str, marks: Mapping[str, float]
) -> Figure:
    """A panel for each quantity: its estimates as points with their intervals, one below the other.

    The names are written once for panels beside each other that have the same ones.
    marks: a value that a panel marks by a dashed line. note: below the figure. Undefined estimates have no point.
    """
    number = max((len(panel) for panel in panels.values()), default=0)
    if not number:
        return message_figure(title, "There is no score to compare.")
    fig, named = titled_figure(title, 1.3 + 0.32 * number), list[str]()
    for ax, (name, found) in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        values = list(found.values())
        reach = np.array([(one.share - one.low, one.high - one.share) for one in values]).reshape(-1, 2).T
        ax.errorbar(
            [one.share for one in values], range(len(values)), xerr=np.fmax(0, reach), fmt="o", color=BLUE, capsize=3
        )
        if name in marks:
            ax.axvline(marks[name], color=RED, linewidth=1.2, linestyle=(0, (4, 2)))
        ax.set_yticks(range(len(values)), list(found) if list(found) != named else [""] * len(found), fontsize=8)
        named = list(found)
        ax.set_ylim(number - 0.5, -0.5)
        ax.set_title(name, fontsize=9)
        ax.grid(axis="x")
    fig.supxlabel(note, fontsize=9, color=SOFT_INK)
    return fig


def _points(ax: Axes, shares: Mapping[str, Estimate], shift: float, *, color: str, marker: str, label: str) -> None:
    """Each share as a point with its interval, in its place on the axis, moved by `shift`."""
    values = list(shares.values())
    reach = np.array([(one.share - one.low, one.high - one.share) for one in values]).reshape(-1, 2).T
    places = np.arange(len(values)) + shift
    ax.errorbar(
        places, [one.share for one in values], reach, fmt=marker, color=color, capsize=3, label=label, clip_on=False
    )
    ax.set_xticks(range(len(values)), list(shares))
    ax.set_xlim(-0.6, len(values) - 0.4)
