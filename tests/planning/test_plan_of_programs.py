"""`plan --table` and `plan --study` plan what the programs run."""

from typing import Any

import pytest

from bat_dist.planning import plan as planning
from bat_dist.planning.describe import describe
from bat_dist.planning.plan import look_at, plan
from bat_dist.planning.speed import Workload
from bat_dist.planning.timed_operations import Piece, Rate, Speed
from bat_dist.planning.workers import MeasuredMachine
from bat_dist.settings.plan import PlanSettings
from bat_dist.settings.program_plans import StudyPlanSettings, TablePlanSettings

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


def of_table(**asked: Any) -> TablePlanSettings:
    return TablePlanSettings(table=1, scale="small", **asked)


def seconds_of(settings: PlanSettings, job: str) -> float:
    return next(cost.seconds for cost in plan(settings).costs if cost.name == job)


def test_seeds_and_restarts_of_attacks_are_counted(measured: list[Workload]) -> None:
    """By hand: 500 test images, 20 steps, a second each; a clean pass, which has no seed."""
    attacks: dict[str, Any] = {"attacks": ("clean", "pgd20"), "methods": ("pgd_at",), "seeds": (0,)}
    clean, pgd = 500, 500 * 20
    assert seconds_of(of_table(**attacks).plan, "evaluate") == pytest.approx(clean + pgd)
    several = of_table(**attacks, evaluate={"seeds": [0, 1, 2], "restarts": 5}).plan
    assert seconds_of(several, "evaluate") == pytest.approx(clean + 3 * 5 * pgd)


def test_the_steps_of_validation_are_counted(measured: list[Workload]) -> None:
    clean = of_table(train={"val_steps": 0, "best_by": "val_clean"}).plan
    validated = 40 * 30  # epochs, held-out images: without PGD a forward pass less, of a second
    assert seconds_of(of_table().plan, "train pgd_at") - seconds_of(clean, "train pgd_at") == pytest.approx(
        len(of_table().seeds) * validated
    )
    assert "a validation of 0 steps" in describe(plan(clean), clean)


def test_the_ensemble_of_a_study_is_counted(measured: list[Workload]) -> None:
    def settings(**asked: Any) -> StudyPlanSettings:
        return StudyPlanSettings(study=("alignment",), scale="small", seeds=(0,), **asked)

    members = settings(memorize={"num_members": 7}).plan
    assert seconds_of(members, "ensemble") == pytest.approx(7 * (20 * 300 + 2 * 300 + 500))
    assert "other architectures" in " ".join(settings().not_counted)
    assert "beside --scores" in " ".join(settings(scores="s.npz").not_counted)
    assert settings(scores="s.npz").plan.ensemble_members == 0


def test_runs_at_a_time_are_those_of_the_program() -> None:
    assert of_table(num_workers=3).plan.workers == 3
    assert of_table(num_workers=3, workers=5).plan.workers == 5


def test_what_is_not_counted_is_said(measured: list[Workload]) -> None:
    assert of_table().not_counted == []
    settings = of_table(studies=("typical", "theory"), train={"awp": 0.005})
    text = describe(plan(settings.plan), settings.plan, settings.not_counted)
    assert "* not counted: the studies: bat-dist plan --study typical theory plans them." in text
    assert "* not counted: a training step's second pass forward and backward with awp" in text
