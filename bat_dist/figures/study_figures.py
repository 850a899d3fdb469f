"""The figures of the studies of Sec. 3 and App. B."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bat_dist.figures.curves import COLORS
from bat_dist.figures.style import SOFT_INK, message_figure, style, titled_figure

Series = tuple[Sequence[float], Sequence[Sequence[float]]]  # epochs, and for each seed a value per epoch


@style()
def curves_with_bands(panels: Mapping[str, Mapping[str, Series]], *, title: str, note: str) -> Figure:
    """Accuracies (fractions) along the epochs: a panel per kind, a line per group, which is the mean over its seeds.

    The band reaches from the lowest seed to the highest. note: n and seeds, below the figure.
    """
    panels = {name: groups for name, groups in panels.items() if groups}
    if not panels:
        return message_figure(title, "No training has finished an epoch.")
    rows = (len(panels) + 1) // 2
    fig = titled_figure(title, 0.9 + 2.7 * rows)
    axes = fig.subplots(rows, min(2, len(panels)), squeeze=False).flatten()
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    styles = ("-", "--", ":", "-.")
    for ax, (name, groups) in zip(axes, panels.items(), strict=False):
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
    handles = axes[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=min(3, len(handles[1])), title=note, title_fontsize=9)
    fig.legends[0].get_title().set_color(SOFT_INK)
    return fig
