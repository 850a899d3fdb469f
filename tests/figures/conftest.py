"""Synthetic images, and an eye for figures: no text may be cut or lie on another."""

from itertools import combinations
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from bat_dist.figures.style import style


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def samples():
    """60 samples of 5 classes, memorization 0, 1/59, ... 1 in a shuffled order; sample i has id `id-i`."""

    def make(num=60, height=8, width=8, names=("zero", "one", "two", "three", "four")):
        rng = np.random.default_rng(3)
        mem = rng.permutation(np.linspace(0, 1, num))
        return SimpleNamespace(
            images=rng.integers(0, 256, (num, height, width, 3), dtype=np.uint8),
            labels=np.arange(num) % len(names),
            class_names=names,
            mem=mem,
            low=mem - 0.1,
            high=mem + 0.05,
            ids=np.array([f"id-{i}" for i in range(num)]),
        )

    return make


@pytest.fixture
def visible_texts():
    """A function from a figure to its drawn texts; it fails if one leaves the figure or overlaps another."""

    @style()
    def look(fig):
        FigureCanvasAgg(fig).draw()
        hidden = {label for axis in fig.findobj(Axis) for label in _labels_out_of_view(axis)}
        texts = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
        texts = [t for t in texts if t not in hidden]
        boxes = [t.get_window_extent() for t in texts]
        for text, box in zip(texts, boxes, strict=True):
            inside = min(box.x0, box.y0) >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1
            assert inside, f"cut off: {text.get_text()!r}"
        for a, b in combinations(range(len(texts)), 2):
            across = min(boxes[a].x1, boxes[b].x1) - max(boxes[a].x0, boxes[b].x0)
            up = min(boxes[a].y1, boxes[b].y1) - max(boxes[a].y0, boxes[b].y0)
            assert across <= 0 or up <= 1, f"overlap: {texts[a].get_text()!r} and {texts[b].get_text()!r}"
        return [t.get_text() for t in texts]

    return look


def _labels_out_of_view(axis):
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    for tick in (*axis.majorTicks, *axis.minorTicks):
        if not low - slack <= tick.get_loc() <= high + slack or not axis.axes.axison:
            yield from (tick.label1, tick.label2)
