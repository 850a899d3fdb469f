"""The interactive charts of the report, with plotly: differences, AutoAttack's parts, training curves, memorization."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from bat_dist.figures.curves import COLORS, PANELS
from bat_dist.figures.style import BLUE, GREY, RED, RULE, SOFT_INK
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TYPICAL_THRESHOLD
from bat_dist.reporting.cells import BETTER, WORSE, difference, heading, mark
from bat_dist.reporting.sweep_charts import as_html
from bat_dist.results.compare import Table, TableCell
from bat_dist.results.rows import ALL, MethodRow

PARTS = {"apgd-ce": "APGD-CE", "apgd-t": "APGD-T", "fab-t": "FAB-T", "square": "Square"}
ROW_HEIGHT = 14  # pixels, of an interval


def differences_chart(table: Table, which: str) -> str:
    """Each method's difference to the reference for each attack, with 95% intervals; empty without any."""
    columns: dict[str, list[TableCell]] = {}
    numbers = set()
    for (number, attack, subset), cell in table.cells.items():
        if (subset, cell.row.which) == (ALL, which) and cell.compared:
            columns.setdefault(attack, []).append(cell)
            numbers.add(number)
    labels = list(dict.fromkeys(table.rows[number].label for number in sorted(numbers)))
    if not labels:
        return ""
    fig = go.Figure()
    for number, (attack, cells) in enumerate(columns.items()):
        below = (number - (len(columns) - 1) / 2) * 0.8 / len(columns)  # beside each other, not upon
        places = [labels.index(cell.row.label) + below for cell in cells]
        fig.add_trace(_intervals(cells, places, heading(attack), COLORS[number % len(COLORS)]))
    fig.add_vline(x=0, line={"color": SOFT_INK, "width": 1})
    for between in range(1, len(labels)):
        fig.add_hline(y=between - 0.5, line={"color": RULE, "width": 1})
    fig.update_layout(
        xaxis_title="points",
        yaxis={
            "range": [len(labels) - 0.5, -0.5],
            "tickvals": list(range(len(labels))),
            # In two lines, so that a phone has room for the chart.
            "ticktext": [escape(label).replace(" (", "<br>(", 1) for label in labels],
            "showgrid": False,
            "zeroline": False,
        },
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    height = 140 + len(labels) * max(40, ROW_HEIGHT * len(columns))
    return as_html(fig, height=height, margin={"l": 10, "r": 10, "t": 50, "b": 50})


def _intervals(cells: Sequence[TableCell], places: Sequence[float], name: str, color: str) -> go.Scatter:
    found = [cell.compared.found for cell in cells if cell.compared]
    solid = [mark(cell) in (BETTER, WORSE) for cell in cells]
    return go.Scatter(
        x=[100 * one.difference for one in found],
        y=places,
        error_x={
            "type": "data",
            "array": [100 * (one.high - one.difference) for one in found],
            "arrayminus": [100 * (one.difference - one.low) for one in found],
            "thickness": 1.2,
        },
        mode="markers",
        name=name,
        marker={"color": color, "size": 9, "symbol": ["circle" if sure else "circle-open" for sure in solid]},
        text=[f"{escape(cell.row.label)}, {name}<br>{escape(difference(cell))}" for cell in cells],
        hovertemplate="%{text}<extra></extra>",
    )


def stages_chart(rows: Sequence[MethodRow]) -> str:
    """Accuracy after each part of AutoAttack, mean over seeds; empty where it was not run."""
    fig = go.Figure()
    for number, row in enumerate(rows):
        whole = next((name for name in ("autoattack", "autoattack_fast") if name in row.attacks), None)
        if whole is None or "clean" not in row.attacks:
            continue
        stages = {"clean": "clean"}
        stages |= {f"{whole}:{part}": words for part, words in PARTS.items() if f"{whole}:{part}" in row.attacks}
        values = [row.value(stage) for stage in stages]
        fig.add_trace(
            go.Scatter(
                x=list(stages.values()),
                y=[100 * value.mean for value in values if value],
                mode="lines+markers",
                name=f"{row.label}, {row.which}",
                line=_line(number),
            )
        )
    if not fig.data:
        return ""
    fig.update_layout(yaxis_title="accuracy, %", yaxis_rangemode="tozero", legend={"orientation": "h", "y": -0.2})
    return as_html(fig, height=460)


def curves_charts(histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> dict[str, str]:
    """A chart by epoch for each validation accuracy: a line per group of runs, mean over its seeds, with their range.

    histories: by label, the rows of each seed's history.
    """
    charts = {}
    for key, words in PANELS.items():
        fig = go.Figure()
        for number, (label, seeds) in enumerate(histories.items()):
            known = [rows for rows in seeds if rows and any(row.get(key) is not None for row in rows)]
            if known:
                _add_curve(fig, label, known, key, number)
        if fig.data:
            fig.update_layout(
                xaxis_title="epoch",
                yaxis_title="accuracy, %",
                yaxis_rangemode="tozero",
                legend={"orientation": "h", "y": -0.25},
            )
            charts[words] = as_html(fig, height=440)
    return charts


def _add_curve(fig: go.Figure, label: str, seeds: Sequence[Sequence[Mapping[str, Any]]], key: str, number: int) -> None:
    epochs = max(len(rows) for rows in seeds)
    values = np.full((len(seeds), epochs), np.nan)
    for at, rows in enumerate(seeds):
        values[at, : len(rows)] = [math.nan if row.get(key) is None else 100 * row[key] for row in rows]
    reached = [epoch for epoch in range(epochs) if not np.all(np.isnan(values[:, epoch]))]
    mean, low, high = (f(values[:, reached], axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))
    x = [epoch + 1 for epoch in reached]
    style = _line(number)
    if len(seeds) > 1:
        band = {"x": [*x, *x[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "line": {"width": 0}, "opacity": 0.15}
        fig.add_trace(
            go.Scatter(
                **band,
                mode="lines",
                fillcolor=style["color"],
                hoverinfo="skip",
                showlegend=False,
                legendgroup=str(number),
            )
        )
    words = f"{label} ({len(seeds)} seed{'s' * (len(seeds) > 1)})"
    fig.add_trace(go.Scatter(x=x, y=mean, mode="lines", name=words, line=style, legendgroup=str(number)))


def histogram_chart(mem: Float[np.ndarray, " samples"], num_undefined: int) -> str:
    """How much is memorized: shares of the training samples by score; undefined ones are left out and counted."""
    known = mem[~np.isnan(mem)]
    if not len(known):
        return ""
    known = np.clip(known, -1, 1)
    # Bins of 0.05 and, on the logarithmic axis where parts of a bar cannot be compared, one that ends with the typical.
    edges = np.unique(np.append(np.round(np.arange(-1, 1.0001, 0.05), 2), TYPICAL_THRESHOLD))
    words = np.array([f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)])
    typical, atypical = known < TYPICAL_THRESHOLD, known > ATYPICAL_THRESHOLD
    fig = go.Figure()
    for color, members in ((BLUE, typical), (GREY, ~typical & ~atypical), (RED, atypical)):
        counts, _ = np.histogram(known[members], edges)
        some = counts > 0
        fig.add_bar(
            x=((edges[:-1] + edges[1:]) / 2)[some],
            y=counts[some],
            marker={"color": color},
            width=(np.diff(edges) - 0.005)[some],
            text=words[some],
            textposition="none",
            hovertemplate="memorization %{text}: %{y} samples<extra></extra>",
        )
    fig.add_vline(x=ATYPICAL_THRESHOLD, line={"color": SOFT_INK, "dash": "dot"})
    note = f" ({num_undefined:,} undefined)" if num_undefined else ""
    fig.update_layout(
        xaxis_title=f"memorization{note}",
        yaxis_title="training samples",
        yaxis_type="log",
        barmode="stack",
        showlegend=False,
    )
    return as_html(fig, height=360)


def _line(number: int) -> dict[str, Any]:
    dash = ("solid", "dash", "dot")[number // len(COLORS) % 3]
    return {"color": COLORS[number % len(COLORS)], "width": 2, "dash": dash}


def escape(text: str) -> str:
    """The text escaped for plotly, which reads a few tags in its texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
