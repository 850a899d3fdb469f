"""Pictures of samples: the paper's Fig. 5 and Fig. 7, and the extremes of a memorization estimate.

Images are enlarged without smoothing, so that a pixel of the data is seen as a pixel. Sheets are laid out in
inches.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bat_dist.data.datasets import Split
from bat_dist.figures.selection import WITHIN, distinct_pairs, extremes, near_targets, nearest_sample
from bat_dist.figures.style import DPI, INK, RULE, SOFT_INK, WIDTH, ShownFigure, fit, message_figure, style
from bat_dist.memorization.influence import InfluencePairs
from bat_dist.wording import counted

SIDE = 0.8  # of an image: 192 pixels at 240 dpi, a whole multiple of 8, 16, 32, 64 and 96
MARGIN = 0.1
INNER = 0.04  # between the images of a pair
TITLE, HEADING, LINE, GAP = 0.34, 0.25, 0.135, 0.15  # heights, and the gap below a cell
SMALL = 7.5  # points
NUM_PAIRS = 8  # that a gallery of influences shows


class GalleryCell(NamedTuple):
    """Images side by side, the id of each above it, and lines below: (text, colour)."""

    images: list[UInt8[np.ndarray, "height width 3"]]
    ids: list[str]
    below: list[tuple[str, str]]


class Block(NamedTuple):
    """A heading and its cells (None: left empty)."""

    heading: str
    cells: list[GalleryCell | None]


@dataclass(frozen=True)
class MemorizedSamples:
    """Training samples and their memorization, with the bounds of its 95% interval (NaN: unknown).

    accuracy_out: how often each is right when left out, if known.
    """

    split: Split
    class_names: Sequence[str]
    mem: Float[np.ndarray, " samples"]
    low: Float[np.ndarray, " samples"]
    high: Float[np.ndarray, " samples"]
    accuracy_out: Float[np.ndarray, " samples"] | None = None

    def cell(self, i: int) -> GalleryCell:
        """Sample `i`: its id above the image, its class, mem and the interval of mem below."""
        split, bounds = self.split, interval_text(self.low[i], self.high[i])
        below = [(str(self.class_names[split.labels[i]]), INK), (f"mem {number_text(self.mem[i])}", INK)]
        below += [(bounds, SOFT_INK)] if bounds else []
        return GalleryCell([split.images[i]], [str(split.ids[i])], below)

    def nearest_to(self, target: float) -> str:
        """How far the nearest value of mem is: `the nearest is 0.83 (id 12)`."""
        i = nearest_sample(self.mem, target)
        return f"the nearest is {number_text(self.mem[i])} (id {self.split.ids[i]})"

    def sheet(self, title: str, indices: Mapping[str, Iterable[int]], *, per_row: int) -> Figure:
        """A page of samples by heading; -1 is an empty cell."""
        blocks = [Block(name, [self.cell(i) if i >= 0 else None for i in row]) for name, row in indices.items()]
        nothing = "No sample has a defined memorization value."
        return _sheet(title, "id, class, mem, its 95% interval", blocks, per_row=per_row, nothing=nothing)


@style()
def memorization_gallery(
    samples: MemorizedSamples, *, targets: Sequence[float] = (0.0, 0.5, 1.0), num_columns: int = 8
) -> Figure:
    """The paper's Fig. 5: samples whose memorization is nearest to each target; a column holds one class.

    A target that no sample comes near is a line that says how far the nearest one is.
    """
    grid = near_targets(samples.mem, samples.split.labels, targets, num_columns, samples.accuracy_out)
    rows: dict[str, Iterable[int]] = {}
    for target, row in zip(targets, grid, strict=True):
        if (row >= 0).any():
            rows[f"mem near {target:g}"] = row
        elif np.isfinite(samples.mem).any():
            rows[f"mem near {target:g}: no sample within {WITHIN:g}, {samples.nearest_to(target)}"] = ()
    return samples.sheet("Samples of low, middle and high memorization", rows, per_row=num_columns)


@style()
def extremes_gallery(samples: MemorizedSamples, *, k: int = 24) -> Figure:
    """The `k` most and the `k` least memorized samples (nearest to 0), ordered as `selection.extremes` says."""
    top, bottom = extremes(samples.mem, k, samples.accuracy_out, samples.split.labels)
    rows = {f"the {len(top)} highest, falling": top, f"the {len(bottom)} nearest to 0": bottom}
    rows = {heading: row for heading, row in rows.items() if len(row)}
    return samples.sheet("The most and the least memorized samples", rows, per_row=8)


@style()
def influence_pairs_gallery(
    samples: MemorizedSamples,
    test: Split,
    pairs: InfluencePairs,
    *,
    low: Float[np.ndarray, " pairs"] | None = None,
    high: Float[np.ndarray, " pairs"] | None = None,
    k: int = NUM_PAIRS,
) -> Figure:
    """The paper's Fig. 7: the `k` pairs of highest influence, at most one per train sample, of all that were found.

    low, high: bounds of each influence's 95% interval, if known.
    """
    train, class_names = samples.split, samples.class_names
    if low is None or high is None:
        low = high = np.full(len(pairs.influence), np.nan)
    shown = distinct_pairs(pairs.train_index, pairs.test_index, pairs.influence, k)
    cells = []
    for p in shown:
        i, j = int(pairs.train_index[p]), int(pairs.test_index[p])
        names = [str(class_names[train.labels[i]]), str(class_names[test.labels[j]])]
        influence, *bounds = (float(values[p]) for values in (pairs.influence, low, high))
        bounds_of_mem = samples.low[i], samples.high[i]
        both = f"{fit(names[0], 0.48, SMALL)} (train), {fit(names[1], 0.48, SMALL)} (test)"
        below = [
            (names[0] if names[0] == names[1] else both, INK),
            (f"infl {number_text(influence)} {interval_text(*bounds)}".rstrip(), INK),
            (f"train mem {number_text(samples.mem[i])} {interval_text(*bounds_of_mem)}".rstrip(), SOFT_INK),
        ]
        ids = [f"train {train.ids[i]}", f"test {test.ids[j]}"]
        cells.append(GalleryCell([train.images[i], test.images[j]], ids, below))
    heading = f"{len(shown)} of {counted(pairs.num_found, 'pair')}; one per train sample"
    return _sheet(
        "Train and test samples of high influence",
        "influence (infl) with its 95% interval",
        [Block(heading, cells)],
        per_row=4,
        nothing="No pair of a train and a test sample has an influence above the threshold.",
    )


class LookAlike(NamedTuple):
    """An atypical sample (y1), and the typical sample of another class (y2) beside which it is drawn.

    images, ids, classes: of the two. q: poisoning score of the first.
    """

    images: tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width 3"]]
    ids: tuple[str, str]
    classes: tuple[str, str]
    q: float


@style()
def look_alike_gallery(groups: Mapping[str, Sequence[LookAlike]], *, note: str) -> Figure:
    """The paper's Fig. 3: atypical samples, each beside a typical one of the class it is confused with, by heading."""
    blocks = []
    for heading, pairs in groups.items():
        cells = []
        for one in pairs:
            label, other = (fit(name, 0.62, SMALL) for name in one.classes)
            below = [(f"{label}, taken for {other}", INK), (f"score {number_text(one.q)}", SOFT_INK)]
            cells.append(GalleryCell(list(one.images), list(one.ids), below))
        blocks.append(Block(heading if cells else f"{heading}: none", cells))
    nothing = "No atypical sample is confused with a class that has a typical one."
    return _sheet("Atypical samples and the class they are taken for", note, blocks, per_row=4, nothing=nothing)


