"""What trials and trainings cost in pieces, held against closed forms and against what the methods really do."""

import math

import pytest
import torch

from bat_dist.attacks.folding import pairs_of
from bat_dist.attacks.noise import image_keys
from bat_dist.methods.mini_batch import MiniBatch, TrainingAttack
from bat_dist.methods.table import METHODS, build_method
from bat_dist.models.build import build
from bat_dist.planning.timed_operations import Piece, Rate, Speed, step_work, timed, training_work, trial_work

PLAIN, PGD, FORWARD, TRIAL = 0.5, 4.5, 0.1, 0.4  # seconds for an image; a step of the attack: (4.5 - 0.5) / 10 = 0.4
SPEED = Speed(
    "a device",
    {
        Piece.TRIAL_STEP: Rate(TRIAL, 0.04, 9, 64, 64),
        Piece.PLAIN_STEP: Rate(PLAIN, 0.0, 9, 128, 128),
        Piece.PGD_STEP: Rate(PGD, 0.3, 9, 128, 128),
        Piece.FORWARD: Rate(FORWARD, 0.01, 9, 500, 500),
    },
    num_steps=10,
)


def test_a_rate_is_the_mean_over_batches_with_its_standard_error() -> None:
    rate = Rate.of([2.0, 4.0, 6.0], batch_size=4, full_batch=16, pieces=2)  # 1/4, 2/4, 3/4 seconds: sd 1/4
    assert (rate.seconds, rate.standard_error) == pytest.approx((0.5, 0.25 / math.sqrt(3)))
    assert (rate.num_batches, rate.batch_size) == (3, 4)


def test_a_trial_is_its_epochs_and_one_look_at_all() -> None:
    work = trial_work(num_kept=700, num_judged=1200, epochs=20)
    assert SPEED.seconds(work) == pytest.approx(20 * 700 * TRIAL + 1200 * FORWARD)
    assert SPEED.standard_error(work) == pytest.approx(math.hypot(20 * 700 * 0.04, 1200 * 0.01))


@pytest.mark.parametrize(
    ("method", "of_a_step"),
    [
        ("erm", PLAIN),
        ("pgd_at", PGD),
        ("gairat", PGD),
        ("bat", PGD),
        ("mart", PGD + PLAIN),
        ("trades", PGD + PLAIN + FORWARD),
        ("a seventh", PGD),
    ],
)
def test_a_training_step_costs(method: str, of_a_step: float) -> None:
    assert SPEED.seconds(step_work(method, 10)) == pytest.approx(of_a_step)


def test_more_steps_than_were_measured_cost_more() -> None:
    assert SPEED.seconds(step_work("pgd_at", 20)) == pytest.approx(0.5 + 20 * 0.4)
    assert SPEED.standard_error(step_work("pgd_at", 20)) == pytest.approx(2 * 0.3)  # 2 PGD steps less 1 plain


def test_a_training_validates_after_each_epoch() -> None:
    how = {"num_train": 1000, "num_val": 100, "epochs": 3, "num_steps": 10}
    attacked = training_work("pgd_at", **how, val_steps=10)
    assert SPEED.seconds(attacked) == pytest.approx(3 * (900 * PGD + 100 * (2 * FORWARD + 10 * 0.4)))
    clean = training_work("erm", **how, val_steps=0)
    assert SPEED.seconds(clean) == pytest.approx(3 * (900 * PLAIN + 100 * FORWARD))


def test_work_that_is_timed_whole_needs_no_plain_step() -> None:
    assert timed(step_work("gairat", 7), 7) == {Piece.PGD_STEP: 1}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_makes_as_many_forward_passes_as_it_is_charged_for(method: str) -> None:
    network, calls, images = build("tinynet", 10, mean=(0.5,) * 3, std=(0.25,) * 3), [], torch.rand(8, 3, 8, 8)
    pairs_of(network, images)  # which is done once for a network, not in each batch
    network.register_forward_hook(lambda *_: calls.append(1))
    batch = MiniBatch(
        images,
        torch.arange(8),
        network=network,
        forward=network,
        attack=TrainingAttack(epsilon=0.03, step_size=0.01, num_steps=5),
        keys=image_keys(0, "test", torch.arange(8)),
        mem=torch.linspace(0, 1, 8),
        progress=0.9,
    )
    build_method(method, {}).loss(batch)
    assert len(calls) == sum(step_work(method, 5).values())  # each piece has one
