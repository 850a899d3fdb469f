"""Pages of HTML that work offline: figures are embedded, nothing is fetched."""

import base64
import io
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Template
from matplotlib.figure import Figure
from PIL import Image

from bat_dist.figures.style import BLUE, INK, RULE, SOFT_INK, save
from bat_dist.reporting.jinja import templates
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import without_passwords

COLORS = {
    "paper": ("#ffffff", "#15181c"),
    "ink": (INK, "#e6e6e6"),
    "soft": (SOFT_INK, "#a9afb6"),
    "rule": (RULE, "#3a4047"),
    "edge": ("#767676", "#8b929a"),
    "accent": ("#005a8e", "#7cc4f5"),
    "warn": ("#8a3800", "#ffb27a"),
    "alert": ("#fff6ef", "#2c2118"),
    "calm": ("#f1f7fb", "#1b242c"),
    "figure": ("#ffffff", "#c4c8cc"),
}
"""Of all pages, in a light and in a dark one; the style sheet has them as variables."""
_CHART_COLORS = {
    **dict(COLORS[name] for name in ("ink", "soft", "rule")),
    BLUE: "#5b8def",
    "#333333": "#c4c8cc",  # points that are neither chosen nor the reference
    # Of plotly's template plotly_white: text, grid and axes, background.
    "#2a3f5f": COLORS["ink"][1],
    "#EBF0F8": COLORS["rule"][1],
    "#DFE8F3": COLORS["rule"][1],
    '"white"': f'"{COLORS["paper"][1]}"',
}
"""What a dark page draws in the place of a chart's colours."""
_OWN_PIXELS = 64  # the longest side of an image that a page holds as it is
_THUMBNAIL = 96  # the longest side of what it holds of a larger one


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
    environment = templates(autoescape=True)
    environment.globals.update(colors=COLORS, chart_colors=_CHART_COLORS)
    return environment.get_template(name)


def render_memorization_page(
    *,
    title: str,
    findings: Sequence[str],
    files: Mapping[str, str],
    summary: Mapping[str, str],
    figures: Sequence[PageFigure],
    warnings: Sequence[str],
    provenance: Mapping[str, str],
) -> str:
    """The page of one memorization run, as text.

    `findings` are sentences at the top; `files` are links below them, from words to a file beside the page. `summary`
    and `provenance` become two tables, in their order; `warnings` come before what they question.
    """
    return page_template("memorization.html.j2").render(
        title=title,
        findings=findings,
        files=files,
        summary=summary,
        figures=figures,
        warnings=warnings,
        provenance=provenance,
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


def png_uri(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """An image of a data set as a data URI, pixel by pixel."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnail_uri(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """An image as a data URI: a small one pixel by pixel, a larger one reduced to at most 96 pixels a side."""
    if max(image.shape[:2]) <= _OWN_PIXELS:
        return png_uri(image)
    reduced, buffer = Image.fromarray(image), io.BytesIO()
    reduced.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    reduced.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


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
