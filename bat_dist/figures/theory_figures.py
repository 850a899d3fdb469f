"""Theorems 1 and 2 in pictures: the models of the proof in the plane, and what is needed over eta / sigma."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import NullLocator, PercentFormatter

from bat_dist.figures.curves import COLORS
from bat_dist.figures.style import BLUE, INK, RED, SOFT_INK, message_figure, style, titled_figure

Lines = tuple[Sequence[float], Sequence[float]]  # x, and a value for each
MARKERS, DASHES = "os^Dv", ("-", "--", ":", "-.")
MOST_TICKS = 10
_REGION = "#CC79A7"
_VIEW = (-2.4, 2.1), (-2.1, 2.1)  # in units of eta


class TheoremPanel(NamedTuple):
    """One eta / sigma, in units of eta.

    w, b: models sign(w.x + b). violated: samples for which Theorem 1 is wrong. share: of all that meet its conditions.
    """

    ratio: float
    sigma: float
    closest: float
    w: Float[np.ndarray, "models 2"]
    b: Float[np.ndarray, " models"]
    violated: Float[np.ndarray, "points 2"]
    share: float


@style()
def theorem_regions(panels: Sequence[TheoremPanel], *, note: str) -> Figure:
    """The three models in the proof of Theorem 1, both classes, and the samples for which no model does what it claims.

    note: how exact it is, below the figure.
    """
    title = "Theorem 1: samples x0 of class \N{MINUS SIGN}1 that no linear model fits with 1% error"
    if not panels:
        return message_figure(title, "No eta/sigma was checked.")
    fig = titled_figure(title, 5.1)
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _region(ax, panel)
    axes[0].set_ylabel("x2 (units of eta)")
    by_label = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(
        list(by_label.values()), list(by_label), loc="outside lower center", ncols=3, title=note, title_fontsize=9
    )
    fig.legends[0].get_title().set_color(SOFT_INK)
    return fig


@style()
def by_ratio(needed: Mapping[str, Lines], shares: Mapping[str, Lines], *, note: str) -> Figure:
    """What would be enough, in units of l, and the share of samples for which the claim is wrong, over eta / sigma."""
    fig = titled_figure("Theorems 1 and 2 over eta/sigma", 3.9)
    left, right = fig.subplots(1, 2)
    for ax, lines in ((left, needed), (right, shares)):
        for number, (name, (x, y)) in enumerate(lines.items()):
            look = {"marker": MARKERS[number % len(MARKERS)], "color": COLORS[number % len(COLORS)]}
            ax.plot(x, y, DASHES[number % len(DASHES)], ms=5, label=name, **look)
        ax.set_xscale("log")
        ax.set_xlabel("eta/sigma")
        ratios = sorted({value for x, _ in lines.values() for value in x})
        ax.set_xticks(ratios if len(ratios) <= MOST_TICKS else ratios[:: len(ratios) - 1])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.grid(axis="y")
        ax.set_ylim(bottom=0)
    left.axhline(1, color=SOFT_INK, linewidth=0.8, linestyle=(0, (2, 2)))
    left.set_title("what is enough; asked for: 1 (Theorem 1) and k")
    left.set_ylabel("distance (1), radius (2), in units of l")
    right.set_title("samples for which the claim is wrong")
    right.set_ylabel("share of samples")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    handles = left.get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=min(4, len(handles[1])), title=note, title_fontsize=9)
    fig.legends[0].get_title().set_color(SOFT_INK)
    return fig


def _region(ax: Axes, panel: TheoremPanel) -> None:
    """The plane for one ratio."""
    for sign, color, name in ((-1, BLUE, "\N{MINUS SIGN}1"), (1, RED, "+1")):
        for times in (1, 2, 3):
            label = f"class {name}: 1, 2, 3 sigma" if times == 1 else None
            ax.add_patch(Circle((sign, 0), times * panel.sigma, color=color, alpha=0.16, linewidth=0, label=label))
        ax.text(1.04 * sign, 0, name, color=INK, ha="left" if sign > 0 else "right", va="center")
    reach = np.array([-9.0, 9.0])
    for number, (w, b) in enumerate(zip(panel.w, panel.b, strict=True)):
        along = np.array([-w[1], w[0]])
        line = -b * w[:, None] + along[:, None] * reach
        ax.plot(*line, DASHES[number], color=INK, linewidth=1.2, label=f"model F{number + 1} of the proof")
    circle = {"fill": False, "color": SOFT_INK, "linewidth": 1.0}
    ax.add_patch(Circle((1, 0), panel.closest, linestyle=(0, (1, 1)), label="distance l from class +1", **circle))
    ax.add_patch(Circle((-1, 0), 2, linestyle=(0, (6, 2)), label="distance 2 eta from class \N{MINUS SIGN}1", **circle))
    if len(panel.violated):
        ax.plot(*panel.violated.T, "s", color=_REGION, ms=1.6, mew=0, rasterized=True)
        ax.plot([], [], "s", color=_REGION, ms=7, mew=0, label="x0 that contradict Theorem 1")
    words = f"{100 * panel.share:.2g}% of samples contradict it" if panel.share else "no sample contradicts it"
    ax.set_title(f"eta/sigma = {panel.ratio:g}: {words}")
    ax.set(xlim=_VIEW[0], ylim=_VIEW[1], xlabel="x1 (units of eta)", aspect="equal")
