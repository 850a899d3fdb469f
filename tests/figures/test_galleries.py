import re

import numpy as np
import pytest

from bat_dist.data.datasets import Split
from bat_dist.figures.galleries import (
    MemorizedSamples,
    extremes_gallery,
    influence_pairs_gallery,
    interval_text,
    memorization_gallery,
    number_text,
)
from bat_dist.figures.style import DPI, save
from bat_dist.memorization.influence import InfluencePairs

NAN = np.nan
NASTY = (
    "<script>alert('x')</script>",
    "$\\frac{1}{0}$ & so on",
    "猫",
    "American alligator, Alligator mississipiensis",
    "",
)


def memorized(s):
    return MemorizedSamples(Split(s.images, s.labels, s.ids), s.class_names, s.mem, s.low, s.high)


def gallery(draw, s, **options):
    return draw(memorized(s), **options)


def pairs(s, train_index, test_index, influence, **options):
    found = InfluencePairs(
        np.asarray(train_index, dtype=np.int64),
        np.asarray(test_index, dtype=np.int64),
        np.asarray(influence, dtype=np.float64),
        np.full(len(influence), 0.05),
        len(influence),
    )
    bounds = {"low": found.influence - 0.2, "high": found.influence + 0.1}
    return influence_pairs_gallery(memorized(s), Split(s.images[::-1], s.labels, s.ids), found, **bounds, **options)


def drawn_images(fig):
    return [np.asarray(image.get_array()) for image in fig.axes[0].images]


def test_extremes_are_the_right_images_in_order(samples, visible_texts):
    s = samples()
    fig = gallery(extremes_gallery, s, k=5)
    order = np.argsort(s.mem)
    expected = [*order[::-1][:5], *order[:5]]
    for image, i in zip(drawn_images(fig), expected, strict=True):
        assert (image == s.images[i]).all()
    texts = visible_texts(fig)
    assert [text for text in texts if text.startswith("id-")] == [f"id-{i}" for i in expected]
    for truth in ("mem 1.00", "[0.90, 1.05]", "mem 0.98", "[0.88, 1.03]"):  # 58/59
        assert truth in texts


def test_the_gallery_shows_each_class_at_each_target(samples, visible_texts):
    s = samples()
    s.mem = np.repeat(np.linspace(0, 1, 12), 5)  # of each class
    texts = visible_texts(gallery(memorization_gallery, s, num_columns=5))
    for name in s.class_names:
        assert texts.count(name) == 3
    for heading in ("mem near 0", "mem near 0.5", "mem near 1"):
        assert heading in texts


def test_an_empty_cell_says_none(samples, visible_texts):
    s = samples()
    s.mem = np.repeat(np.linspace(0, 1, 12), 5)
    s.mem[(s.mem > 0.89) & ((s.mem < 1) | (s.labels == 2))] = 0.8  # one of each class is near 1, none of class 2
    assert visible_texts(gallery(memorization_gallery, s, num_columns=5)).count("none") == 1


def test_a_value_that_no_sample_comes_near_is_a_statement(samples, visible_texts):
    """All values are at most 0.29: none is near 0.5 or 1, and the sample of 0.29 is shown for neither."""
    s = samples()
    s.mem = np.minimum(s.mem, 0.1)
    s.mem[7] = 0.29
    texts = visible_texts(gallery(memorization_gallery, s, num_columns=5))
    assert "mem near 0" in texts
    for target in ("0.5", "1"):
        assert f"mem near {target}: no sample within 0.1, the nearest is 0.29 (id id-7)" in texts
    assert "mem 0.29" not in texts
    assert "none" not in texts


def test_scores_without_intervals_show_none(samples, visible_texts):
    s = samples()
    s.low[:] = s.high[:] = NAN
    texts = visible_texts(gallery(extremes_gallery, s, k=5))
    assert "mem 1.00" in texts
    assert not any(text.startswith("[") for text in texts)


