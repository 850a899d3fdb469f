"""Charts: memorization values (the paper's Fig. 6), accuracies of the trials, agreement of cheaper scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from bat_dist.figures.style import (
    BLUE,
    DENSITY,
    GREEN,
    GREY,
    INK,
    RED,
    SOFT_INK,
    WIDTH,
    fit,
    message_figure,
    style,
    titled_figure,
)
from bat_dist.memorization.stopping import Look

BIN = 0.05
FEW = 300  # samples that are drawn as points


@style()
def memorization_histogram(
    mem: Float[np.ndarray, " samples"],
    *,
    num_trials: int,
    dataset: str,
    thresholds: tuple[float, float] = (0.02, 0.15),
) -> Figure:
    """The paper's Fig. 6: how many samples have which memorization, and how many lie above any value.

    Typical: mem < thresholds[0]; atypical: mem > thresholds[1]. Shares are of the samples whose value is
    defined; the undefined (NaN) are counted in the figure. Left as in the paper, on a linear axis; right what
    that axis hides where most values are near 0: the share above each value from thresholds[0] on.
    """
    defined = mem[np.isfinite(mem)]
    title = f"{dataset}: memorization of {len(mem):,} training samples, {_trials(num_trials)}"
    if len(defined) == 0:
        return message_figure(title, f"No value is defined: {len(mem):,} undefined (NaN).")
    fig = _titled(title, height=3.8)
    left, right = fig.subplots(1, 2, width_ratios=(1.15, 1))
    typical, atypical = defined < thresholds[0], defined > thresholds[1]
    groups = {
        f"typical, mem < {thresholds[0]:g}": (BLUE, typical),
        "between": (GREY, ~typical & ~atypical),
        f"atypical, mem > {thresholds[1]:g}": (RED, atypical),
    }
    _stacked_shares(left, defined, groups)
    _share_above(right, defined, thresholds)
    for ax in (left, right):
        for threshold in thresholds:
            ax.axvline(threshold, color=SOFT_INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)
    handles, _ = left.get_legend_handles_labels()
    undefined = len(mem) - len(defined)
    if undefined:
        left.set_xlabel(f"mem value; {undefined:,} undefined (NaN), not drawn")
    fig.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1, columnspacing=3)
    return fig


@style()
def accuracy_by_trial(
    train_accuracy_in: Float[np.ndarray, " trials"],
    train_accuracy_out: Float[np.ndarray, " trials"],
    test_accuracy: Float[np.ndarray, " trials"],
    *,
    dataset: str,
) -> Figure:
    """Accuracy (fractions) of each trial on the samples it trained on, those left out, and the test set.

    A sanity check: left-out and test samples are equally new to a model, so the lower two should agree; the
    gap between the upper two is the average memorization.
    """
    rows = [("trained on", train_accuracy_in), ("left out", train_accuracy_out), ("test set", test_accuracy)]
    rows = [(name, values[np.isfinite(values)].astype(np.float64)) for name, values in rows]
    title = f"{dataset}: accuracy of {_trials(len(train_accuracy_in))}"
    if not any(len(values) for _, values in rows):
        return message_figure(title, "No trial is complete.")
    fig = _titled(title, height=2.9)
    ax = fig.subplots()
    for y, ((_, values), color) in enumerate(zip(rows, (RED, BLUE, GREEN), strict=True)):
        if not len(values):
            continue
        # Spread over a band by the golden ratio: evenly, and the same every time.
        places = y + (np.arange(len(values)) * 0.6180339887 % 1 - 0.5) * 0.5
        alpha = float(np.clip(60 / len(values), 0.15, 0.8))
        ax.plot(values, places, "o", color=color, ms=3.5, mew=0, alpha=alpha)
        mean, deviation = values.mean(), values.std()
        ax.errorbar(mean, y, xerr=deviation, fmt="D", color=INK, ms=5, mec="white", capsize=4, elinewidth=1.6)
    means = [_share(values.mean()) if len(values) else "n/a" for _, values in rows]
    spreads = [f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else "" for _, values in rows]
    ax.set_yticks(
        range(3), [f"{row[0]}\n{mean}{spread}" for row, mean, spread in zip(rows, means, spreads, strict=True)]
    )
    ax.set_ylim(2.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(_percent)
    ax.set_xlabel("accuracy; one point per trial, bar: mean ± one standard deviation")
    if len(rows[0][1]) and len(rows[1][1]):
        gap = 100 * (rows[0][1].mean() - rows[1][1].mean())
        ax.set_title(f"trained on minus left out: {gap:.1f} points".replace("-", "\N{MINUS SIGN}"))
    return fig


@style()
def undecided_by_trials(looks: Sequence[Look], *, dataset: str, sigma: float, goal: str) -> Figure:
    """What the first trials say of mem > sigma, by their number: shares of the samples, and how exact mem is.

    goal: what ended the run, in words.
    """
    title = f"{dataset}: what {_trials(looks[-1].num_trials)} decide"
    fig = _titled(title, height=3.6)
    left, right = fig.subplots(1, 2, width_ratios=(1.15, 1))
    trials = [look.num_trials for look in looks]
    shares = [[getattr(look, name) for look in looks] for name in ("above", "undecided", "below")]
    ends = [_share(share[-1]) for share in shares]
    labels = (f"mem > {sigma:g}: {ends[0]}", f"undecided: {ends[1]}", f"not above: {ends[2]}")
    left.stackplot(trials, shares, labels=labels, colors=(RED, GREY, BLUE))
    left.set(title="share of samples", xlabel="trials", xlim=(0, trials[-1]))
    _share_axis(left, 1.0)
    right.plot(trials, [look.median_width for look in looks], ".-", color=INK, label="median width of an interval")
    right.plot(trials, [look.reliability for look in looks], ".--", color=GREEN, label="reliability")
    right.set(title="how exact mem is", xlabel="trials", xlim=(0, trials[-1]), ylim=(0, None))
    right.grid(axis="y")
    handles = [axes.get_legend_handles_labels() for axes in (left, right)]
    fig.legend(
        *(a + b for a, b in zip(*handles, strict=True)), loc="outside lower center", ncols=3, title=f"goal: {goal}"
    )
    return fig


@style()
def alignment_scatter(
    score: Float[np.ndarray, " samples"],
    mem: Float[np.ndarray, " samples"],
    *,
    score_name: str,
    spearman: float,
    spearman_interval: tuple[float, float],
    auroc: float,
    atypical_threshold: float = 0.15,
    note: str = "",
) -> Figure:
    """A cheaper score against memorization: the rank correlation, and how well the score finds the atypical.

    Draws the samples for which both are defined; the statistics are the caller's, an undefined one reads n/a.
    note: what they are based on, below the figure.
    """
    both = np.isfinite(score) & np.isfinite(mem)
    title = f"{score_name[:1].upper()}{score_name[1:]} against memorization, {both.sum():,} samples"
    if not both.any():
        return message_figure(title, "No sample has both values.")
    fig = _titled(title, height=4.2)
    ax = fig.subplots()
    _density(fig, ax, score[both], mem[both])
    ax.axhline(atypical_threshold, color=RED, linewidth=1.2, linestyle=(0, (4, 2)))
    ax.set_xlabel(fit(score_name, WIDTH * 0.7, 9.5))
    ax.set_ylabel("mem value")
    if note:
        fig.supxlabel(note, fontsize=9, color=SOFT_INK)
    low, high = (_number(bound) for bound in spearman_interval)
    ax.set_title(
        f"Spearman {_number(spearman)} [{low}, {high}]   ·   "
        f"AUROC for mem > {atypical_threshold:g} (dashed): {_number(auroc)}"
    )
    return fig


def bin_edges(defined: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " edges"]:
    """Edges of bins of 0.05 that hold all values, and reach from 0 to 1 at least; the last holds its upper edge too."""
    first, last = (int(f(v / BIN)) for f, v in ((np.floor, defined.min()), (np.ceil, defined.max())))
    return np.round(np.arange(min(first, 0), max(last, round(1 / BIN)) + 1) * BIN, 10)  # 0.15, not 0.15000000000000002


def _titled(title: str, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.06)
    return titled_figure(title, height, layout=layout, x=0.012)


def _stacked_shares(
    ax: Axes, defined: Float[np.ndarray, " samples"], groups: Mapping[str, tuple[str, Bool[np.ndarray, " samples"]]]
) -> None:
    """Bars of 0.05; a bar that a threshold cuts has a part in each group's colour.  groups: colour and members."""
    edges = bin_edges(defined)
    base = np.zeros(len(edges) - 1)
    for name, (color, members) in groups.items():
        label = f"{name}\n{_share(members.mean())} ({members.sum():,})"
        share = np.histogram(defined[members], edges)[0] / len(defined)
        ax.bar(edges[:-1], share, BIN, base, align="edge", color=color, label=label, ec="white", linewidth=0.5)
        base += share
    _share_axis(ax, base.max() * 1.08)
    ax.set(title=f"share of samples per bin of {BIN:g}", xlabel="mem value")


