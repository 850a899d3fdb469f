"""Passes of an evaluation, written out by hand."""

import numpy as np
import pytest

from bat_dist.evaluation.cost import bill
from bat_dist.evaluation.plan import CLEAN_STAGE, Stage, cut

HOW = {"num_images": 200, "num_classes": 10, "robust_share": 0.25, "check_images": 0, "batch_size": 64}


def test_autoattack_meets_what_stands_and_pgd_meets_all() -> None:
    found = bill(("clean", "pgd20", "autoattack"), **HOW)
    assert found.forward == 200 + 50 * 5000  # clean; square asks 5,000 times
    assert found.steps == 200 * 20 + 50 * (100 + 900 + 9 * 100 * 4 / 3)  # APGD-CE, APGD-T; FAB-T has a pass more
    assert found.attacked == 200 + 200 + 4 * 50
    assert found.rows == 8  # clean, pgd20, the four parts, the whole, the worst case


def test_what_two_attacks_share_is_paid_once() -> None:
    assert bill(("autoattack", "apgd-ce", "autoattack_fast"), **HOW)[:2] == bill(("autoattack",), **HOW)[:2]


def test_no_image_stands() -> None:
    assert bill(("clean", "autoattack"), **HOW | {"robust_share": 0})[:2] == (200, 0)


@pytest.mark.parametrize(("num_classes", "targeted"), [(10, 900), (3, 0)])  # apgd-t3 wants four classes
def test_the_checks_have_images_of_their_own(num_classes: int, targeted: float) -> None:
    found = bill(("clean",), **HOW | {"check_images": 30, "num_classes": num_classes})
    assert found.forward == 200 + 30 * 1000  # square1000
    # fgsm; pgd100 as it is, rescaled and large; cw100; the probe's 20 passes
    assert found.steps == pytest.approx(30 * (1 + 300 + 100 + 20 / 3 + targeted / 3))


def test_units_are_as_many_as_the_evaluation_cuts() -> None:
    found = bill(("pgd100", "square"), **HOW | {"num_images": 1000, "robust_share": 1})
    stages = (CLEAN_STAGE, Stage(("pgd100",), 0), Stage(("square",), 0))
    exact = sum(len(cut(np.arange(1000), stage, 64)) for stage in stages)
    assert found.units <= exact <= found.units + len(stages)  # a number of units is made even
