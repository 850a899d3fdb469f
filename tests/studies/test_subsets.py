"""Training sets of Sec. 3.2, against their definitions on drawn scores."""

import numpy as np
import pytest

from bat_dist.studies.subsets import (
    check_sets,
    least_memorized_removed,
    random_removed,
    with_share,
    without_atypical,
)

MEM = np.random.default_rng(0).uniform(-0.2, 0.6, 500).round(2)
TYPICAL, ATYPICAL = MEM < 0.02, MEM > 0.15


def test_a_share_holds_all_typical_samples_and_its_part_of_the_atypical_ones() -> None:
    for share in (0.0, 20.0, 50.0, 100.0):
        taken = np.zeros(500, bool)
        taken[with_share(TYPICAL, ATYPICAL, share, seed=1)] = True
        assert taken[TYPICAL].all()
        assert not taken[~TYPICAL & ~ATYPICAL].any()
        assert taken[ATYPICAL].sum() == round(ATYPICAL.sum() * share / 100)


def test_a_larger_share_holds_a_smaller_one_and_another_seed_draws_others() -> None:
    small, large = (with_share(TYPICAL, ATYPICAL, share, seed=1) for share in (20.0, 50.0))
    assert np.isin(small, large).all()
    assert not np.array_equal(small, with_share(TYPICAL, ATYPICAL, 20.0, seed=2))


def test_without_atypical_samples_those_between_the_thresholds_stay() -> None:
    assert without_atypical(ATYPICAL).tolist() == np.flatnonzero(MEM <= 0.15).tolist()


def test_both_controls_are_as_large_as_the_set_without_atypical_samples() -> None:
    wanted = len(with_share(TYPICAL, ATYPICAL, 0.0, seed=3))
    for control in (
        random_removed(TYPICAL, ATYPICAL, seed=3),
        least_memorized_removed(TYPICAL, ATYPICAL, MEM, seed=3),
    ):
        assert len(control) == len(set(control)) == wanted
        assert (TYPICAL | ATYPICAL)[control].all()


def test_the_least_memorized_are_removed_and_the_seed_decides_among_equal_ones() -> None:
    kept = least_memorized_removed(TYPICAL, ATYPICAL, MEM, seed=3)
    removed = np.setdiff1d(np.flatnonzero(TYPICAL | ATYPICAL), kept)
    assert MEM[removed].max() <= MEM[kept].min()
    flat = np.zeros(500)
    one, other = (least_memorized_removed(TYPICAL, ATYPICAL, flat, seed=seed) for seed in (3, 4))
    assert not np.array_equal(one, other)


def test_random_removal_takes_typical_and_atypical_samples_in_their_shares() -> None:
    shares = [ATYPICAL[random_removed(TYPICAL, ATYPICAL, seed=seed)].mean() for seed in range(200)]
    assert np.mean(shares) == pytest.approx(ATYPICAL.sum() / (TYPICAL | ATYPICAL).sum(), abs=0.01)


def test_an_empty_set_is_named() -> None:
    sets = {"train_atypical": np.zeros(5, bool), "test_typical": np.ones(5, bool)}
    check_sets(sets, ["test_typical"])
    with pytest.raises(
        ValueError, match=r"there is no atypical sample in the training set .*: run more leave-out trials"
    ):
        check_sets(sets, ["test_typical", "train_atypical"])
