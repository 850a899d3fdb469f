"""The report's sections below its tables: the paper's claims, training curves, sweeps, memorization.

A new one is a function that fills it, an entry in `SECTIONS`, and `templates/section_ID.html.j2` (docs/extending.md).
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bat_dist.errors import UserError
from bat_dist.reporting import report_charts as charts
from bat_dist.reporting import sweep_charts
from bat_dist.reporting.explanations import explained
from bat_dist.reporting.page import EmbeddedImage, PageFigure, embedded_image
from bat_dist.reporting.studies.report import interval_in_words
from bat_dist.reporting.summary import in_words
from bat_dist.reporting.sweep import describe_sweep, read_results
from bat_dist.results.claim import COST
from bat_dist.results.claims import CLAIMS, Finding
from bat_dist.results.find import MEMORIZATION, Found, Training
from bat_dist.results.findings_file import FoundStudy
from bat_dist.results.labels import label_of
from bat_dist.settings.study_names import STUDIES
from bat_dist.storage.files import Folder

FILES = {"Sample explorer": "explorer.html", "CSV": "memorization.csv", "parquet": "scores.parquet"}
WIDEST = 1500  # pixels of an embedded figure
FIGURES = ("memorization_gallery", "extremes_gallery", "influence_pairs_gallery", "alignment_scatter")
MAX_GROUPS = 24  # of training curves in one chart: more cannot be told apart


class _Drawn(NamedTuple):
    """Figures of the page, and which are left out: by title for want of room, by name those that cannot be read."""

    figures: list[PageFigure]
    dropped: list[str]
    damaged: list[str]

    def add(self, folder: Folder, name: str, room: int, as_figure: Callable[[EmbeddedImage], PageFigure]) -> int:
        """The figure in the file, if it fits; returns the room that is left."""
        try:
            figure = as_figure(_small(folder.read(name)))
        except (UserError, OSError, SyntaxError, ValueError):  # Pillow raises all but the first for half a file
            self.damaged.append(f"{folder}/{name}")
            return room
        if len(figure.image.uri) > room:
            self.dropped.append(figure.title)
            return room
        self.figures.append(figure)
        return room - len(figure.image.uri)

    @property
    def entry(self) -> Mapping[str, Any]:
        """What the template of a section shows."""
        return {"figures": self.figures, "dropped": ", ".join(self.dropped), "damaged": ", ".join(self.damaged)}


class PageSection(NamedTuple):
    """A section of the page, shown by `templates/section_ID.html.j2`.

    fill: its entries, from all results and the bytes that the page has room for; without an entry there is no section.
    """

    id: str
    title: str
    fill: Callable[[Found, int], Iterable[Mapping[str, Any]]]


def curves(found: Found, room: int) -> Iterator[Mapping[str, Any]]:
    """A group of charts for each dataset and architecture; a line for runs that differ in their seeds alone."""
    groups: dict[str, dict[tuple[Any, ...], list[Training]]] = {}
    for training in (one for one in found.trainings if one.history):
        identity = training.identity
        title = f"{identity.get('arch', 'unknown')} on {identity.get('dataset', 'unknown data')}"
        title += f", data {identity['fingerprint'][:12]}" if identity.get("fingerprint") else ""
        key = tuple(sorted((name, repr(value)) for name, value in _but_seeds(identity).items()))
        groups.setdefault(title, {}).setdefault(key, []).append(training)
    for title, runs in groups.items():
        identities = [_but_seeds(members[0].identity) for members in runs.values()]
        labels = []
        for own in identities:
            rivals = [other for other in identities if other.get("method") == own.get("method")]
            labels.append(label_of(str(own.get("method")), own, rivals))
        # As in the tables; numbered where that does not tell them apart.
        labels = [name if labels.count(name) == 1 else f"{name} #{number}" for number, name in enumerate(labels, 1)]
        lines = dict(zip(labels, ([one.history for one in members] for members in runs.values()), strict=True))
        note = f" ({MAX_GROUPS} of {len(lines)} settings are drawn)" if len(lines) > MAX_GROUPS else ""
        yield {"title": title + note, "charts": charts.curves_charts(dict(list(lines.items())[:MAX_GROUPS]))}


def _but_seeds(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in ("seed", "val_seed")}


def sweeps(found: Found, room: int) -> Iterator[Mapping[str, Any]]:
    """Each sweep in words, and its charts; one that cannot be read says why."""
    for swept in found.swept:
        try:
            results, words = read_results(swept.folder), describe_sweep(swept.folder)
            drawn = {"surfaces": sweep_charts.surface_charts(results), "pareto": sweep_charts.pareto_chart(results)}
        except (UserError, KeyError, TypeError, ValueError) as error:
            words, drawn = f"cannot be read: {error}", {"surfaces": {}, "pareto": ""}
        yield {"title": f"Sweep {swept.folder}", "words": words, **drawn}


def claims(found: Found, room: int) -> Iterator[Mapping[str, Any]]:
    """The paper's claims, each with what the studies say of it, and the studies' figures as far as they fit."""
    if not found.studies:
        return
    by_claim: dict[str, list[tuple[FoundStudy, Finding]]] = {}
    for study in found.studies:
        for finding in study.findings:
            by_claim.setdefault(finding.claim, []).append((study, finding))
    rows = []
    for name, claim in CLAIMS.items():
        untested = [] if claim.place == COST else [(None, None)]  # the table is about the paper
        for study, finding in by_claim.get(name, untested):
            rows.append(
                {
                    "place": claim.place,
                    "statement": claim.statement,
                    "quantity": claim.quantity,
                    "estimate": interval_in_words(finding) if finding else "",
                    "verdict": finding.verdict if finding else "not tested",
                    "based_on": f"{study.about['note']}; {finding.based_on}" if study and finding else "",
                }
            )
    drawn = _Drawn([], [], [])
    for study in found.studies:
        for name in sorted(study.folder.names("*.png")):
            as_figure = partial(
                PageFigure,
                f"{study.study}: {name.removesuffix('.png').replace('_', ' ')}",
                f"{STUDIES[study.study]}. {study.about['note']}. Data: {study.folder}.",
                f"Figure of the study {study.study}; its data are beside it as a table",
            )
            room = drawn.add(study.folder, name, room, as_figure)
    yield {"rows": rows, **drawn.entry}


def memorization(found: Found, room: int) -> Iterator[Mapping[str, Any]]:
    """Each memorization run in words, its histogram, and its figures as far as they fit into `room` bytes."""
    for run in found.memorized:
        summary, is_ensemble = run.summary, run.summary.is_of_ensemble
        drawn = _Drawn([], [], [])
        place = run.folder / ("ensemble_figures" if is_ensemble else "figures")
        for name in FIGURES:
            if place.exists(f"{name}.png"):
                room = drawn.add(place, f"{name}.png", room, partial(explained, name))
        try:
            words = in_words(summary.numbers)
        except (KeyError, TypeError, ValueError) as error:
            words = {"summary": f"cannot be read: {type(error).__name__}: {error}"}
        kind = "Ensemble scores" if is_ensemble else "Memorization"
        yield {
            "title": f"{kind} of {summary.dataset}",
            "summary": {**words, "folder": str(run.folder)},
            "warnings": summary.warnings,
            "histogram": "" if is_ensemble else _histogram(run.folder),
            **drawn.entry,
            "place": str(place),
            "folder": run.folder,
            "files": {} if is_ensemble else {words: name for words, name in FILES.items() if run.folder.exists(name)},
        }


def _histogram(folder: Folder) -> str:
    """The chart of the folder's scores; none if there are none that can be read."""
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


SECTIONS = (
    PageSection("claims", "Claims of the paper", claims),
    PageSection("curves", "Training curves", curves),
    PageSection("sweeps", "Sweeps", sweeps),
    PageSection("memorization", "Memorization", memorization),
)
"""In the order of the page."""
