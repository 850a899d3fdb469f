"""The report: tables in four formats, and one page that holds everything and needs no network."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bat_dist.errors import UserError
from bat_dist.reporting import report_charts as charts
from bat_dist.reporting import sweep_charts, tables
from bat_dist.reporting.explanations import explained
from bat_dist.reporting.page import EmbeddedImage, embedded_image, page_template
from bat_dist.reporting.summary import in_words as summary_in_words
from bat_dist.reporting.sweep import describe_sweep, read_results
from bat_dist.results.compare import ComparedResults, Table, TableCell
from bat_dist.results.find import MEMORIZATION, Found, FoundEvaluation, Memorized, Swept, Training
from bat_dist.results.published import PAPER
from bat_dist.results.rows import ALL, TRAINED_BY, flat, label_of, method_name, which_of
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance, without_passwords
from bat_dist.training.files import FinishedRun

PAGE, MARKDOWN, CSV, LATEX, ROBUSTBENCH = "report.html", "tables.md", "tables.csv", "tables.tex", "robustbench.json"
MAX_PAGE = 9_000_000  # bytes; a page of 10 MB is slow on a phone
WIDEST = 1500  # pixels of an embedded figure
FIGURES = ("memorization_gallery", "extremes_gallery", "influence_pairs_gallery", "alignment_scatter")
MAX_GROUPS = 24  # of training curves in one chart: more cannot be told apart
TITLE = "Memorization and robustness: all results"


def write_report(folder: Folder, found: Found, comparison: ComparedResults, *, refresh: int = 0) -> str:
    """Write tables.md, .csv, .tex, robustbench.json and report.html; returns the lines to print.

    refresh: seconds after which an open page loads itself anew; 0: never.
    """
    folder.create()
    folder.write(MARKDOWN, tables.markdown(comparison).encode())
    folder.write(CSV, tables.csv_text(comparison).encode())
    folder.write(LATEX, tables.latex(comparison).encode())
    folder.write_json(ROBUSTBENCH, tables.robustbench(comparison))
    folder.write(PAGE, page(found, comparison, refresh=refresh).encode())
    lines = [*tables.terminal(comparison), f"tables: {folder}/{MARKDOWN}, .csv, .tex; page: {folder}/{PAGE}"]
    return "\n".join(lines)


def page(found: Found, comparison: ComparedResults, *, refresh: int = 0) -> str:
    """The page as text; everything in it is escaped."""
    sources = _Sources(found)
    shown = [_table(table, sources) for table in comparison.tables]
    curves = list(_curves(found.trainings))
    sweeps = [_sweep(swept) for swept in found.swept]
    entries = list(sources.entries())
    room = MAX_PAGE - len(sweep_charts.library()) - sum(len(repr(part)) for part in (shown, curves, sweeps, entries))
    memorized = []
    for run in found.memorized:
        memorized.append(_memorized(run, room))
        room -= sum(len(figure["uri"]) for figure in memorized[-1]["figures"])
    sections = {"curves": "Training curves"} if curves else {}
    sections |= {"sweeps": "Sweeps"} if sweeps else {}
    sections |= {"memorization": "Memorization"} if memorized else {}
    return page_template("report.html.j2").render(
        title=TITLE,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        refresh=refresh,
        plotly=sweep_charts.library(),
        sections={**sections, "provenance": "Where every number comes from"},
        missing=[without_passwords(words) for words in comparison.missing],
        left_out=[{"place": without_passwords(one.place), "reason": one.reason} for one in comparison.left_out],
        tables=shown,
        legend=tables.LEGEND,
        curves=curves,
        sweeps=sweeps,
        memorized=memorized,
        sources=entries,
        origin=_texts(provenance()),
    )


# --- tables


def _table(table: Table, sources: "_Sources") -> dict[str, Any]:
    subsets = list(table.subsets)
    rows = [
        {
            "label": row.label,
            "which": row.which,
            "subset": subset,
            "seeds": len(row.networks),
            "cells": [_cell(table.cells.get((number, attack, subset)), sources) for attack in table.attacks],
        }
        for subset in subsets
        for number, row in enumerate(table.rows)
        if any((number, attack, subset) in table.cells for attack in table.attacks)
    ]
    whiches = list(dict.fromkeys(row.which for row in table.rows))
    # A column that says the same in every row is not shown.
    own = {"Checkpoint": ("which", whiches, ""), "Test images": ("subset", subsets, ALL)}
    own = {words: choice for words, choice in own.items() if len(choice[1]) > 1}
    names = [key for key, _, _ in own.values()]
    choices = [
        {"words": words, "column": at, "options": options, "first": first}
        for at, (words, (_, options, first)) in enumerate(own.items(), 1)
    ]
    drawn = {which: charts.differences_chart(table, which) for which in whiches}
    one = f"; {whiches[0]} checkpoint" if len(whiches) == 1 else ""
    return {
        "title": table.title,
        "about": table.about + one,
        "reference": table.reference,
        "missing": table.missing,
        "notes": table.notes,
        "choices": choices,
        "heads": ["Method", *own, "Seeds", *map(tables.heading, table.attacks)],
        "rows": [{**row, "names": [row[name] for name in names]} for row in rows],
        "differences": {which: chart for which, chart in drawn.items() if chart},
        "paper": _paper(table),
        "stages": charts.stages_chart(table.rows),
    }


def _cell(cell: TableCell | None, sources: "_Sources") -> dict[str, Any] | None:
    if cell is None:
        return None
    value, found = cell.value, tables.mark(cell)
    per_seed = ", ".join(f"{100 * one:.1f}" for one in value.per_seed)
    hover = f"{value.num_images:,} images; by seed: {per_seed}; standard error over images {100 * value.image_se:.1f}"
    if cell.compared:
        hover += f"; difference {tables.difference(cell)}"
    known = [network for network in cell.row.networks if cell.attack in network.flags]
    return {
        "sort": "" if math.isnan(value.mean) else f"{value.mean:.6f}",
        "words": tables.percent(cell),
        "mark": found,
        "better": found == tables.BETTER,
        "hover": hover,
        "source": sources.id_of(known[0].source(cell.attack)),
    }


def _paper(table: Table) -> dict[str, Any] | None:
    if not table.published:
        return None
    attacks, values = tables.beside_paper(table)
    rows = [table.rows[number] for number in values]
    return {
        "heads": [tables.heading(attack) for attack in attacks],
        "rows": [
            {"label": r.label, "which": r.which, "cells": cells} for r, cells in zip(rows, values.values(), strict=True)
        ],
        "where": f"{table.published_in} of {PAPER}",
        "departures": "; ".join(table.departures),
    }


# --- curves, sweeps, memorization


def _curves(trainings: Sequence[Training]) -> Iterator[dict[str, Any]]:
    """A group of charts for each dataset and architecture; a line for runs that differ in their seeds alone."""
    groups: dict[str, dict[tuple[Any, ...], list[Training]]] = {}
    for training in (one for one in trainings if one.history):
        identity = training.identity
        title = f"{identity.get('arch', 'unknown')} on {identity.get('dataset', 'unknown data')}"
        title += f", data {identity['fingerprint'][:12]}" if identity.get("fingerprint") else ""
        key = tuple(sorted((name, repr(value)) for name, value in _but_seeds(identity).items()))
        groups.setdefault(title, {}).setdefault(key, []).append(training)
    for title, runs in groups.items():
        labels = _curve_labels([_but_seeds(members[0].identity) for members in runs.values()])
        lines = dict(zip(labels, ([one.history for one in members] for members in runs.values()), strict=True))
        note = f" ({MAX_GROUPS} of {len(lines)} settings are drawn)" if len(lines) > MAX_GROUPS else ""
        yield {"title": title + note, "charts": charts.curves_charts(dict(list(lines.items())[:MAX_GROUPS]))}


def _curve_labels(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """As in the tables; numbered where that does not tell them apart."""
    labels = []
    for own in identities:
        rivals = [other for other in identities if other.get("method") == own.get("method")]
        labels.append(label_of(str(own.get("method")), own, rivals))
    return [label if labels.count(label) == 1 else f"{label} #{at + 1}" for at, label in enumerate(labels)]


def _but_seeds(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in ("seed", "val_seed")}


def _sweep(swept: Swept) -> dict[str, Any]:
    try:
        results, words = read_results(swept.folder), describe_sweep(swept.folder)
        drawn = {"surfaces": sweep_charts.surface_charts(results), "pareto": sweep_charts.pareto_chart(results)}
    except (UserError, KeyError, ValueError) as error:
        words, drawn = f"cannot be read: {error}", {"surfaces": {}, "pareto": ""}
    return {"title": f"Sweep {swept.folder}", "words": words, **drawn}


def _memorized(run: Memorized, room: int) -> dict[str, Any]:
    """room: bytes left for figures on the page."""
    summary = dict(run.summary)
    is_ensemble = "score" in summary
    figures, dropped = [], []
    place = run.folder / ("ensemble_figures" if is_ensemble else "figures")
    for name in FIGURES:
        if not place.exists(f"{name}.png"):
            continue
        figure, png = explained(name, ""), _small(place.read(f"{name}.png"))
        if len(png.uri) > room:
            dropped.append(figure.title)
            continue
        room -= len(png.uri)
        figures.append({"title": figure.title, "caption": figure.caption, "alt": figure.alt, **vars(png)})
    try:
        words = summary_in_words({key: _undefined(value) for key, value in summary.items()})
    except (KeyError, TypeError, ValueError) as error:
        words = {"summary": f"cannot be read: {type(error).__name__}: {error}"}
    return {
        "title": f"{'Ensemble scores' if is_ensemble else 'Memorization'} of {summary.get('dataset', 'unknown data')}",
        "summary": {**words, "folder": str(run.folder)},
        "warnings": summary.get("warnings", []),
        "histogram": "" if is_ensemble else _histogram(run.folder),
        "figures": figures,
        "dropped": ", ".join(dropped),
        "place": str(place),
    }


def _undefined(value: Any) -> Any:
    """JSON has null for NaN."""
    return math.nan if value is None else value


def _histogram(folder: Folder) -> str:
    if not folder.exists(MEMORIZATION):
        return ""
    try:
        mem = folder.read_npz(MEMORIZATION)["mem"]
    except (UserError, KeyError):
        return ""
    return charts.histogram_chart(mem, int(np.isnan(mem).sum()))


def _small(png: bytes) -> EmbeddedImage:
    """A figure at the width of a screen, in few colours where that is the smaller file."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=88, method=4)
    return embedded_image(buffer.getvalue(), "image/webp", *image.size)


