"""TPE: it finds what random search would not, and forgets nothing over a restart."""

import numpy as np

from bat_dist.sweep.proposals import Proposals
from bat_dist.sweep.space import draws, point_name, read_space

SPACE = read_space({"alpha": {"uniform": [0, 3]}, "beta": {"uniform": [0, 0.3]}})


def bowl(point: dict) -> float:
    """Highest, 0, at alpha 1, beta 0.2."""
    return -((point["alpha"] - 1) ** 2) - (10 * (point["beta"] - 0.2)) ** 2


def search(number: int, seed: int, *, restart_every: int = 10**9) -> list[dict]:
    known: list[dict] = []
    proposals = Proposals(SPACE, num_goals=1, seed=seed)
    while len(known) < number:
        if len(known) % restart_every == restart_every - 1:
            proposals = Proposals(SPACE, num_goals=1, seed=seed + len(known))
            for point in known:
                proposals.know(point, [bowl(point)])
        point = proposals.propose(known)
        assert point is not None
        proposals.ended(point, [bowl(point)])
        known.append(point)
    return known


def test_it_comes_nearer_than_random_search() -> None:
    seeds = range(5)
    tpe = np.mean([max(map(bowl, search(40, seed))) for seed in seeds])
    random = np.mean([max(map(bowl, draws(SPACE, 40, seed=seed))) for seed in seeds])
    assert tpe > random


def test_a_restart_does_not_make_it_begin_anew() -> None:
    late = [np.mean([bowl(point) for point in search(40, seed, restart_every=7)[20:]]) for seed in range(4)]
    drawn = [np.mean([bowl(point) for point in draws(SPACE, 40, seed=seed)[20:]]) for seed in range(4)]
    assert np.mean(late) > np.mean(drawn) / 2  # both are negative


def test_no_point_comes_twice_and_a_small_space_ends() -> None:
    space = read_space({"alpha": [0, 1], "beta": [0, 0.1]})
    proposals, known = Proposals(space, num_goals=1, seed=0), []
    while (point := proposals.propose(known)) is not None:
        known.append(point)
        proposals.ended(point, [0.5])
    assert sorted(map(point_name, known)) == [
        "alpha=0,beta=0",
        "alpha=0,beta=0.1",
        "alpha=1,beta=0",
        "alpha=1,beta=0.1",
    ]


def test_two_goals_failures_and_points_outside_are_taken() -> None:
    proposals = Proposals(SPACE, num_goals=2, seed=0)
    proposals.know({"alpha": 5, "beta": 0.1}, [1.0, 1.0])  # outside: an earlier sweep's
    proposals.know({"alpha": 1, "beta": 0.1}, None)
    proposals.know({"alpha": 2, "beta": 0.1}, [0.3, 0.4])
    proposals.begun({"alpha": 0.5, "beta": 0.2})
    proposals.ended({"alpha": 0.5, "beta": 0.2}, None)
    point = proposals.propose([])
    assert point is not None
    proposals.ended(point, [0.1, 0.2])
    proposals.ended({"alpha": 0.7, "beta": 0.0}, [0.1, 0.2])  # never proposed
