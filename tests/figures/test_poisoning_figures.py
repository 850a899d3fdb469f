"""Figures of the study `poisoning`: any names and shares stay within the figure and apart from each other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bat_dist.figures.galleries import LookAlike, look_alike_gallery
from bat_dist.figures.study_figures import Estimate, human_labels

NAMES = (("cat", "dog"), ("American alligator, Alligator mississipiensis", "猫"), ("<script>", "$x$"), ("", "truck"))


def pair(number: int, classes: tuple[str, str]) -> LookAlike:
    images = np.random.default_rng(number).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    ids = (f"automobile/{number:05}.jpg", f"n01443537/images/n01443537_{number}.JPEG")
    return LookAlike((images[0], images[1]), ids, classes, 0.987 - number / 10)


def test_pairs_stand_under_their_headings(visible_texts: Callable[[Any], list[str]]) -> None:
    pairs = [pair(number, names) for number, names in enumerate(NAMES)]
    fig = look_alike_gallery({"Highest, 4 of 16": pairs, "Lowest, 1 of 16": pairs[:1]}, note="left: atypical")
    texts = visible_texts(fig)
    assert {"cat, taken for dog", "score 0.99", "Highest, 4 of 16", "Lowest, 1 of 16"} <= set(texts)
    drawn = [np.asarray(image.get_array()) for image in fig.axes[0].images]
    np.testing.assert_array_equal(drawn, [image for one in [*pairs, pairs[0]] for image in one.images])


def test_nothing_to_pair_is_said(visible_texts: Callable[[Any], list[str]]) -> None:
    assert any("No atypical sample" in text for text in visible_texts(look_alike_gallery({"Highest": []}, note="")))


@pytest.mark.parametrize("top", [0.0, 0.2, 1.0])
def test_shares_of_labels(visible_texts: Callable[[Any], list[str]], top: float) -> None:
    def some(names: list[str]) -> dict[str, Estimate]:
        return {name: Estimate(top / 2, 0, top, 50_000) for name in names}

    answers = ["not y1", "y2", "a third"]
    by_mem = some(["≤ 0.02", "0.02–0.15", "0.15–0.4", "0.4–0.7"]) | {"> 0.7": Estimate(top, np.nan, np.nan, 2)}
    fig = human_labels({"high scores": some(answers), "low scores": some(answers)}, by_mem, note="9 seeds; bars: x")
    texts = visible_texts(fig)
    assert {"high scores, 50,000 images", "0.02–0.15\nn = 50,000", "9 seeds; bars: x", *answers} <= set(texts)
    points = [line for line in fig.axes[0].lines if line.get_marker() in ("o", "s")]
    assert [[*np.asarray(line.get_ydata())] for line in points] == [[top / 2] * 3] * 2