# --- provenance


class _Entry(NamedTuple):
    evaluation: FoundEvaluation
    training: Training | None


class _Sources:
    """Where numbers come from: every evaluation, with the training behind it where that is known."""

    def __init__(self, found: Found) -> None:
        by_identity = {_run_key(training.identity): training for training in found.trainings if training.identity}
        self._entries = {
            one.place: _Entry(one, by_identity.get(_run_key(flat(one.facts)))) for one in found.evaluations
        }
        self._ids = {place: f"source-{number}" for number, place in enumerate(self._entries, 1)}

    def id_of(self, one: FoundEvaluation) -> str:
        """The page's anchor."""
        return self._ids[one.place]

    def entries(self) -> Iterator[dict[str, Any]]:
        """For the template."""
        for place, (evaluation, training) in self._entries.items():
            facts, document = evaluation.facts, evaluation.document
            method = method_name(str(facts.get("method") or facts.get("model") or facts.get("weights")))
            seed = f", seed {facts['seed']}" if "seed" in facts else ""
            shown = {
                "evaluation": place,
                "evaluated by": _typed(document),
                **_machine(document),
                "network": document.get("network"),
                "checkpoint": f"{evaluation.settings.get('checkpoint')} ({which_of(evaluation)})",
                "attacks": ", ".join(f"{row['attack']} {row['seconds']:.0f} s" for row in document["rows"]),
                "failed checks": ", ".join(
                    check["name"] for check in document.get("checks", ()) if not check["passed"]
                ),
            }
            if training:
                run = training.run
                shown |= {"training": training.place, "trained by": _typed(run.origin)}
                shown |= {f"training {key}": value for key, value in _machine(run.origin).items()}
                seconds = run.seconds if isinstance(run, FinishedRun) else None
                shown |= {"training seconds": seconds, "trained from": run.begun}
            settings = {key: value for key, value in flat(facts).items() if key.partition(".")[0] in TRAINED_BY}
            shown["trained with"] = tables.settings_text(settings)
            words = f"{method}{seed}, {which_of(evaluation)} checkpoint: {without_passwords(place)}"
            yield {"id": self._ids[place], "words": words, "facts": _texts(shown)}


def _typed(document: Mapping[str, Any]) -> str:
    """The command; nothing where the first releases noted that of Ray's worker."""
    command = str(document.get("command") or "")
    return "" if command.startswith("default_worker.py") else command


def _machine(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: document.get(name) for name in ("git_revision", "bat_dist", "cpu", "cpus", "system")}


def _run_key(identity: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another: its method and settings, data, architecture and seeds."""
    names = ("method", "fingerprint", "arch", "epochs", "seed", "val_seed", "scores", "num_train")
    own = {name: value for name, value in identity.items() if name.startswith(("method_settings.", "recipe."))}
    pairs = {**own, **{name: identity.get(name) for name in names}}
    return tuple(sorted((name, repr(value)) for name, value in pairs.items()))


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """What is known, as text without passwords; mappings as `a=1, b=2`."""
    shown = {}
    for name, value in values.items():
        if value not in (None, "", {}, []):
            text = tables.settings_text(value) if isinstance(value, Mapping) else str(value)
            shown[name] = without_passwords(text)
    return shown
