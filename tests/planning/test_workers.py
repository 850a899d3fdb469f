"""Workers that have a part of a GPU, one or several, against closed forms.  The machine is pretended."""

from typing import Any

import pytest

from bat_dist.config import from_dict
from bat_dist.errors import ConfigError, UserError
from bat_dist.planning import plan as planning
from bat_dist.planning.describe import describe
from bat_dist.planning.plan import plan
from bat_dist.planning.timed_operations import Piece, Rate, Speed
from bat_dist.planning.workers import MeasuredMachine, PlannedWorker, planned_worker
from bat_dist.settings.plan import PlanSettings

NODE = MeasuredMachine(gpus=2, cpus=16)
CORES = MeasuredMachine(gpus=0, cpus=16)
TRIAL = Rate(0.002, 0.0001, 9, 64, 64)
SPEED = Speed("a card", {Piece.TRIAL_STEP: TRIAL, Piece.FORWARD: Rate(0.001, 0.0, 9, 500, 500)}, num_steps=10)
ONE_TRIAL = 10 * 700 * 0.002 + 1500 * 0.001  # seconds of a worker that has the GPU alone


@pytest.mark.parametrize(
    ("machine", "cpus", "gpus", "worker", "number"),
    [
        (CORES, 4, None, PlannedWorker(4), 4),
        (CORES, 32, None, PlannedWorker(32), 1),
        (NODE, 1, None, PlannedWorker(1, 1), 2),
        (NODE, 1, 0.25, PlannedWorker(1, 1, 4), 8),
        (NODE, 1, 0.3, PlannedWorker(1, 1, 3), 6),
        (NODE, 4, 0.25, PlannedWorker(4, 1, 2), 4),  # eight cores for each GPU
        (NODE, 16, 0.25, PlannedWorker(16, 1, 1), 2),
        (MeasuredMachine(1, 16), 1, 0.1, PlannedWorker(1, 1, 10), 10),
    ],
)
def test_how_many_a_machine_holds(
    machine: MeasuredMachine, cpus: int, gpus: float | None, worker: PlannedWorker, number: int
) -> None:
    found = planned_worker(machine, cpus=cpus, gpus=gpus, gain=None)
    assert found == worker
    assert found.fit_into(machine) == number


@pytest.mark.parametrize(
    ("worker", "slowdown", "gpus", "words"),
    [
        (PlannedWorker(2), 1, 0, "2 CPU cores"),
        (PlannedWorker(1, 1), 1, 1, "a GPU"),
        (PlannedWorker(1, 1, 4), 4, 0.25, "1/4 of a GPU"),
        (PlannedWorker(1, 1, 8, 6.66), 8 / 6.66, 0.125, "1/8 of a GPU"),
        (PlannedWorker(1, 1, 4, 0.93), 4 / 0.93, 0.25, "1/4 of a GPU"),  # sharing can cost more than it brings
    ],
)
def test_what_a_worker_has(worker: PlannedWorker, slowdown: float, gpus: float, words: str) -> None:
    assert worker.slowdown == pytest.approx(slowdown)
    assert worker.gpus_occupied == gpus
    assert worker.in_words == words


@pytest.mark.parametrize(
    ("machine", "gpus", "message"),
    [
        (CORES, 0.25, "gpus_per_worker 0.25 is for a GPU, and none was measured: plan on a machine that has one"),
        (NODE, 0.0, "gpus_per_worker 0 is for workers without a GPU, and a GPU was measured"),
    ],
)
def test_what_was_not_measured_cannot_be_planned(machine: MeasuredMachine, gpus: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned_worker(machine, cpus=1, gpus=gpus, gain=None)
    assert planned_worker(CORES, cpus=1, gpus=0.0, gain=None) == PlannedWorker(1)


@pytest.mark.parametrize(
    ("changes", "workers", "times"),
    [
        ({}, 2, 1),
        ({"gpus_per_worker": 0.25}, 8, 4),
        ({"gpus_per_worker": 0.25, "sharing_gain": 4.33}, 8, 4 / 4.33),
        ({"gpus_per_worker": 0.25, "sharing_gain": 4.33, "workers": 40}, 40, 4 / 4.33),
    ],
)
def test_trials_on_shared_gpus(
    changes: dict[str, Any], workers: int, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes `times` as long, and the GPU does the gain more: GPU-hours fall by the gain alone."""
    monkeypatch.setattr(planning, "this_machine", lambda: NODE)
    monkeypatch.setattr(planning, "measure", lambda *_, **__: SPEED)
    sizes: dict[str, Any] = {
        "dataset": "image_folder",
        "num_train": 1000,
        "num_test": 500,
        "num_classes": 10,
        "image_size": 8,
    }
    asked: dict[str, Any] = {
        "arch": "tinynet",
        "num_trials": 1000,
        "num_seeds": 0,
        "trial_epochs": 10,
        "precision": "fp32",
    }
    settings = PlanSettings(**{**sizes, **asked, **changes})
    found = plan(settings)
    assert found.workers == workers
    assert found.total.seconds == pytest.approx(1000 * times * ONE_TRIAL)
    assert found.total.wall_seconds == pytest.approx(-(-1000 // workers) * times * ONE_TRIAL)
    assert found.total.standard_error == pytest.approx(1000 * times * 10 * 700 * 0.0001)
    text = describe(found, settings)
    gain = changes.get("sharing_gain", 1)
    assert f"{1000 * ONE_TRIAL / gain / 3600:.3g} GPU-hours" in text
    assert ("4 workers share a GPU" in text) == (times != 1)
    assert ("they take turns" in text) == (times == 4)
    assert ("together they do 4.33 times as much" in text) == (gain != 1)
    assert f"{1 / TRIAL.seconds:.0f} images/s" in text, "what was measured is told as it was measured"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus_per_worker": 2.0}, r"gpus_per_worker must be a number in \[0, 1\] or none, got 2"),
        ({"sharing_gain": 2.0}, "sharing_gain is of workers that share a GPU: give gpus_per_worker"),
        ({"sharing_gain": 2.0, "gpus_per_worker": 1.0}, "sharing_gain is of workers that share a GPU"),
        ({"speed": "a", "save_speed": "b"}, "give one of them"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(PlanSettings, {"dataset": "digits", **changes}, "a test")
