"""The report as one HTML file that works offline: figures are embedded, nothing is fetched."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page; all texts are plain, and escaped by the page."""

    title: str
    caption: str  # what one is looking at, in a sentence or two
    alt: str  # what the figure shows, for those who do not see it
    png_path: Path | str

    @property
    def png(self) -> "EmbeddedImage":
        """The file as the page embeds it."""
        return embedded_png(Path(self.png_path))


@dataclass(frozen=True)
class EmbeddedImage:
    """A data URI, and the image's size in pixels so that the page does not jump while it is drawn."""

    uri: str
    width: int
    height: int


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


def page_template(name: str) -> Template:
    """A page of `templates/`, in which all that is filled in is escaped."""
    environment = Environment(
        loader=PackageLoader("bat_dist.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


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
