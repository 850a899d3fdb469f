"""Folding BatchNorm in attacks is the default of what begins now; what an earlier version has begun ends without it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.jobs import reproduce, study, tune_plan
from bat_dist.jobs.training_plan import make_plan
from bat_dist.settings.reproduce import ReproduceSettings
from bat_dist.settings.study import StudySettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.train import main as train
from bat_dist.training import run
from bat_dist.workers.resources import Resources
from bat_dist.workers.terms import ClusterTerms

SIZES: dict[str, Any] = {"dataset": "digits", "num_train": 60, "num_test": 20, "num_val": 10}
HOW: dict[str, Any] = {"recipe": "fast", "precision": "bf16", "num_steps": 2, "batch_size": 16, "epochs": 2}
EARLIER = {"precision": "fp32"}  # the identity of a run that an earlier version has begun, as far as it matters here
NOW = EARLIER | {"fold_batch_norm": True}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_train=60, num_test=20)


def training(out: Path, *words: str) -> dict[str, torch.Tensor]:
    """The last weights of PGD-AT."""
    given = [word for name, value in (SIZES | HOW).items() for word in (f"--{name}", str(value))]
    assert train(["--method", "pgd_at", *given, "--out", str(out), *words]) == 0
    return load_file(out / "last.safetensors")


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_half_finished_training_of_an_earlier_version_ends_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a folder is one of --no_fold_batch_norm whose config.yaml does not know the setting."""
    plain = training(tmp_path / "plain", "--no_fold_batch_norm")
    save = run._save

    def save_and_die(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "_save", save_and_die)
        with pytest.raises(AssertionError):
            training(tmp_path / "half", "--no_fold_batch_norm")
    config = tmp_path / "half" / "config.yaml"
    assert "fold_batch_norm: false\n" in config.read_text()
    config.write_text(config.read_text().replace("fold_batch_norm: false\n", ""))
    assert are_equal(training(tmp_path / "half"), plain)
    assert not are_equal(training(tmp_path / "new"), plain)


def test_the_facts_of_what_is_folded_say_so(digits: Dataset, tmp_path: Path) -> None:
    def facts(**given: Any) -> dict[str, Any]:
        return make_plan(digits, TrainSettings(method="pgd_at", out=str(tmp_path), **SIZES, **HOW, **given)).facts

    assert facts()["fold_batch_norm"] is True
    assert facts(fold_batch_norm=True) == facts()
    assert "fold_batch_norm" not in facts(fold_batch_norm=False)


@pytest.mark.parametrize(("begun", "folds"), [({}, True), (EARLIER, False), (NOW, True)])
def test_runs_that_a_sweep_adds_are_as_those_that_it_has(
    begun: dict[str, Any], folds: bool, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_plan, "begun_identity", lambda folder: begun)
    asked = TuneSettings(out=str(tmp_path), base={"method": "erm", **SIZES, **HOW}, space={"lr": [0.1]})
    assert tune_plan.plan_sweep(Folder(str(tmp_path)), digits, asked).settings.example.fold_batch_norm is folds


@pytest.mark.parametrize(("begun", "folds"), [({}, True), (EARLIER, False), (NOW, True)])
def test_runs_that_an_experiment_adds_are_as_those_that_it_has(
    begun: dict[str, Any], folds: bool, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = {f"train.{name}": value for name, value in begun.items()}
    monkeypatch.setattr(reproduce, "begun_identity", lambda folder: identity)
    asked = ReproduceSettings(
        table=1, scale="small", methods=("pgd_at",), out=str(tmp_path), train={"precision": "fp32"}
    )
    settled, _ = reproduce._without_auto(Folder(str(tmp_path)), digits, asked, ClusterTerms())
    assert all(settled.training(one).fold_batch_norm is folds for one in settled.runs())


@pytest.mark.parametrize(("begun", "folds"), [({}, None), (EARLIER, False), (NOW, True)])
def test_trainings_that_a_study_adds_are_as_those_that_it_has(
    begun: dict[str, Any], folds: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: each decides for itself, and has no folder that says otherwise."""
    monkeypatch.setattr(study, "begun_identity", lambda folder: begun)
    asked = StudySettings(study=("typical",), scale="small", out=str(tmp_path), train=EARLIER)
    settled = study._with_precision(Folder(str(tmp_path)), asked, Resources(1, 0))
    assert all(settled.training(one).fold_batch_norm is folds for one in settled.runs())