def number_text(value: float) -> str:
    """`0.53`, `−0.25`; `n/a` where it is undefined."""
    shown = f"{round(float(value), 2) + 0.0:.2f}" if np.isfinite(value) else "n/a"  # + 0.0: no minus zero
    return shown.replace("-", "\N{MINUS SIGN}")


def interval_text(low: float, high: float) -> str:
    """`[0.31, 0.70]`; empty where it is undefined."""
    return f"[{number_text(low)}, {number_text(high)}]" if np.isfinite(low) and np.isfinite(high) else ""


def _sheet(title: str, note: str, blocks: Sequence[Block], *, per_row: int, nothing: str) -> Figure:
    """Lay the blocks out below each other, `per_row` cells in a row, on a page as high as they need.

    nothing: what the figure says if there is no cell; of a block without cells the heading is shown.
    """
    example = next((cell for block in blocks for cell in block.cells if cell), None)
    if example is None:
        return message_figure(title, nothing)
    row_height = LINE + SIDE + len(example.below) * LINE + GAP
    pitch = (WIDTH - 2 * MARGIN - _width(example)) / (per_row - 1) if per_row > 1 else 0
    rows = [-(-len(block.cells) // per_row) for block in blocks]
    y = round((TITLE + len(blocks) * HEADING + sum(rows) * row_height) * DPI) / DPI
    fig = ShownFigure(figsize=(WIDTH, y))
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, y))  # in inches from the lower left corner
    ax.set_axis_off()
    ax.set_autoscale_on(False)
    _text(ax, MARGIN, y - 0.22, title, WIDTH * 0.6, size=11, weight="bold", ha="left")
    _text(ax, WIDTH - MARGIN, y - 0.22, note, WIDTH * 0.36, size=8, ha="right", color=SOFT_INK)
    y -= TITLE
    for block, num_rows in zip(blocks, rows, strict=True):
        _text(ax, MARGIN, y - 0.17, block.heading, WIDTH - 2 * MARGIN, size=9.5, ha="left")
        y -= HEADING
        for n, cell in enumerate(block.cells):
            left, top = MARGIN + n % per_row * pitch, y - n // per_row * row_height
            if cell:
                _draw_cell(ax, cell, left, top, pitch)
            else:
                _text(ax, left + SIDE / 2, top - LINE - SIDE / 2, "none", SIDE, color=SOFT_INK)
        y -= num_rows * row_height
    return fig


