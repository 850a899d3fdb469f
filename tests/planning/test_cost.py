"""Jobs against closed forms: seconds, wall-clock, disk; and the constants that stand in two places."""

import math

import pytest

from bat_dist.errors import UserError
from bat_dist.planning import cost as costs
from bat_dist.planning.cost import PlannedJob, Size, cost, evaluation, to_measure, total, training, trials, wall_seconds
from bat_dist.planning.plan import look_at
from bat_dist.planning.timed_operations import Piece, Rate, Speed
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.plan import PlanSettings
from bat_dist.settings.train import TrainSettings

SIZE = Size(num_train=1000, num_test=500, num_classes=10, network_bytes=1_000_000, momentum_bytes=900_000)
SECONDS = {
    Piece.TRIAL_STEP: 0.002,
    Piece.PLAIN_STEP: 0.001,
    Piece.PGD_STEP: 0.011,
    Piece.FORWARD: 0.0005,
    Piece.EXACT_FORWARD: 0.0004,
    Piece.EXACT_STEP: 0.0012,
}
SPEED = Speed("a device", {piece: Rate(each, each / 10, 5, 64, 64) for piece, each in SECONDS.items()}, num_steps=10)


def test_trials() -> None:
    found = cost(trials(SIZE, count=5, epochs=10, subset_ratio=0.7), SPEED, workers=2)
    one = 10 * 700 * 0.002 + 1500 * 0.0005
    assert found.seconds == pytest.approx(5 * one)
    assert found.wall_seconds == pytest.approx(3 * one)  # two, two and one
    assert found.standard_error == pytest.approx(5 * math.hypot(10 * 700 * 0.0002, 1500 * 0.00005))


def test_trainings_of_all_methods_run_side_by_side() -> None:
    jobs = [training(SIZE, method=method, count=1, epochs=2) for method in ("pgd_at", "erm", "mart")]
    validation = 100 * (2 * 0.0005 + 10 * 0.001)
    seconds = [2 * (900 * step + validation) for step in (0.011, 0.001, 0.012)]
    assert [cost(job, SPEED, workers=2).seconds for job in jobs] == pytest.approx(seconds)
    found = total(jobs, SPEED, workers=2)
    assert found.seconds == pytest.approx(sum(seconds))
    assert found.wall_seconds == pytest.approx(max(seconds[2], seconds[0] + seconds[1]))
    assert found.scratch == 2 * costs.on_disk(1_900_000)
    assert found.disk == sum(job.disk for job in jobs)


def test_an_evaluation_is_shared_by_all_workers() -> None:
    job = evaluation(SIZE, attacks=("clean", "pgd10"), count=2, check_images=0)
    found = cost(job, SPEED, workers=8)
    one = 500 * 0.0004 + 500 * 10 * 0.0012
    assert found.seconds == pytest.approx(2 * one)
    assert found.wall_seconds == pytest.approx(2 * one / 8)


def test_phases_follow_each_other_in_whatever_order_they_are_given() -> None:
    jobs = [
        evaluation(SIZE, attacks=("clean",), count=1, check_images=0),
        training(SIZE, method="erm", count=1, epochs=1),
        trials(SIZE, count=1, epochs=1),
    ]
    apart = sum(cost(job, SPEED, workers=3).wall_seconds for job in jobs)
    assert total(jobs, SPEED, workers=3).wall_seconds == pytest.approx(apart)


def test_errors_of_one_measurement_do_not_average_out_over_jobs() -> None:
    jobs = [training(SIZE, method=method, count=1, epochs=1) for method in ("pgd_at", "bat")]
    alone = cost(jobs[0], SPEED, workers=1).standard_error
    assert total(jobs, SPEED, workers=1).standard_error == pytest.approx(2 * alone)


@pytest.mark.parametrize(
    ("seconds", "shared", "workers", "expected"),
    [
        ([5, 4, 3, 3, 3], 0, 2, 10),  # longest first: 5 + 3, 4 + 3 + 3
        ([5, 4], 3, 2, 6),  # what is divisible fills the gaps
        ([5, 1], 2, 2, 5),
        ([], 8, 4, 2),
    ],
)
def test_wall_clock(seconds: list[int], shared: int, workers: int, expected: float) -> None:
    unit = {Piece.PLAIN_STEP: 1000}  # one second
    jobs = [PlannedJob("x", "training", 1, {Piece.PLAIN_STEP: 1000 * each}, disk=0) for each in seconds]
    jobs += [PlannedJob("y", "evaluation", shared, unit, disk=0, divisible=True)] if shared else []
    assert wall_seconds(jobs, SPEED, workers) == pytest.approx(expected)


def test_disk_of_trials() -> None:
    a, b = (trials(SIZE, count=count, epochs=1).disk for count in (100, 101))
    small = 6 * 4096  # mask, two kinds of flags, metrics, digest, log: each a file of less than a block
    predicted = -(-SIZE.num_train * math.ceil(math.log2(SIZE.num_classes)) // 8 // 4096) * 4096
    assert b - a == small + predicted


def test_what_must_be_measured() -> None:
    assert to_measure([trials(SIZE, count=1, epochs=1)]) == (Piece.TRIAL_STEP, Piece.FORWARD)
    assert to_measure([training(SIZE, method="pgd_at", count=1)]) == (Piece.PLAIN_STEP, Piece.PGD_STEP, Piece.FORWARD)
    clean = evaluation(SIZE, attacks=("clean",), count=1, check_images=0)
    assert to_measure([clean]) == (Piece.EXACT_FORWARD,)


def test_a_ratio_that_leaves_nobody_out_is_refused() -> None:
    with pytest.raises(UserError, match="leaves nobody out"):
        trials(SIZE, count=1, epochs=1, subset_ratio=0.9999)


def test_defaults_are_those_of_the_programs() -> None:
    for name in ("num_trials", "subset_ratio"):
        assert getattr(PlanSettings, name) == getattr(MemorizeSettings, name)
    for name in ("recipe", "num_steps", "precision", "num_val", "epochs", "batch_size"):
        assert getattr(PlanSettings, name) == getattr(TrainSettings, name)
    assert PlanSettings.trial_recipe == MemorizeSettings.recipe
    assert PlanSettings.check_images == EvaluateSettings.check_images


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"dataset": "cifar10"}, (50_000, 10_000, 10, 32)),
        ({"dataset": "cifar100", "num_train": 5000}, (5000, 10_000, 100, 32)),
        ({"dataset": "tiny_imagenet"}, (25_000, 2_500, 50, 64)),
        ({"dataset": "tiny_imagenet", "num_classes": 200, "image_size": 32}, (100_000, 10_000, 200, 32)),
        ({"dataset": "digits"}, (1297, 500, 10, 8)),
        ({"dataset": "image_folder", "num_train": 7, "num_test": 3, "num_classes": 2, "image_size": 9}, (7, 3, 2, 9)),
    ],
)
def test_sizes_without_the_data(options: dict, sizes: tuple[int, ...]) -> None:
    data = look_at(PlanSettings(arch="tinynet", **options))
    assert (data.num_train, data.num_test, data.spec.num_classes, data.spec.image_size) == sizes
