import numpy as np
import pytest
from matplotlib.patches import Rectangle

from bat_dist.figures.charts import accuracy_by_trial, alignment_scatter, memorization_histogram, undecided_by_trials
from bat_dist.figures.style import save
from bat_dist.memorization.stopping import Look

NAN = np.nan

# Ten defined values: 5 below 0.02; 0.02, 0.1 and 0.15 between (both limits are strict); 0.5 and 1 above 0.15.
MEM = np.array([-0.02, 0.0, 0.0, 0.0, 0.01, 0.02, 0.1, 0.15, 0.5, 1.0, NAN, NAN])
TRUTHS = [
    *("typical, mem < 0.02", "50.0% (5)"),
    *("between", "30.0% (3)"),
    *("atypical, mem > 0.15", "20.0% (2)"),
    "40.0% above 0.02",
    "20.0% above 0.15",
    "mem value; 2 undefined (NaN), not drawn",
    "toy: memorization of 12 training samples, 1,000 trials",
]


def histogram(mem=MEM, **changes):
    return memorization_histogram(mem, **{"num_trials": 1000, "dataset": "toy"} | changes)


def alignment(score, mem, **changes):
    stats = {"score_name": "disagreement", "spearman": 0.8, "spearman_interval": (0.75, 0.85), "auroc": 0.9}
    return alignment_scatter(score, mem, **stats | changes)


def test_the_shares_counted_by_hand_stand_in_the_svg(tmp_path):
    text = save(histogram(), tmp_path / "figure")[1].read_text()
    for truth in TRUTHS:
        assert f">{truth.replace('<', '&lt;').replace('>', '&gt;')}</text>" in text


def test_bars_and_curve_hold_the_counts():
    left, right = histogram().axes
    bars = {}
    for bar in left.patches:
        assert isinstance(bar, Rectangle)
        bars[round(bar.get_x(), 2)] = bars.get(round(bar.get_x(), 2), 0) + bar.get_height()
    filled = {x: share for x, share in bars.items() if share}
    assert filled == pytest.approx({-0.05: 0.1, 0: 0.5, 0.1: 0.1, 0.15: 0.1, 0.5: 0.1, 0.95: 0.1})
    x, above = map(np.asarray, right.lines[0].get_data())
    np.testing.assert_allclose(above, [(value < MEM).sum() / 10 for value in x])


def test_other_thresholds_move_the_groups(visible_texts):
    texts = visible_texts(histogram(thresholds=(0.1, 0.5)))
    assert "typical, mem < 0.1\n60.0% (6)" in texts
    assert "atypical, mem > 0.5\n10.0% (1)" in texts


@pytest.mark.parametrize(
    "mem",
    [
        MEM,
        np.zeros(5),
        np.ones(5),
        np.array([1.0]),
        np.array([-1.0, 1.0]),
        np.full(3, NAN),
        np.zeros(0),
        np.tile(np.linspace(-0.1, 1, 1301), 1000),
        np.repeat([0.0, 1.0], 50_000).astype(np.float32),
    ],
    ids=["toy", "zeros", "ones", "single", "range", "nan", "empty", "million", "float32"],
)
@pytest.mark.parametrize("dataset", ["toy", "a dataset of a very long name " * 5])
def test_any_histogram_is_readable(mem, dataset, visible_texts):
    texts = visible_texts(histogram(mem, dataset=dataset))
    assert texts
    if not np.isfinite(mem).any():
        assert f"No value is defined: {len(mem)} undefined (NaN)." in texts


def test_accuracy_states_mean_spread_and_gap(visible_texts):
    """in: 98% and 100%, each 1 from the mean, so sd = sqrt(2); out: 80% and 90%; test: 85% once."""
    texts = visible_texts(
        accuracy_by_trial(np.array([0.98, 1.0]), np.array([0.8, 0.9]), np.array([0.85, NAN]), dataset="toy")
    )
    for truth in ("trained on\n99.0% ± 1.4", "left out\n85.0% ± 7.1", "test set\n85.0%"):
        assert truth in texts
    assert "trained on minus left out: 14.0 points" in texts


@pytest.mark.parametrize("num", [0, 1, 8, 1000])
def test_any_number_of_trials(num, visible_texts):
    rng = np.random.default_rng(0)
    texts = visible_texts(accuracy_by_trial(np.ones(num), rng.random(num), rng.random(num), dataset="toy" * 60))
    assert ("No trial is complete." in texts) == (num == 0)


LOOKS = [Look(10, 0.0, 0.0, 1.0, 1.2, NAN), Look(20, 0.1, 0.3, 0.6, 0.7, 0.5), Look(30, 0.125, 0.625, 0.25, 0.4, 0.8)]


@pytest.mark.parametrize("looks", [LOOKS, LOOKS[:1]], ids=["three", "one"])
def test_looks_state_what_the_last_one_decides(looks, visible_texts):
    texts = visible_texts(undecided_by_trials(looks, dataset="toy", sigma=0.15, goal="at most 25%"))
    last = looks[-1]
    assert f"toy: what {last.num_trials} trials decide" in texts
    for name, share in (("mem > 0.15", last.above), ("undecided", last.undecided), ("not above", last.below)):
        assert f"{name}: {100 * share:.1f}%" in texts
    assert "goal: at most 25%" in texts


def test_alignment_states_the_statistics(visible_texts):
    rng = np.random.default_rng(0)
    mem = rng.random(500)
    mem[:3] = NAN
    texts = visible_texts(alignment(mem + rng.random(500), mem, spearman=-0.8126, auroc=NAN))
    assert "Disagreement against memorization, 497 samples" in texts
    assert "Spearman −0.813 [0.750, 0.850]   ·   AUROC for mem > 0.15 (dashed): n/a" in texts


@pytest.mark.parametrize("num", [1, 20, 300, 20_000])
@pytest.mark.parametrize("scale", [0, 1, 1e-7, 1e5])
def test_any_alignment_is_readable(num, scale, visible_texts):
    rng = np.random.default_rng(0)
    assert visible_texts(alignment(scale * rng.random(num), rng.random(num), score_name="score " * 40))


def test_every_sample_is_drawn():
    rng = np.random.default_rng(0)
    many = alignment(rng.random(1000), rng.random(1000))
    counts = many.axes[0].collections[0].get_array()
    assert counts is not None
    assert counts.sum() == 1000
    few = alignment(rng.random(299), rng.random(299))
    assert len(np.asarray(few.axes[0].lines[0].get_xdata())) == 299


def test_no_sample_with_both_values(visible_texts):
    assert "No sample has both values." in visible_texts(alignment(np.array([NAN, 1.0]), np.array([0.5, NAN])))


@pytest.mark.parametrize(
    "draw",
    [
        histogram,
        lambda: alignment(np.linspace(0, 1, 99), np.linspace(0, 1, 99) ** 2),
        lambda: accuracy_by_trial(np.ones(9), np.linspace(0, 1, 9), np.linspace(0, 0.9, 9), dataset="toy"),
    ],
    ids=["histogram", "alignment", "accuracy"],
)
def test_the_same_figure_is_the_same_bytes(draw, tmp_path):
    first, second = save(draw(), tmp_path / "first"), save(draw(), tmp_path / "second")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert a.stat().st_size > 5000
