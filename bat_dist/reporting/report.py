"""The report: tables in four formats, and one page that holds everything and needs no network."""

import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from bat_dist.evaluation.statistics import share_with_interval
from bat_dist.reporting import findings, sweep_charts
from bat_dist.reporting import report_charts as charts
from bat_dist.reporting.cells import BETTER, LEGEND, beside_paper, difference, heading, mark, percent
from bat_dist.reporting.latex import latex
from bat_dist.reporting.page import as_texts, page_template
from bat_dist.reporting.records import csv_text, robustbench
from bat_dist.reporting.report_sections import SECTIONS
from bat_dist.reporting.report_sources import Sources
from bat_dist.reporting.tables import markdown, terminal
from bat_dist.results.compare import ComparedResults, Table, TableCell
from bat_dist.results.find import Found
from bat_dist.results.published import PAPER
from bat_dist.results.rows import ALL
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance, without_passwords

PAGE, MARKDOWN, CSV, LATEX, ROBUSTBENCH = "report.html", "tables.md", "tables.csv", "tables.tex", "robustbench.json"
MAX_PAGE = 9_000_000  # bytes; a page of 10 MB is slow on a phone
TITLE = "Memorization and robustness: all results"


def write_report(folder: Folder, found: Found, comparison: ComparedResults, *, refresh: int = 0) -> str:
    """Write tables.md, .csv, .tex, robustbench.json and report.html; returns the lines to print.

    refresh: seconds after which an open page loads itself anew; 0: never.
    """
    folder.create()
    folder.write(MARKDOWN, markdown(comparison).encode())
    folder.write(CSV, csv_text(comparison).encode())
    folder.write(LATEX, latex(comparison).encode())
    folder.write_json(ROBUSTBENCH, robustbench(comparison))
    folder.write(PAGE, page(folder, found, comparison, refresh=refresh).encode())
    lines = [*terminal(comparison), f"tables: {folder}/{MARKDOWN}, .csv, .tex; page: {folder}/{PAGE}"]
    return "\n".join(lines)


def page(folder: Folder, found: Found, comparison: ComparedResults, *, refresh: int = 0) -> str:
    """The page as text; everything in it is escaped.  folder: of the page, from which its links lead."""
    sources = Sources(found)
    tables = [_table(table, sources) for table in comparison.tables]
    entries = list(sources.entries())
    room = MAX_PAGE - len(sweep_charts.library()) - len(repr(tables)) - len(repr(entries))
    sections = []
    for section in SECTIONS:
        if filled := list(section.fill(found, room)):
            room -= len(repr(filled))
            sections.append({"id": section.id, "title": section.title, "entries": filled})
    return page_template("report.html.j2").render(
        title=TITLE,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        refresh=refresh,
        findings=[without_passwords(words) for words in findings.of_report(found, comparison)],
        files={name: name for name in (MARKDOWN, CSV, LATEX, ROBUSTBENCH)},
        link_to=partial(_link, folder),
        plotly=sweep_charts.library(),
        sections=sections,
        missing=[without_passwords(words) for words in comparison.missing],
        left_out=[{"place": without_passwords(one.place), "reason": one.reason} for one in comparison.left_out],
        tables=tables,
        legend=LEGEND,
        sources=entries,
        origin=as_texts(provenance()),
    )


def _link(folder: Folder, other: Folder, name: str) -> str:
    """The way from the page to a file of another folder; empty where one of the two is not on this machine's disk."""
    here, there = folder.local_path, other.local_path
    return "" if here is None or there is None else quote(os.path.relpath(there / name, here))


def _table(table: Table, sources: Sources) -> Mapping[str, Any]:
    whiches = list(dict.fromkeys(row.which for row in table.rows))
    # Columns that a reader can choose by; one that says the same in every row is not shown.
    options = {"Checkpoint": whiches, "Test images": list(table.subsets)}
    options = {words: values for words, values in options.items() if len(values) > 1}
    rows = []
    for subset in table.subsets:
        for number, row in enumerate(table.rows):
            cells = [table.cells.get((number, attack, subset)) for attack in table.attacks]
            if any(cells):
                own = {"Checkpoint": row.which, "Test images": subset}
                rows.append(
                    {
                        "label": row.label,
                        "names": [own[words] for words in options],
                        "seeds": len(row.networks),
                        "cells": [cell and _cell(cell, sources) for cell in cells],
                    }
                )
    drawn = {which: charts.differences_chart(table, which) for which in whiches}
    return {
        "title": table.title,
        "about": table.about + (f"; {whiches[0]} checkpoint" if len(whiches) == 1 else ""),
        "reference": table.reference,
        "references": table.references,
        "missing": table.missing,
        "notes": table.notes,
        "choices": [
            {"words": words, "column": at, "options": values, "first": ALL if words == "Test images" else ""}
            for at, (words, values) in enumerate(options.items(), 1)
        ],
        "heads": ["Method", *options, "Seeds", *map(heading, table.attacks)],
        "rows": rows,
        "differences": {which: chart for which, chart in drawn.items() if chart},
        "paper": _paper(table),
        "stages": charts.stages_chart(table.rows),
    }


def _cell(cell: TableCell, sources: Sources) -> Mapping[str, Any]:
    value, found = cell.value, mark(cell)
    per_seed = ", ".join(f"{100 * one:.1f}" for one in value.per_seed)
    over_images = share_with_interval(value.mean, value.num_images)
    hover = f"{value.num_images:,} images; by seed: {per_seed}; over images {over_images}"
    if cell.compared:
        hover += f"; difference {difference(cell)}"
    return {
        "sort": "" if math.isnan(value.mean) else f"{value.mean:.6f}",
        "words": percent(cell),
        "mark": found,
        "better": found == BETTER,
        "hover": hover,
        "source": sources.id_of(cell.row.networks_with(cell.attack, cell.subset)[0].source(cell.attack)),
    }


def _paper(table: Table) -> Mapping[str, Any] | None:
    if not table.published:
        return None
    attacks, values = beside_paper(table)
    rows = [(table.rows[number], cells) for number, cells in values.items()]
    return {
        "heads": [heading(attack) for attack in attacks],
        "rows": [{"label": row.label, "which": row.which, "cells": cells} for row, cells in rows],
        "where": f"{table.published_in} of {PAPER}",
        "departures": "; ".join(table.departures),
    }
