"""Pages of HTML that work offline: figures are embedded, nothing is fetched."""

import base64
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Template
from matplotlib.figure import Figure

from bat_dist.figures.style import save
from bat_dist.reporting.jinja import templates
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import without_passwords


@dataclass(frozen=True)
class EmbeddedImage:
    """A data URI, and the image's size in pixels so that the page does not jump while it is drawn."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page; all texts are plain, and escaped by the page."""

    title: str
    caption: str  # what one is looking at, in a sentence or two
    alt: str  # what the figure shows, for those who do not see it
    image: EmbeddedImage


def page_template(name: str) -> Template:
    """A page, in which all that is filled in is escaped."""
    return templates(autoescape=True).get_template(name)


def render_memorization_page(
    *,
    title: str,
    summary: Mapping[str, str],
    figures: Sequence[PageFigure],
    warnings: Sequence[str],
    provenance: Mapping[str, str],
) -> str:
    """The page of one memorization run, as text.

    `summary` and `provenance` become two tables, in their order; `warnings` stand above what they question.
    """
    return page_template("memorization.html.j2").render(
        title=title, summary=summary, figures=figures, warnings=warnings, provenance=provenance
    )


def save_figures(folder: Folder, figures: Mapping[str, Figure]) -> dict[str, EmbeddedImage]:
    """Write each figure into the folder as PNG and SVG, named as it is; returns the PNGs as a page embeds them."""
    embedded = {}
    folder.create()
    with tempfile.TemporaryDirectory() as scratch:
        for name, figure in figures.items():
            png, svg = save(figure, Path(scratch) / name)
            for file in (png, svg):
                folder.write(file.name, file.read_bytes())
            embedded[name] = embedded_png(png)
    return embedded


def embedded_png(path: Path) -> EmbeddedImage:
    """Read a PNG file for embedding; ValueError if it is none."""
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or len(data) < 24:
        raise ValueError(f"{path} is not a PNG file; the page embeds what style.save wrote")
    width, height = struct.unpack(">II", data[16:24])  # IHDR is always the first chunk
    return embedded_image(data, "image/png", width, height)


def embedded_image(data: bytes, kind: str, width: int, height: int) -> EmbeddedImage:
    """The bytes of an image for embedding.  kind: its MIME type."""
    return EmbeddedImage(f"data:{kind};base64," + base64.b64encode(data).decode("ascii"), width, height)


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """What is known, as text without passwords for a table of a page; mappings as `a=1, b=2`."""
    return {
        name: without_passwords(plain_text(value)) for name, value in values.items() if value not in (None, "", {}, [])
    }


def plain_text(value: Any) -> str:
    """A value as text; mappings as `a=1, b=2`, without what is None, and several of them as `a=1, b=2; a=3, b=4`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={plain_text(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return "; ".join(map(plain_text, value))
    return str(value)
