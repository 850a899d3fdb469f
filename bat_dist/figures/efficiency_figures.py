"""How estimates agree with a long reference over the number of trials, and how many trials each estimator needs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from bat_dist.figures.curves import COLORS
from bat_dist.figures.style import BLUE, SOFT_INK, legend_below, panel_figure, style

MARKERS, DASHES = "osD^vPX", ("-", "--", ":", "-.", (0, (4, 1, 1, 1, 1, 1)), (0, (6, 2)), (0, (1, 2)))
COLUMNS = 3  # of the legend


class AgreementCurve(NamedTuple):
    """One estimator: at each number of trials the median of the repetitions and bounds of their central part."""

    num_trials: Sequence[int]
    median: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class NeededTrials(NamedTuple):
    """Trials of one estimator as shares of those of the difference of means: median and bounds; inf is never."""

    median: float
    low: float
    high: float


@style()
def agreement_over_trials(
    panels: Mapping[str, Mapping[str, AgreementCurve]], *, title: str, note: str, band: str
) -> Figure:
    """A panel for each measure of agreement, a line for each estimator; the band is that of the estimator `band`.

    note: samples, repetitions and the reference, below the figure.
    """
    fig, axes = panel_figure(title, len(panels), height=1.3, row=2.7)
    looks = _looks(panels)
    for ax, (measure, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            color, marker, dashes = looks[name]
            ax.plot(curve.num_trials, curve.median, ls=dashes, marker=marker, ms=4, lw=1.4, color=color, label=name)
            if name == band:
                ax.fill_between(curve.num_trials, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
        ax.set_title(measure)
        ax.grid(axis="y")
        _trials_axis(ax, sorted({size for curve in curves.values() for size in curve.num_trials}))
        ax.set_xlabel("trials")
    legend_below(fig, axes[0], note=note, columns=COLUMNS)
    return fig


@style()
def needed_trials(panels: Mapping[str, Mapping[str, NeededTrials]], *, largest: float, title: str, note: str) -> Figure:
    """A panel for each measure, a row for each estimator: its trials over those of the difference of means (log scale).

    largest: the largest share that could be seen; what is not reached by then is drawn beyond it, with an arrow.
    """
    rows = max(map(len, panels.values()))
    smallest = min(one.low for estimators in panels.values() for one in estimators.values())
    ticks = (0.05, 0.1, 0.2, 0.5, 1, 2, 5) if smallest < 0.4 else (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.5, 2)
    fig, axes = panel_figure(title, len(panels), height=0.9, row=1.0 + 0.24 * rows)
    edge = 1.25 * largest
    for number, (ax, (measure, estimators)) in enumerate(zip(axes, panels.items(), strict=True)):
        for row, one in enumerate(estimators.values()):
            low, median, high = (min(value, edge) for value in (one.low, one.median, one.high))
            ax.plot([low, high], [row, row], color=BLUE, lw=1.6, solid_capstyle="butt")
            ax.plot(median, row, ">" if math.isinf(one.median) else "o", color=BLUE, ms=6)
            if math.isinf(one.high):
                ax.annotate("", (edge * 1.06, row), (edge, row), arrowprops={"arrowstyle": "->", "color": BLUE})
        ax.axvline(1, color=SOFT_INK, lw=0.9, ls=(0, (2, 2)))
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(lambda share, _: f"{share:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(0.95 * min(smallest, 1), edge * 1.08)
        ax.set_yticks(range(len(estimators)), list(estimators) if number % 2 == 0 else [""] * len(estimators))
        ax.set_ylim(len(estimators) - 0.5, -0.5)
        ax.grid(axis="x")
        ax.set_title(measure)
    fig.supxlabel(note, fontsize=9, color=SOFT_INK)
    return fig


def _looks(panels: Mapping[str, Mapping[str, Any]]) -> Mapping[str, tuple[str, str, Any]]:
    """Colour, marker and dashes of each name, no two alike; the same in all panels."""
    names = dict.fromkeys(name for curves in panels.values() for name in curves)
    looks = {}
    for at, name in enumerate(names):
        again = at // len(COLORS)  # a colour that comes again has the next marker and the next dashes
        looks[name] = COLORS[at % len(COLORS)], MARKERS[(at + again) % len(MARKERS)], DASHES[(at + again) % len(DASHES)]
    return looks


def _trials_axis(ax: Axes, sizes: Sequence[int]) -> None:
    """Numbers of trials on a log scale, each where there is one."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{size:,}" for size in sizes]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", labelsize=8)
