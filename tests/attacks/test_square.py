"""The schedule is the published one, squares and stripes are drawn as described, and no gradient is ever asked for."""

import pytest
import torch
from pyautoattack.square import SquareAttack
from scipy.stats import chisquare
from torch import nn

from bat_dist.attacks.square import margins, side_length, square
from tests.attacks.robust_nets import EPSILON, IDS, Forward, X, Y, golden_net, inputs_of

SETTINGS = {"epsilon": EPSILON, "seed": 0, "ids": IDS}


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (224, 224), (16, 32)])
def test_the_schedule(size):
    rival = SquareAttack(None, p_init=0.8, n_queries=5000, eps=0.1, resc_schedule=False)
    for query in range(10_001):
        side = max(round((rival.p_selection(query) * size[0] * size[1]) ** 0.5), 1)
        assert side_length(query, size, 0.8) == min(side, *size)


def test_side_lengths_by_hand():
    """sqrt(0.8 * 1024) = 28.6; halved after 10, 50, 200: 20.2, 14.3, 10.1; at the end sqrt(6.4) = 2.5."""
    assert [side_length(query, (32, 32), 0.8) for query in (0, 10, 11, 51, 201, 4001)] == [29, 29, 20, 14, 10, 3]


def test_margins_by_hand():
    assert margins(torch.tensor([[3.0, 1, 2], [3, 1, 2]]), torch.tensor([0, 1])).tolist() == [1, -2]


class Fortress(nn.Module):
    """Says class 0, with -1 the surer the darker: queries that darken the image are taken back."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        score = 1e3 + self.sign * x.double().flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1).to(x.dtype)


def asked(queries=400, count=200, size=8):
    """x and the candidates of images in the middle of the range, at double precision."""
    x, model = torch.full((count, 3, size, size), 0.5, dtype=torch.float64), Fortress(-1)
    ids, labels = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    logits = model(x)
    work = lambda: square(model, x, labels, epsilon=0.1, seed=0, ids=ids, logits=logits, num_queries=queries)  # noqa: E731
    return x, inputs_of(model, work)


def better(candidate, best):
    wins = Fortress(-1)(candidate)[:, 0] < Fortress(-1)(best)[:, 0]
    return torch.where(wins.view(-1, 1, 1, 1), candidate, best)


def test_stripes_then_squares_of_one_color_per_channel():
    x, candidates = asked()
    stripes = candidates[0] - x
    assert torch.allclose(stripes.abs(), torch.tensor(0.1, dtype=torch.float64))
    assert torch.equal(stripes, stripes[:, :, :1].expand_as(stripes))
    assert abs(stripes[:, :, 0].mean()) < 0.1 * 4 / (200 * 24) ** 0.5
    best = candidates[0]
    for query, candidate in enumerate(candidates[1:]):
        side = side_length(query, (8, 8), 0.8)
        changed = (candidate != best).any(1)
        for axis in (1, 2):
            hit = changed.any(axis)
            first, last = hit.long().argmax(1), 7 - hit.long().flip(1).argmax(1)
            assert ((last - first < side) | ~hit.any(1)).all()  # or nothing changed
        best = better(candidate, best)
    assert (best - x).abs().max() <= 0.1 + 1e-12
    assert (best - x)[:, :, :7, :7].mean() > 0.095  # all painted bright but the last row and column


def test_every_place_is_as_likely():
    """A square of side 1 (late queries) on 8 x 8: rows and columns 0 to 6, as in the published code."""
    x, candidates = asked(queries=1400)
    places, colors = [], []
    best = candidates[0]
    for query, candidate in enumerate(candidates[1:]):
        if side_length(query, (8, 8), 0.8) == 1:
            changed = candidate != best
            places += changed.any(1).nonzero()[:, 1:].tolist()
            colors += (candidate > x)[changed].tolist()
        best = better(candidate, best)
    rows, columns = torch.tensor(places).T
    assert rows.max() == columns.max() == 6
    assert len(rows) > 5000
    for line in (rows, columns):
        assert chisquare(torch.bincount(line, minlength=7).numpy()).pvalue > 1e-3


def test_no_gradient_is_asked_for():
    model = nn.Sequential(Forward(), *golden_net())
    with pytest.raises(AssertionError, match="backward was called"):
        model(X.clone().requires_grad_()).sum().backward()
    robust = square(model, X, Y, **SETTINGS, num_queries=200).robust
    assert robust.sum() < (model(X).argmax(1) == Y).sum()


def test_more_queries_find_more():
    few, many = (square(golden_net(), X, Y, **SETTINGS, num_queries=queries).robust for queries in (5, 1000))
    assert few.sum() > many.sum()
    assert not (many & ~few).any()  # the first queries are the same


def test_images_must_have_rows_and_columns():
    with pytest.raises(
        ValueError, match=r"Square paints images \[batch, channels, height, width\], got shape \[64, 192\]"
    ):
        square(golden_net(), X.flatten(1), Y, **SETTINGS)
