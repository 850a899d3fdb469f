"""Figures of a sweep: the two surfaces of the paper's Fig. 4 as heat maps, and clean against robust accuracy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from bat_dist.figures.style import BLUE, GREY, INK, RED, SOFT_INK, WIDTH, fit, message_figure, style, titled_figure
from bat_dist.sweep.results import PointResult, Results
from bat_dist.sweep.statistics import pareto_front

Means = Float[np.ndarray, "points 2"]
NAMES = {"val_clean": "clean accuracy", "val_pgd": "PGD accuracy"}


@dataclass(frozen=True)
class Slice:
    """Done points that differ in two numeric settings alone.  fixed: the other settings' values, as in the choice."""

    x: str
    y: str
    xs: list[float]
    ys: list[float]
    points: list[PointResult]
    fixed: dict[str, Any]

    def at(self, x: float, y: float) -> PointResult | None:
        """The point there, if there is one."""
        return next((p for p in self.points if (p.point[self.x], p.point[self.y]) == (x, y)), None)

    @property
    def is_grid(self) -> bool:
        """Are there few enough values to draw each as a cell, and most cells filled?"""
        return len(self.xs) * len(self.ys) <= 4 * len(self.points)

    def values(self, metric: str) -> list[list[float]]:
        """Means, a row for each y; NaN where no point is."""
        return [[p.mean(metric) if (p := self.at(x, y)) else math.nan for x in self.xs] for y in self.ys]


def plane(results: Results) -> Slice | None:
    """The plane of beta (x) and alpha (y), or of the first two numeric settings that vary; None without two."""
    done = [point for point in results.points if point.values]
    names = list(dict.fromkeys(name for point in done for name in point.point))
    varying = [name for name in names if len({str(point.point.get(name)) for point in done}) > 1]
    numeric = [name for name in varying if all(_is_number(point.point.get(name)) for point in done)]
    pair = ["alpha", "beta"] if {"alpha", "beta"} <= set(numeric) else numeric[:2]
    if len(pair) < 2 or not results.chosen:
        return None
    best = results[results.chosen[0]].point
    fixed = {name: best[name] for name in varying if name not in pair}
    points = [point for point in done if all(point.point.get(name) == value for name, value in fixed.items())]
    y, x = pair
    return Slice(x, y, _sorted(points, x), _sorted(points, y), points, fixed)


@style()
def surfaces(results: Results, *, title: str, num_val: int) -> Figure:
    """A heat map of each accuracy over the plane of two settings, means and standard errors over seeds in the cells."""
    found = plane(results)
    if found is None:
        return message_figure(title, "Fewer than two numeric settings vary among the points that are done.")
    metrics = [metric for metric in NAMES if metric in results.metrics]
    fixed = "".join(f", {name} {value}" for name, value in found.fixed.items())
    fig = titled_figure(title + fixed, 1.6 + 0.42 * min(max(len(found.ys), 4), 12))
    for ax, metric in zip(fig.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        draw = _cells if found.is_grid else _cloud
        draw(ax, found, results, metric)
        ax.set_title(NAMES[metric])
        ax.set_xlabel(found.x)
        ax.set_ylabel(found.y)
    fig.supxlabel(fit(_note(results, num_val), WIDTH * 0.96, 9), fontsize=9, color=SOFT_INK)
    return fig


def _cells(ax: Axes, found: Slice, results: Results, metric: str) -> None:
    values = np.array(found.values(metric))
    image = ax.imshow(values, origin="lower", aspect="auto", cmap="viridis")
    low, high = np.nanmin(values), np.nanmax(values)
    for row, y in enumerate(found.ys):
        for column, x in enumerate(found.xs):
            point = found.at(x, y)
            if point is None:
                continue
            light = high > low and (values[row, column] - low) / (high - low) > 0.6
            error = results.spreads[metric].standard_error(len(point.outcomes))
            text = f"{values[row, column]:.1%}" + ("" if math.isnan(error) else f"\n±{100 * error:.1f}")
            ax.text(column, row, text, ha="center", va="center", size=8, color=INK if light else "white")
            if point.name in results.chosen or point.name == results.reference:
                color = RED if point.name in results.chosen else "white"
                frame = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=color, linewidth=2)
                ax.add_patch(frame)
    ax.set_xticks(range(len(found.xs)), [f"{x:g}" for x in found.xs])
    ax.set_yticks(range(len(found.ys)), [f"{y:g}" for y in found.ys])
    ax.figure.colorbar(image, ax=ax, format=PercentFormatter(1, decimals=1), pad=0.02)


