"""Which attack meets which images: chains, seeds, and units that have every image once and cost alike."""

import numpy as np
import pytest

from bat_dist.evaluation.names import PROBE, passes
from bat_dist.evaluation.plan import CHECKS, CLEAN_STAGE, Stage, cut, is_whole_autoattack, make_plan, spread

FOUR = ("apgd-ce", "apgd-t", "fab-t", "square")


def test_autoattack_is_a_chain_with_a_row_for_each_link() -> None:
    plan = make_plan(("clean", "autoattack"), (0,), checks=())
    assert list(plan.rows) == ["clean", *(f"autoattack:{part}" for part in FOUR), "autoattack"]
    whole = plan.rows["autoattack"][0]
    assert whole == Stage(FOUR, 0)
    assert is_whole_autoattack(whole)
    assert not is_whole_autoattack(whole.chain[2])
    assert plan.rows["autoattack:square"] == plan.rows["autoattack"]
    before = [CLEAN_STAGE, *whole.chain[:-1]]
    assert [stage.before for stage in whole.chain] == before
    assert plan.stages == (CLEAN_STAGE, *whole.chain)
    assert str(whole.chain[1]) == "apgd-ce+apgd-t@0"


def test_what_two_attacks_share_is_done_once() -> None:
    plan = make_plan(("apgd-ce", "autoattack_fast", "autoattack"), (0,), checks=())
    assert plan.stages == (CLEAN_STAGE, *Stage(FOUR, 0).chain)
    assert plan.rows["autoattack_fast"] == (Stage(FOUR[:2], 0),)


def test_seeds_have_rows_of_their_own_and_the_worst() -> None:
    plan = make_plan(("clean", "fgsm", "pgd5", "autoattack_fast"), (3, 7), checks=())
    assert list(plan.rows) == [
        *("clean", "fgsm", "pgd5@3", "pgd5@7", "pgd5@worst"),
        *(f"autoattack_fast{part}@{seed}" for seed in (3, 7) for part in (":apgd-ce", ":apgd-t", "")),
        *("autoattack_fast@worst", "worst_case"),
    ]
    assert plan.rows["pgd5@worst"] == (Stage(("pgd5",), 3), Stage(("pgd5",), 7))
    fast = [Stage(FOUR[:2], seed) for seed in (3, 7)]
    assert set(plan.rows["worst_case"]) == {
        Stage(("fgsm",)),
        *plan.rows["pgd5@worst"],
        *(link for stage in fast for link in stage.chain),
    }


def test_the_checks_attack_images_of_their_own() -> None:
    plan = make_plan(("clean",), (0,))
    checks = [stage for stage in plan.stages if stage.among == "checked"]
    assert [stage.attack for stage in checks] == [PROBE, *CHECKS]
    assert all(stage.before == CLEAN_STAGE for stage in checks if stage.attack != PROBE)
    assert "worst_case" not in plan.rows
    assert len({str(stage) for stage in make_plan(("pgd100",), (0,)).stages}) == len(CHECKS) + 3  # names of folders


def test_what_others_wait_for_weighs_most() -> None:
    plan = make_plan(("pgd20", "autoattack"), (0,), checks=())
    whole = plan.rows["autoattack"][0]
    assert plan.weight(whole) == 5000
    assert plan.weight(whole.chain[0]) == 300 + 2700 + 3600 + 5000
    assert plan.weight(CLEAN_STAGE) == 1 + plan.weight(whole.chain[0])
    assert plan.weight(Stage(("pgd20",), 0)) == 60


ALL = ["clean", "fgsm", "pgd20", "cw100", "apgd-ce", "apgd-t", "fab-t", "square"]


@pytest.mark.parametrize("attack", ALL)
@pytest.mark.parametrize("images", [1, 37, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_units_hold_every_image_once(attack: str, images: int, batch_size: int) -> None:
    standing = np.flatnonzero(np.random.default_rng(0).random(images) < 0.6)
    units = cut(standing, Stage((attack,), 0), batch_size)
    assert sorted(np.concatenate([np.arange(0), *units]).tolist()) == standing.tolist()
    lengths = [len(unit) for unit in units]
    if lengths:
        assert max(lengths) - min(lengths) <= 1
        assert lengths[0] == max(lengths)


def test_units_of_all_attacks_cost_about_the_same() -> None:
    """5,000 times dearer an attack, at most 9 times dearer a unit (a unit must fill half a batch)."""
    costs = [len(cut(np.arange(10**6), Stage((name,), 0), 64)[0]) * passes(name) for name in ALL]
    assert passes("square") / passes("clean") == 5000
    assert max(costs) / min(costs) < 9


@pytest.mark.parametrize(("images", "units"), [(200, 8), (57, 2), (18, 2), (15, 1), (65, 4), (0, 0)])
def test_two_workers_end_together(images: int, units: int) -> None:
    assert len(cut(np.arange(images), Stage(FOUR, 0), 64)) == units
    assert len(cut(np.arange(images), Stage((PROBE,), None, "checked"), 64)) == (images > 0)


def test_the_checked_images_are_spread_evenly() -> None:
    assert spread(np.arange(100), 5).tolist() == [0, 24, 49, 74, 99]
    assert spread(np.array([4, 7, 9]), 64).tolist() == [4, 7, 9]
    assert spread(np.arange(10), 0).tolist() == spread(np.arange(0), 5).tolist() == []
