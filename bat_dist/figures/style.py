"""One look for all figures, and the one way in which they become files.

Figures are made with `matplotlib.figure.Figure`, never with pyplot: nothing stays open, no backend is chosen.
The style holds inside `with style():` (or below `@style()`), starts from matplotlib's own defaults whatever
the user's matplotlibrc says, and leaves the global settings as it found them.
"""

import logging
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

from bat_dist.storage.files import aside

log = logging.getLogger(__name__)

DPI = 240
WIDTH = 7.8  # inches, of every figure

# Okabe and Ito's palette, which stays distinct under the common forms of colour blindness.
BLUE, GREEN, RED, GREY = "#0072B2", "#009E73", "#D55E00", "#A6A6A6"
INK, SOFT_INK, RULE = "#1A1A1A", "#595959", "#D9D9D9"
DENSITY = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.25, 1, 256)), name="density")

_SHIPPED = "DejaVu Sans"  # by matplotlib
# Common fonts of scripts that it lacks: one that is installed draws what the others cannot.
_OF_OTHER_SCRIPTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC", "Source Han Sans"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "IPAGothic", "IPAexGothic", "Droid Sans Fallback", "Unifont"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil"),
)
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [_SHIPPED, "Verdana", "Helvetica", "Arial"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a class name may hold dollar signs
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": SOFT_INK,
    "ytick.color": SOFT_INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "image.composite_image": False,  # an SVG holds every image in its own pixels
    "savefig.dpi": DPI,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bat_dist",  # the same figure is the same bytes
}


@contextmanager
def style() -> Iterator[None]:
    """Within this context (or a function decorated with it) matplotlib draws in this project's style."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a class name in any script
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        matplotlib.rcParams["font.sans-serif"] = [_SHIPPED, *_further_fonts(), *STYLE["font.sans-serif"][1:]]
        yield


@cache
def _further_fonts() -> tuple[str, ...]:
    """Installed ones of other scripts."""
    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _OF_OTHER_SCRIPTS if name in installed)


@cache
def _drawable() -> frozenset[int]:
    """The characters that a font at hand has."""
    found = (get_font(fontManager.findfont(FontProperties(family=name))) for name in (_SHIPPED, *_further_fonts()))
    return frozenset(number for font in found for number in font.get_charmap())


def readable(text: str) -> str:
    """The text with the code (U+732B) of each character that no installed font has, in place of an empty box."""
    if text.isascii():
        return text
    missing = {char for char in text if ord(char) not in _drawable() and char.isprintable()}
    if missing:
        _say_missing("".join(sorted(missing)[:10]))
    return "".join(f"U+{ord(char):04X}" if char in missing else char for char in text)


@cache
def _say_missing(characters: str) -> None:
    log.warning("no installed font has %s: figures show codes; install one, Debian's fonts-noto-cjk", characters)


@style()
def save(fig: Figure, path_without_suffix: str | Path) -> tuple[Path, Path]:
    """Write `fig` as PNG and as SVG; both appear whole or not at all. Returns the two paths.

    The bytes depend on the figure alone: no date, no version of the program, ids salted with a constant.
    """
    for text in fig.findobj(Text):
        text.set_text(readable(text.get_text()))
    png, svg = Path(f"{path_without_suffix}.png"), Path(f"{path_without_suffix}.svg")
    with aside(png) as png_file, aside(svg) as svg_file:
        fig.savefig(png_file, format="png", dpi=DPI, metadata={"Software": None})
        fig.savefig(svg_file, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None})
    return png, svg


def fit(text: object, width: float, size: float, *, weight: str = "normal", keep_end: bool = False) -> str:
    """`text` on one line of at most `width` inches at `size` points; an ellipsis stands for the rest."""
    line = "".join(char if char.isprintable() else "?" for char in " ".join(readable(str(text)).split()))
    font, measure = FontProperties(size=size, weight=weight), TextToPath().get_text_width_height_descent

    def cut(length: int) -> str:
        if length == len(line):
            return line
        return "…" + line[len(line) - length :].lstrip() if keep_end else line[:length].rstrip() + "…"

    def too_wide(length: int) -> bool:
        return measure(cut(length), font, False)[0] > width * 72

    if not too_wide(len(line)):
        return line
    return cut(max(bisect_left(range(len(line)), True, key=too_wide) - 1, 0))


def titled_figure(title: str, height: float, *, layout: Any = "constrained", x: float = 0.01) -> Figure:
    """A figure of the common width, its title on one line at `x`, as a fraction of the width."""
    fig = Figure(figsize=(WIDTH, height), layout=layout)
    fig.suptitle(fit(title, WIDTH * 0.96, 11, weight="bold"), x=x, ha="left")
    return fig


def panel_figure(title: str, number: int, *, height: float, row: float) -> tuple[Figure, list[Any]]:
    """A figure with axes for so many panels, two in a row.  height: inches beside the rows; row: of each row."""
    rows = (number + 1) // 2
    fig = titled_figure(title, height + row * rows)
    axes = fig.subplots(rows, min(2, number), squeeze=False).flatten().tolist()
    for ax in axes[number:]:
        ax.set_visible(False)
    return fig, axes[:number]


def legend_below(fig: Figure, ax: Any, *, note: str, columns: int) -> None:
    """The legend of an axes below the figure, under a note; at most so many columns."""
    handles = ax.get_legend_handles_labels()
    legend = fig.legend(
        *handles, loc="outside lower center", ncols=min(columns, len(handles[1])), title=note, title_fontsize=9
    )
    legend.get_title().set_color(SOFT_INK)


class ShownFigure(Figure):
    """A figure that a notebook shows as a picture; IPython does that by itself for figures of pyplot alone."""

    @style()
    def _repr_png_(self) -> bytes:
        with BytesIO() as file:
            self.savefig(file, format="png", dpi=DPI / 2)
            return file.getvalue()


@style()
def message_figure(title: str, message: str) -> Figure:
    """A figure that says why there is nothing to draw, so that a run always leaves the same set of files."""
    fig = ShownFigure(figsize=(WIDTH, 1.3))
    fig.text(0.02, 0.72, fit(title, WIDTH * 0.96, 11, weight="bold"), weight="bold", size=11)
    fig.text(0.02, 0.32, fit(message, WIDTH * 0.96, 9.5), color=SOFT_INK)
    return fig
