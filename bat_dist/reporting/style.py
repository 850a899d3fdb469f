"""One look for all figures, and the one way in which they become files.

Figures are made with `matplotlib.figure.Figure`, never with pyplot: nothing stays open, no backend is chosen.
The style holds inside `with style():` (or below `@style()`), starts from matplotlib's own defaults whatever
the user's matplotlibrc says, and leaves the global settings as it found them.
"""

import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from bat_dist.storage.files import aside

DPI = 240
WIDTH = 7.8  # inches, of every figure

# Okabe and Ito's palette, which stays distinct under the common forms of colour blindness.
BLUE, GREEN, RED, GREY = "#0072B2", "#009E73", "#D55E00", "#A6A6A6"
INK, SOFT_INK, RULE = "#1A1A1A", "#595959", "#D9D9D9"
DENSITY = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.25, 1, 256)), name="density")

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],  # matplotlib ships the first
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
        yield


@style()
def save(fig: Figure, path_without_suffix: str | Path) -> tuple[Path, Path]:
    """Write `fig` as PNG and as SVG; both appear whole or not at all. Returns the two paths.

    The bytes depend on the figure alone: no date, no version of the program, ids salted with a constant.
    """
    png, svg = Path(f"{path_without_suffix}.png"), Path(f"{path_without_suffix}.svg")
    with aside(png) as png_file, aside(svg) as svg_file:
        fig.savefig(png_file, format="png", dpi=DPI, metadata={"Software": None})
        fig.savefig(svg_file, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None})
    return png, svg


def fit(text: object, width: float, size: float, *, weight: str = "normal", keep_end: bool = False) -> str:
    """`text` on one line of at most `width` inches at `size` points; an ellipsis stands for the rest."""
    line = "".join(char if char.isprintable() else "?" for char in " ".join(str(text).split()))
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


@style()
def message_figure(title: str, message: str) -> Figure:
    """A figure that says why there is nothing to draw, so that a run always leaves the same set of files."""
    fig = Figure(figsize=(WIDTH, 1.3))
    fig.text(0.02, 0.72, fit(title, WIDTH * 0.96, 11, weight="bold"), weight="bold", size=11)
    fig.text(0.02, 0.32, fit(message, WIDTH * 0.96, 9.5), color=SOFT_INK)
    return fig
