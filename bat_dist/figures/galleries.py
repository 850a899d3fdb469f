"""Pictures of samples: the paper's Fig. 5 and Fig. 7, and the extremes of a memorization estimate.

Images are enlarged without smoothing, so that a pixel of the data is seen as a pixel. Sheets are laid out in
inches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bat_dist.figures.selection import distinct_pairs, extremes, near_targets
from bat_dist.figures.style import DPI, INK, RULE, SOFT_INK, WIDTH, fit, message_figure, style
from bat_dist.wording import counted

Images = UInt8[np.ndarray, "samples height width 3"]

SIDE = 0.8  # of an image: 192 pixels at 240 dpi, a whole multiple of 8, 16, 32, 64 and 96
MARGIN = 0.1
INNER = 0.04  # between the images of a pair
TITLE, HEADING, LINE, GAP = 0.34, 0.25, 0.135, 0.15  # heights, and the gap below a cell
SMALL = 7.5  # points
NOTE = "id, class, mem ± standard error"


class GalleryCell(NamedTuple):
    """Images side by side, the id of each above it, and lines below: (text, colour)."""

    images: list[UInt8[np.ndarray, "height width 3"]]
    ids: list[str]
    below: list[tuple[str, str]]


class Block(NamedTuple):
    """A heading and its cells (None: left empty)."""

    heading: str
    cells: list[GalleryCell | None]


@style()
def memorization_gallery(
    images: Images,
    labels: Int[np.ndarray, " samples"],
    class_names: Sequence[str],
    mem: Float[np.ndarray, " samples"],
    mem_se: Float[np.ndarray, " samples"],
    ids: Shaped[np.ndarray, " samples"],
    *,
    accuracy_out: Float[np.ndarray, " samples"] | None = None,
    targets: Sequence[float] = (0.0, 0.5, 1.0),
    num_columns: int = 8,
) -> Figure:
    """The paper's Fig. 5: samples whose memorization is nearest to each target; a column holds one class."""
    title = "Samples of low, middle and high memorization"
    grid = near_targets(mem, labels, targets, num_columns, accuracy_out)
    if grid.size == 0:
        return message_figure(title, "No sample has a defined memorization value.")
    caption = _captioner(images, labels, class_names, mem, mem_se, ids)
    blocks = [
        Block(f"mem near {target:g}", [caption(i) if i >= 0 else None for i in row])
        for target, row in zip(targets, grid, strict=True)
    ]
    return _sheet(title, NOTE, blocks, per_row=num_columns)


@style()
def extremes_gallery(
    images: Images,
    labels: Int[np.ndarray, " samples"],
    class_names: Sequence[str],
    mem: Float[np.ndarray, " samples"],
    mem_se: Float[np.ndarray, " samples"],
    ids: Shaped[np.ndarray, " samples"],
    *,
    accuracy_out: Float[np.ndarray, " samples"] | None = None,
    k: int = 24,
) -> Figure:
    """The `k` most and the `k` least memorized samples (nearest to 0), ordered as `selection.extremes` says."""
    top, bottom = extremes(mem, k, accuracy_out, labels)
    title = "The most and the least memorized samples"
    if len(top) == 0:
        return message_figure(title, "No sample has a defined memorization value.")
    caption = _captioner(images, labels, class_names, mem, mem_se, ids)
    blocks = [
        Block(f"the {len(top)} highest, falling", [caption(i) for i in top]),
        Block(f"the {len(bottom)} nearest to 0", [caption(i) for i in bottom]),
    ]
    return _sheet(title, NOTE, [block for block in blocks if block.cells], per_row=8)


@style()
def influence_pairs_gallery(
    train_images: Images,
    test_images: UInt8[np.ndarray, "tests test_height test_width 3"],
    train_index: Int[np.ndarray, " pairs"],
    test_index: Int[np.ndarray, " pairs"],
    influence: Float[np.ndarray, " pairs"],
    influence_se: Float[np.ndarray, " pairs"],
    *,
    train_labels: Int[np.ndarray, " samples"],
    test_labels: Int[np.ndarray, " tests"],
    class_names: Sequence[str],
    mem: Float[np.ndarray, " samples"],
    train_ids: Shaped[np.ndarray, " samples"],
    test_ids: Shaped[np.ndarray, " tests"],
    k: int = 8,
) -> Figure:
    """The paper's Fig. 7: the `k` pairs of highest influence, at most one per train sample.

    Without any pair the figure says so.
    """
    title = "Train and test samples of high influence"
    shown = distinct_pairs(train_index, test_index, influence, k)
    if len(shown) == 0:
        return message_figure(title, "No pair of a train and a test sample has an influence above the threshold.")

    def cell(p: int) -> GalleryCell:
        i, j = int(train_index[p]), int(test_index[p])
        names = (str(class_names[train_labels[i]]), str(class_names[test_labels[j]]))
        return GalleryCell(
            [train_images[i], test_images[j]],
            [f"train {train_ids[i]}", f"test {test_ids[j]}"],
            [
                (_one_or_two(*names), INK),
                (f"infl {plus_minus(float(influence[p]), float(influence_se[p]))}", INK),
                (f"train mem {plus_minus(float(mem[i]))}", SOFT_INK),
            ],
        )

    heading = f"{len(shown)} of {counted(len(influence), 'pair')}; one per train sample"
    note = "infl ± standard error"
    return _sheet(title, note, [Block(heading, [cell(p) for p in shown])], per_row=4)


def plus_minus(value: float, error: float = np.nan) -> str:
    """`0.53 ± 0.04`; the value alone where the error is undefined, `n/a` where the value is."""
    if not np.isfinite(value):
        return "n/a"
    shown = f"{round(float(value), 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")  # + 0.0: no minus zero
    return f"{shown} ± {error:.2f}" if np.isfinite(error) else shown


def _one_or_two(train_name: str, test_name: str) -> str:
    if train_name == test_name:
        return train_name
    return f"{fit(train_name, 0.48, SMALL)} (train), {fit(test_name, 0.48, SMALL)} (test)"


def _captioner(images, labels, class_names, mem, mem_se, ids):
    """A function from a sample's index to its cell: the id above; the class and mem ± se below."""

    def caption(i: int) -> GalleryCell:
        below = [(str(class_names[labels[i]]), INK), (plus_minus(mem[i], mem_se[i]), INK)]
        return GalleryCell([images[i]], [str(ids[i])], below)

    return caption


def _sheet(title: str, note: str, blocks: list[Block], *, per_row: int) -> Figure:
    """Lay the blocks out below each other, `per_row` cells in a row, on a page as high as they need."""
    example = next(cell for block in blocks for cell in block.cells if cell)
    row_height = LINE + SIDE + len(example.below) * LINE + GAP
    pitch = (WIDTH - 2 * MARGIN - _width(example)) / (per_row - 1) if per_row > 1 else 0
    rows = [-(-len(block.cells) // per_row) for block in blocks]
    fig, ax = _page(TITLE + len(blocks) * HEADING + sum(rows) * row_height)
    y = ax.get_ylim()[1]
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


def _page(height: float) -> tuple[Figure, Axes]:
    """An empty figure whose coordinates are inches from its lower left corner."""
    height = round(height * DPI) / DPI
    fig = Figure(figsize=(WIDTH, height))
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()
    ax.set_autoscale_on(False)
    return fig, ax


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