def _cloud(ax: Axes, found: Slice, results: Results, metric: str) -> None:
    xs, ys = ([point.point[name] for point in found.points] for name in (found.x, found.y))
    values = [point.mean(metric) for point in found.points]
    image = ax.scatter(xs, ys, c=values, cmap="viridis", s=45, edgecolors=SOFT_INK, linewidths=0.5)
    chosen = [point for point in found.points if point.name in results.chosen]
    rings = [[point.point[name] for point in chosen] for name in (found.x, found.y)]
    ax.scatter(*rings, s=140, facecolors="none", edgecolors=RED, linewidths=2)
    ax.figure.colorbar(image, ax=ax, format=PercentFormatter(1, decimals=1), pad=0.02)


def clean_and_robust(results: Results) -> tuple[list[PointResult], Means, Bool[np.ndarray, " points"], Means]:
    """Done points, their mean clean and PGD accuracies, which are on the Pareto front, and the front as a line."""
    done = [point for point in results.points if {"val_clean", "val_pgd"} <= point.values.keys()]
    means = np.array([[point.mean("val_clean"), point.mean("val_pgd")] for point in done]).reshape(-1, 2)
    front = pareto_front(means)
    return done, means, front, means[front][np.argsort(means[front][:, 0])]


def standard_errors(results: Results, points: Sequence[PointResult], metric: str) -> list[float]:
    """The standard error over seeds of each point's mean."""
    return [results.spreads[metric].standard_error(len(point.outcomes)) for point in points]


@style()
def clean_against_robust(results: Results, *, title: str, num_val: int) -> Figure:
    """Each done point's clean and PGD accuracy with standard errors; the Pareto front joined by a line."""
    done, means, front, line = clean_and_robust(results)
    if not done:
        return message_figure(title, "No point has both accuracies yet.")
    fig = titled_figure(title, 4.2)
    ax = fig.subplots()
    x_error, y_error = (standard_errors(results, done, metric) for metric in ("val_clean", "val_pgd"))
    ax.errorbar(*means.T, xerr=x_error, yerr=y_error, fmt="none", ecolor=GREY, elinewidth=0.8)
    ax.scatter(*means.T, c=np.where(front, BLUE, GREY), s=22, zorder=3)
    ax.plot(*line.T, color=BLUE, linewidth=1)
    for point, mean, on_front in zip(done, means, front, strict=True):
        is_chosen, is_reference = point.name in results.chosen, point.name == results.reference
        if on_front or is_chosen or is_reference:
            words = ", ".join(f"{n} {v:g}" if _is_number(v) else f"{v}" for n, v in point.point.items())
            label = fit(words + (" (PGD-AT)" if is_reference else ""), 2.2, 8)
            ax.annotate(label, mean, xytext=(5, 4), textcoords="offset points", size=8, color=RED if is_chosen else INK)
    ax.set_xlabel("clean accuracy")
    ax.set_ylabel("PGD accuracy")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    ax.grid()
    fig.supxlabel(fit(_note(results, num_val), WIDTH * 0.96, 9), fontsize=9, color=SOFT_INK)
    return fig


def _note(results: Results, num_val: int) -> str:
    seeds = sorted({len(point.outcomes) for point in results.points if point.values})
    many = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0] if seeds else 0}"
    error = 50 / num_val**0.5
    return (
        f"Validation, mean ± standard error over {many} seeds; {num_val:,} images add up to {error:.1f} points, "
        "the same way for all. Red: chosen"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sorted(points: Sequence[PointResult], name: str) -> list[float]:
    return sorted({float(point.point[name]) for point in points})
