"""The hash is splitmix64, and what it draws looks uniform and independent in every direction."""

import pytest
import torch
from scipy.stats import chisquare, kstest, normaltest

from bat_dist.attacks.linf import gaussian_start, uniform_start
from bat_dist.attacks.noise import _mixed, image_keys, later, normal, uniform

GAMMA = 0x9E3779B97F4A7C15
KNOWN = [[18025, 9497128, 12958106], [11213450, 13232347, 13855556]]


def draw(*, seed=0, stream="a", ids=None, draws=(0,), shape=(64,)):
    ids = torch.arange(100) if ids is None else ids
    keys = image_keys(seed, stream, ids)
    return torch.stack([uniform(keys, number, *shape, dtype=torch.float64) for number in draws], dim=1)


def splitmix64(state):
    """With Python's own integers."""
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_it_is_splitmix64():
    """Its first number for seed 0 is E220A8397B1DCDAF, as published."""
    assert splitmix64(GAMMA) == 0xE220A8397B1DCDAF
    states = [k * GAMMA % 2**64 for k in range(1, 50)] + [0, 2**63, 2**64 - 1]
    signed = torch.tensor([state - 2**64 if state >= 2**63 else state for state in states])
    assert [value % 2**64 for value in _mixed(signed).tolist()] == [splitmix64(state) for state in states]


def test_known_numbers_stay():
    """They are part of every result on disk."""
    numbers = uniform(image_keys(1, "square", torch.tensor([0, 7])), 3, 3) * 2**24
    assert numbers.long().tolist() == KNOWN


@pytest.mark.parametrize(
    "numbers",
    [draw(shape=(1000,)), draw(ids=torch.arange(100_000), shape=(1,)), draw(draws=range(1000), shape=(1,))],
    ids=["positions", "ids", "draws"],
)
def test_uniform(numbers):
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    low_bits = (numbers * 2**24).long() % 256
    assert chisquare(torch.bincount(low_bits.flatten(), minlength=256).numpy()).pvalue > 1e-3


N = 100_000
EVERYTHING = draw(ids=torch.arange(50), draws=range(40), shape=(50,))  # ids, draws, positions
PAIRS = {
    "positions": (EVERYTHING[:, :, 1:], EVERYTHING[:, :, :-1]),
    "draws": (EVERYTHING[:, 1:], EVERYTHING[:, :-1]),
    "ids": (EVERYTHING[1:], EVERYTHING[:-1]),
    "draw and position": (EVERYTHING[:, 1:, :-1], EVERYTHING[:, :-1, 1:]),
    "id and draw": (EVERYTHING[1:, :-1], EVERYTHING[:-1, 1:]),
    "id and position": (EVERYTHING[1:, :, :-1], EVERYTHING[:-1, :, 1:]),
    "seeds": (EVERYTHING, draw(seed=1, ids=torch.arange(50), draws=range(40), shape=(50,))),
    "streams": (EVERYTHING, draw(stream="b", ids=torch.arange(50), draws=range(40), shape=(50,))),
    "far ids": (EVERYTHING, draw(ids=torch.arange(50) + 2**40, draws=range(40), shape=(50,))),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_independent(pair):
    """Correlation, and a chi-square over a grid of 8 x 8."""
    first, second = (numbers.flatten() for numbers in PAIRS[pair])
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 4 / len(first) ** 0.5
    cells = (first * 8).long() * 8 + (second * 8).long()
    assert chisquare(torch.bincount(cells, minlength=64).numpy()).pvalue > 1e-3


def test_no_number_comes_twice_more_often_than_by_chance():
    pairs = (
        EVERYTHING.flatten() * 2**24 * 2**24
        + draw(seed=9, ids=torch.arange(50), draws=range(40), shape=(50,)).flatten() * 2**24
    )
    assert pairs.unique().numel() == pairs.numel()


def test_by_image_whatever_the_batch_the_order_and_the_precision():
    ids = torch.tensor([5, 900, 2, 77])
    numbers = uniform(image_keys(3, "s", ids), 4, 2, 3)
    assert torch.equal(uniform(image_keys(3, "s", ids[[2, 0]]), 4, 2, 3), numbers[[2, 0]])
    assert torch.equal(uniform(image_keys(3, "s", ids), 4, 2, 3, dtype=torch.float64), numbers.double())
    assert not torch.equal(uniform(image_keys(3, "s", ids), 5, 2, 3), numbers)


def test_any_whole_number_is_a_seed():
    assert len({draw(seed=seed)[0, 0, 0].item() for seed in (0, -1, 2**63, 2**70)}) == 4


def test_normal():
    numbers = normal(image_keys(0, "a", torch.arange(300)), 0, 7, 101, dtype=torch.float64)
    assert numbers.shape == (300, 7, 101)
    assert numbers.abs().max() < 5.8
    assert kstest(numbers.flatten().numpy(), "norm").pvalue > 1e-3
    assert normaltest(numbers.flatten().numpy()).pvalue > 1e-3
    halves = numbers.flatten(1)[:, :706].unflatten(1, (2, 353))  # cosines and sines of the same angles
    assert abs(torch.corrcoef(halves.transpose(0, 1).flatten(1))[0, 1]) < 4 / (300 * 353) ** 0.5


@pytest.mark.parametrize("start", [uniform_start, gaussian_start])
def test_where_an_image_starts_depends_on_its_key_alone(start):
    x = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1  # clipped nowhere
    keys, at = image_keys(0, "a", torch.arange(6)), torch.tensor([4, 1])
    whole = start(x, epsilon=0.1, generator=keys)
    assert torch.equal(start(x[at], epsilon=0.1, generator=keys[at]), whole[at])
    again = start(x, epsilon=0.1, generator=later(keys, 1))
    assert not (again == whole).flatten(1).all(1).any()
    moves = whole - x
    assert moves.abs().max() <= (0.1 + 1e-6 if start is uniform_start else 0.006)
    assert abs(moves.std() - (0.1 / 3**0.5 if start is uniform_start else 0.001)) < 0.1 * moves.std()


def test_restarts_have_numbers_of_their_own():
    keys = image_keys(0, "a", torch.arange(50))
    runs = torch.stack([uniform(later(keys, restart), 0, 200) for restart in range(3)])
    assert torch.equal(runs[0], uniform(keys, 0, 200))
    assert torch.corrcoef(runs.flatten(1)).fill_diagonal_(0).abs().max() < 4 / 10_000**0.5
