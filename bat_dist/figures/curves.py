"""Training curves: validation accuracy by epoch, of one run or of several beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bat_dist.figures.style import BLUE, GREEN, INK, RED, SOFT_INK, message_figure, panel_figure, style

History = Sequence[Mapping[str, Any]]

# Okabe and Ito's, the two that read worst on white last; then dashed.
COLORS = (BLUE, RED, GREEN, "#CC79A7", INK, "#56B4E9", "#E69F00")
PANELS = {
    "val_clean": "clean",
    "val_pgd": "PGD",
    "val_pgd_typical": "PGD, typical samples",
    "val_pgd_atypical": "PGD, atypical samples",
}


@style()
def training_curves(histories: Mapping[str, History], *, title: str, num_val: int) -> Figure:
    """Accuracies on the validation split by epoch, a panel per kind, a line per run (name -> rows of its history).

    num_val: samples in the split, from which follows the standard error that is written below.
    """
    drawn = {name: rows for name, rows in histories.items() if rows}
    panels = [key for key in PANELS if any(row.get(key) is not None for rows in drawn.values() for row in rows)]
    if not panels:
        return message_figure(title, "No epoch is finished.")
    fig, axes = panel_figure(title, len(panels), height=0.9, row=2.6)
    for ax, key in zip(axes, panels, strict=True):
        _panel(ax, key, drawn)
    note = (
        f"{num_val:,} validation samples: the standard error of an accuracy of 50% is {50 / num_val**0.5:.1f} points, "
        "more on a part of them"
    )
    if len(drawn) == 1:
        fig.supxlabel(note, fontsize=9, color=SOFT_INK)
    else:
        handles = axes[0].get_legend_handles_labels()
        fig.legend(*handles, loc="outside lower center", ncols=min(6, len(drawn)), title=note, title_fontsize=9)
    return fig


def _panel(ax: Axes, key: str, histories: Mapping[str, History]) -> None:
    for number, (name, rows) in enumerate(histories.items()):
        values = [np.nan if row.get(key) is None else row[key] for row in rows]
        dashes = "-" if number < len(COLORS) else "--"
        ax.plot([row["epoch"] for row in rows], values, dashes, color=COLORS[number % len(COLORS)], label=name)
    ax.set_title(PANELS[key])
    ax.grid(axis="y")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_xlabel("epoch")
