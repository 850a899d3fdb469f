"""The interactive charts of a sweep's page, with plotly: surfaces, parallel coordinates, clean against robust."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bat_dist.figures.style import BLUE, GREY, RED, SOFT_INK
from bat_dist.figures.sweep_figures import NAMES, clean_and_robust, plane, standard_errors
from bat_dist.sweep.results import PointResult, Results

FONT = {"family": "system-ui, Segoe UI, Roboto, DejaVu Sans, sans-serif", "size": 13}


def library() -> str:
    """plotly.js, to be embedded once in the page."""
    return get_plotlyjs()


def surface_charts(results: Results) -> dict[str, str]:
    """The paper's Fig. 4: for each accuracy a surface over two settings, as HTML; none unless the points are a grid."""
    found = plane(results)
    if found is None or not found.is_grid or min(len(found.xs), len(found.ys)) < 2:
        return {}
    charts = {}
    for metric, words in NAMES.items():
        if metric not in results.metrics:
            continue
        values = 100 * np.array(found.values(metric))
        surface = go.Surface(
            x=found.xs, y=found.ys, z=values, colorscale="Viridis", opacity=0.85, showscale=False, hoverinfo="skip"
        )
        fig = go.Figure([surface])
        points: dict[str, list[PointResult]] = {}  # by color, a trace each: plotly.js warns otherwise
        for point in (point for point in found.points if metric in point.values):
            points.setdefault(_color(results, point), []).append(point)
        for color, own in points.items():
            dots = go.Scatter3d(
                x=[point.point[found.x] for point in own],
                y=[point.point[found.y] for point in own],
                z=[100 * point.mean(metric) for point in own],
                error_z={**_error(results, own, metric), "thickness": 2},
                mode="markers",
                marker={"size": 4, "color": color},
                text=[_words(results, point) for point in own],
                hovertemplate="%{text}<extra></extra>",
            )
            fig.add_trace(dots)
        axes = {"xaxis_title": found.x, "yaxis_title": found.y, "zaxis_title": "%"}
        fig.update_layout(
            scene={**axes, "camera": {"eye": {"x": 1.6, "y": 1.6, "z": 0.9}}}, height=460, showlegend=False
        )
        charts[words] = as_html(fig)
    return charts


def parallel_chart(results: Results) -> str:
    """A line per done point through its settings and accuracies, coloured by what points are chosen by."""
    done = [point for point in results.points if point.values]
    if len(done) < 2:
        return ""
    names = list(dict.fromkeys(name for point in done for name in point.point))
    dimensions = [_axis(name, [point.point.get(name) for point in done]) for name in names]
    for metric in (name for name in NAMES if name in results.metrics):
        dimensions.append({"label": f"{NAMES[metric]}, %", "values": [100 * point.mean(metric) for point in done]})
    goal = [100 * point.mean(results.metric[0]) for point in done]
    line = {"color": goal, "colorscale": "Viridis", "showscale": True}
    return as_html(go.Figure(go.Parcoords(dimensions=dimensions, line=line)), height=420, margin={"l": 60, "t": 60})


def pareto_chart(results: Results) -> str:
    """Clean against PGD accuracy of each done point."""
    done, means, front, line = clean_and_robust(results)
    if not done:
        return ""
    means, line = 100 * means, 100 * line
    fig = go.Figure(
        [
            go.Scatter(x=line[:, 0], y=line[:, 1], mode="lines", line={"color": BLUE, "width": 1}, hoverinfo="skip"),
            go.Scatter(
                x=means[:, 0],
                y=means[:, 1],
                mode="markers",
                marker={
                    "size": 9,
                    "color": [_color(results, p, BLUE if f else GREY) for p, f in zip(done, front, strict=True)],
                },
                error_x=_error(results, done, "val_clean"),
                error_y=_error(results, done, "val_pgd"),
                text=[_words(results, point) for point in done],
                hovertemplate="%{text}<extra></extra>",
            ),
        ]
    )
    fig.update_layout(xaxis_title="clean accuracy, %", yaxis_title="PGD accuracy, %", showlegend=False)
    return as_html(fig, height=460)


def _axis(name: str, values: Sequence[Any]) -> dict[str, Any]:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"label": name, "values": list(values)}
    words = sorted({str(value) for value in values})
    places = [words.index(str(value)) for value in values]
    return {"label": name, "values": places, "tickvals": list(range(len(words))), "ticktext": words}


def _error(results: Results, points: Sequence[PointResult], metric: str) -> dict[str, Any]:
    """Bars of one standard error."""
    errors = np.nan_to_num([100 * error for error in standard_errors(results, points, metric)])
    return {"type": "data", "array": errors, "thickness": 0.8, "color": SOFT_INK}


def _color(results: Results, point: PointResult, other: str = "#333333") -> str:
    return RED if point.name in results.chosen else "#CC79A7" if point.name == results.reference else other


def _words(results: Results, point: PointResult) -> str:
    lines = [point.name.replace(",", ", ")]
    for metric in results.metrics:
        error = results.spreads[metric].standard_error(len(point.outcomes))
        lines.append(f"{metric}: {point.mean(metric):.1%}" + ("" if np.isnan(error) else f" ± {error:.1%}"))
    return "<br>".join(line.replace("<", "&lt;") for line in lines)


def as_html(fig: go.Figure, **layout: Any) -> str:
    """A chart for a page that holds `library()` and `charts.js.j2`, which draws it once it comes into view."""
    fig.update_layout(font=FONT, margin={"l": 50, "r": 20, "t": 20, "b": 50}, template="plotly_white")
    fig.update_layout(**layout)
    described = str(fig.to_json()).replace("<", "\\u003c")  # no text of a chart may end the script element
    height = fig.layout.height or 450  # pyright: ignore[reportAttributeAccessIssue]
    return f'<div class="chart" style="height: {height}px"></div><script type="application/json">{described}</script>'