def test_pairs_stand_side_by_side_with_their_numbers(samples, visible_texts):
    s = samples()
    s.mem[[10, 20]] = 0.98, NAN
    s.low[[10, 20]], s.high[[10, 20]] = (0.88, NAN), (1.03, NAN)
    fig = pairs(s, [10, 10, 20], [15, 16, 21], [0.5, 0.4, 0.3])
    shown = drawn_images(fig)
    for image, truth in zip(shown, [s.images[10], s.images[::-1][15], s.images[20], s.images[::-1][21]], strict=True):
        assert (image == truth).all()
    texts = visible_texts(fig)
    for truth in (
        "2 of 3 pairs; one per train sample",
        *("train id-10", "test id-15", "zero", "infl 0.50 [0.30, 0.60]", "train mem 0.98 [0.88, 1.03]"),
        *("train id-20", "test id-21", "zero (train), one (test)", "infl 0.30 [0.10, 0.40]", "train mem n/a"),
    ):
        assert truth in texts


def test_no_pairs_is_said(samples, visible_texts):
    assert any("No pair" in text for text in visible_texts(pairs(samples(), [], [], [])))
    assert any("No pair" in text for text in visible_texts(pairs(samples(), [1], [1], [NAN])))


@pytest.mark.parametrize("draw", [memorization_gallery, extremes_gallery])
def test_undefined_values_are_not_shown(draw, samples, visible_texts):
    s = samples()
    s.mem[::2] = NAN
    shown = {text for text in visible_texts(gallery(draw, s)) if text.startswith("id-")}
    assert shown
    assert all(int(text[3:]) % 2 for text in shown)
    s.mem[:] = NAN
    assert "No sample has a defined memorization value." in visible_texts(gallery(draw, s))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 41), (300, 200)])
def test_any_image_size_and_any_name(size, samples, visible_texts, tmp_path):
    s = samples(num=30, height=size[0], width=size[1], names=NASTY)
    s.ids = np.array([f"n01443537/images/n01443537_{i}.JPEG" for i in range(30)])
    for fig in (
        gallery(memorization_gallery, s),
        gallery(extremes_gallery, s, k=8),
        pairs(s, range(8), range(1, 9), np.linspace(0.9, 0.2, 8)),
    ):
        assert visible_texts(fig)
        text = save(fig, tmp_path / "figure")[1].read_text()
        assert "<script" not in text


@pytest.mark.parametrize("num", [1, 2, 3, 49])
def test_any_number_of_samples(num, samples, visible_texts):
    s = samples(num=num)
    for draw in (memorization_gallery, extremes_gallery):
        fig = gallery(draw, s)
        visible_texts(fig)
        assert 1 <= len(drawn_images(fig)) <= num


def test_pixels_are_enlarged_without_smoothing(samples, tmp_path):
    """Every 8x8 image becomes blocks of equal pixels: no colour is drawn that the image does not hold."""
    from matplotlib.image import imread

    s = samples(num=1)
    s.images[:] = np.random.default_rng(0).choice([0, 255], (1, 8, 8, 1)).astype(np.uint8)
    fig = gallery(extremes_gallery, s)
    picture = (imread(save(fig, tmp_path / "figure")[0])[..., :3] * 255).round().astype(int)
    x0, _, _, y1 = fig.axes[0].images[0].get_extent()
    height, width = picture.shape[:2]
    assert (width, height) == tuple((fig.get_size_inches() * DPI).round().astype(int))
    left, top = round(x0 * DPI), height - round(y1 * DPI)
    for row, column in np.ndindex(8, 8):
        y, x = top + 24 * row + 4, left + 24 * column + 4
        assert (picture[y : y + 16, x : x + 16] == s.images[0, row, column, 0]).all()


def test_the_same_gallery_is_the_same_bytes(samples, tmp_path):
    first = save(gallery(extremes_gallery, samples()), tmp_path / "first")
    second = save(gallery(extremes_gallery, samples()), tmp_path / "second")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert a.stat().st_size > 10_000
    assert not re.search(r"(href|src)=\"(?!#|data:)", first[1].read_text())


@pytest.mark.parametrize(("value", "shown"), [(0.534, "0.53"), (-0.004, "0.00"), (-0.25, "−0.25"), (NAN, "n/a")])
def test_a_number_in_words(value, shown):
    assert number_text(value) == shown


def test_an_interval_in_words():
    assert interval_text(-0.254, 0.7) == "[−0.25, 0.70]"
    assert interval_text(NAN, 0.7) == interval_text(NAN, NAN) == ""
