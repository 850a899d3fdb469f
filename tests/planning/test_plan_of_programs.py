"""`plan --table` and `plan --study` plan what the programs run."""

from typing import Any

import pytest

from bat_dist.planning import plan as planning
from bat_dist.planning.describe import describe
from bat_dist.planning.plan import look_at, plan
from bat_dist.planning.speed import Workload
from bat_dist.planning.timed_operations import Piece, Rate, Speed
from bat_dist.planning.workers import MeasuredMachine
from bat_dist.settings.plan import PlanSettings, StudyPlanSettings, TablePlanSettings

ONE = MeasuredMachine(gpus=0, cpus=1)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """What was to be measured; every piece takes a second."""
    found: list[Workload] = []

    def measure(subject: Workload, pieces: Any, **_: Any) -> Speed:
        found.append(subject)
        return Speed("a clock", {piece: Rate(1.0, 0.1, 9, 8, 8) for piece in pieces}, subject.num_steps)

    monkeypatch.setattr(planning, "this_machine", lambda: ONE)
    monkeypatch.setattr(planning, "measure", measure)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        TablePlanSettings(table=1, scale="small").plan,
        StudyPlanSettings(study=("typical",), scale="small").plan,
    ],
)
def test_small_experiments_are_of_300_digits(settings: PlanSettings) -> None:
    assert look_at(settings).num_train == 300


def test_the_trials_of_a_table_have_their_own_network(measured: list[Workload]) -> None:
    settings = TablePlanSettings(table=3, dataset="cifar10", num_train=1000, train={"precision": "fp32"}).plan
    found = plan(settings)
    assert measured[0].of(Piece.TRIAL_STEP)[0] == "resnet9", "as memorize chooses it"
    assert measured[0].of(Piece.PGD_STEP) == ("resnet18", "fp32")
    assert Piece.TRIAL_FORWARD in found.speed.rates, "its forward pass is timed by itself"
    assert "resnet18, fp32; trials: resnet9, " in describe(found, settings)


def test_what_memorize_is_told_holds_for_the_trials(measured: list[Workload]) -> None:
    asked = {"arch": "resnet9-w4", "precision": "bf16"}
    plan(TablePlanSettings(table=1, scale="small", memorize=asked).plan)
    assert measured[0].of(Piece.TRIAL_FORWARD) == ("resnet9-w4", "bf16")
    assert measured[0].of(Piece.FORWARD) == ("tinynet", "fp32")


def test_studies_without_trainings_plan_the_network_of_the_trials(measured: list[Workload]) -> None:
    plan(StudyPlanSettings(study=("gallery",), dataset="cifar10").plan)
    assert measured[0].of(Piece.TRIAL_STEP)[0] == measured[0].arch == "resnet9"


def test_networks_that_are_the_same_are_timed_once(measured: list[Workload]) -> None:
    found = plan(TablePlanSettings(table=1, scale="small").plan)
    assert not measured[0].has_trials_apart
    assert Piece.TRIAL_FORWARD not in found.speed.rates