def _share_above(ax: Axes, defined: Float[np.ndarray, " samples"], thresholds: tuple[float, float]) -> None:
    """The share of samples strictly above each value, with both thresholds marked."""
    ordered = np.sort(defined)
    grid = np.linspace(thresholds[0], max(1.0, ordered[-1]), 601)
    ax.plot(grid, _above(ordered, grid), color=INK)
    for threshold, color in zip(thresholds, (BLUE, RED), strict=True):
        share = float(_above(ordered, threshold))
        label = f"{_share(share)} above {threshold:g}"
        ax.plot(threshold, share, "o", color=color, ms=6.5, mec="white", label=label, clip_on=False)
    ax.legend(loc="upper right", handlelength=1, frameon=True, edgecolor="none", framealpha=1)
    ax.set_xlim(0, grid[-1] * 1.02)
    highest = max(float(_above(ordered, thresholds[0])), 0.01)
    _share_axis(ax, 1.35 * highest)  # room for the legend above a curve that only falls
    ax.set(title="share of samples above a value", xlabel="mem value")


def _above(ordered: Float[np.ndarray, " samples"], x):
    return 1 - np.searchsorted(ordered, x, side="right") / len(ordered)


def _share_axis(ax: Axes, top: float) -> None:
    """A y axis of shares up to `top`, with no tick above 100%."""
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top)
    ax.set_yticks([tick for tick in ticks if 0 <= tick <= min(top, 1)])
    ax.set_ylim(0, top)
    ax.grid(axis="y")
    ax.yaxis.set_major_formatter(_percent)