def _width(cell: GalleryCell) -> float:
    return len(cell.images) * (SIDE + INNER) - INNER


def _draw_cell(ax: Axes, cell: GalleryCell, left: float, top: float, pitch: float) -> None:
    """Draw one cell, its upper left corner at (left, top) and the next one `pitch` to the right."""
    bottom, width = top - LINE - SIDE, _width(cell)
    for n, (image, name) in enumerate(zip(cell.images, cell.ids, strict=True)):
        x = left + n * (SIDE + INNER)
        _image(ax, image, x, bottom)
        _text(ax, x + SIDE / 2, top - LINE + 0.035, name, SIDE, color=SOFT_INK, keep_end=True)
    for n, (line, color) in enumerate(cell.below, start=1):
        room = width + max(0, pitch - width) * 0.7
        _text(ax, left + width / 2, bottom - n * LINE, line, room, color=color)


def _image(ax: Axes, image: UInt8[np.ndarray, "height width 3"], x: float, y: float) -> None:
    """Draw an image into the square at (x, y): pixels stay sharp, larger images are averaged down."""
    height, width = (SIDE * length / max(image.shape[:2]) for length in image.shape[:2])
    left, bottom = x + (SIDE - width) / 2, y + (SIDE - height) / 2
    left, bottom = round(left * DPI) / DPI, round(bottom * DPI) / DPI  # on the grid of the PNG's pixels
    larger = max(image.shape[:2]) > SIDE * DPI
    ax.imshow(
        np.asarray(image),
        extent=(left, left + width, bottom, bottom + height),
        aspect="auto",
        interpolation="antialiased" if larger else "none",
    )
    ax.add_patch(Rectangle((left, bottom), width, height, fill=False, edgecolor=RULE, linewidth=0.5))


def _text(ax, x, y, text, room, *, size=SMALL, weight="normal", color=INK, ha="center", keep_end=False) -> None:
    """Write one line, its baseline at (x, y), cut to `room` inches."""
    shown = fit(text, room, size, weight=weight, keep_end=keep_end)
    ax.text(x, y, shown, size=size, weight=weight, color=color, ha=ha, va="baseline")
