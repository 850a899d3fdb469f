from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from bat_dist.figures.theory_figures import TheoremPanel, by_ratio, theorem_regions

Look = Callable[[Figure], list[str]]
W, B = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), np.array([-0.4, 0.0, 0.0])


def panel(ratio: float, violated: np.ndarray) -> TheoremPanel:
    return TheoremPanel(ratio, 1 / ratio, 0.7, W, B, violated, 0.024 * bool(len(violated)))


def test_boundaries_circles_and_samples_lie_where_they_are(visible_texts: Look) -> None:
    violated = np.array([[0.5, 0.9], [0.5, -0.9]])
    fig = theorem_regions([panel(2.5, violated), panel(4.0, np.empty((0, 2)))], note="a grid of 5 x 5")
    texts = visible_texts(fig)
    assert "eta/sigma = 2.5: 2.4% of samples contradict it" in texts
    assert "eta/sigma = 4: no sample contradicts it" in texts
    assert {"a grid of 5 x 5", "x0 that contradict Theorem 1", "model F1 of the proof"} <= set(texts)
    for line, w, b in zip(fig.axes[0].lines, W, B, strict=False):
        np.testing.assert_allclose(np.column_stack(line.get_data()) @ w + b, 0, atol=1e-12)
    np.testing.assert_array_equal(np.column_stack(fig.axes[0].lines[3].get_data()), violated)
    circles = {(one.center, round(one.radius, 6)) for one in fig.axes[0].patches if isinstance(one, Circle)}
    assert circles == {
        *(((sign, 0), round(n * 0.4, 6)) for sign in (-1, 1) for n in (1, 2, 3)),
        *(((1, 0), 0.7), ((-1, 0), 2)),
    }


def test_one_ratio_has_one_panel_and_none_a_message(visible_texts: Look) -> None:
    assert len(theorem_regions([panel(4.0, np.empty((0, 2)))], note="").axes) == 1
    assert "No eta/sigma was checked." in visible_texts(theorem_regions([], note=""))


@pytest.mark.parametrize("ratios", [[2.5, 3.0, 3.5, 4.0, 5.0, 7.0, 10.0, 20.0], [3.0], list(np.arange(3.0, 40))])
def test_lines_over_the_ratio_for_few_and_many(visible_texts: Look, ratios: list[float]) -> None:
    lines = {f"Theorem {n}": (ratios, [1.0 / ratio for ratio in ratios]) for n in (1, 2)}
    fig = by_ratio(lines, lines, note="exact")
    texts = visible_texts(fig)
    assert {"Theorem 1", "Theorem 2", "exact", f"{ratios[0]:g}", f"{ratios[-1]:g}"} <= set(texts)
    x, y = map(np.asarray, fig.axes[0].lines[0].get_data())
    np.testing.assert_allclose(x * y, 1)