def _density(fig: Figure, ax: Axes, x: Float[np.ndarray, " samples"], y: Float[np.ndarray, " samples"]) -> None:
    """Points while they can be told apart, else counts in hexagonal cells on a logarithmic scale."""
    if len(x) < FEW:
        ax.plot(x, y, "o", color=BLUE, ms=4.5, mew=0, alpha=0.6)
        return
    columns = int(np.clip(np.sqrt(len(x)), 16, 48))
    rows = round(columns * 0.3)  # cells about as high as wide on this axis
    cells = ax.hexbin(x, y, gridsize=(columns, rows), mincnt=1, cmap=DENSITY, linewidths=0.2)
    cells.set_norm(LogNorm(1, max(float(np.max(np.asarray(cells.get_array()))), 10)))
    ax.margins(0.8 / columns, 0.8 / rows)  # the cells at the border whole
    bar = fig.colorbar(cells, ax=ax, pad=0.02, label="samples in a cell")
    bar.ax.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    bar.ax.yaxis.set_minor_formatter(lambda count, _: "")
    bar.outline.set_visible(False)


def _trials(num: int) -> str:
    return f"{num:,} trial{'s' * (num != 1)}"


def _percent(share: float, _: float) -> str:
    return f"{100 * share:g}%"


def _share(share: float) -> str:
    return f"{100 * share:.1f}%"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "n/a"
