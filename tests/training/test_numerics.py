"""Whatever computes a network computes in the precision that its settings say, backward too, whoever has set what."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bat_dist.artifacts.checkpoints import load_model
from bat_dist.attacks.numerics import Precision
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.table import build_method
from bat_dist.storage.files import Folder
from bat_dist.training import run
from bat_dist.training.epoch import NonFiniteBatch, StepSettings
from bat_dist.training.outputs import outputs_of
from bat_dist.training.recipe import Recipe
from bat_dist.training.run import Record, TrainingData, TrainingSettings
from bat_dist.training.splits import hold_out
from bat_dist.training.trial import EnsembleSettings, TrialSettings, run_member, run_trial
from bat_dist.training.watched import WatchedSets
from tests.helpers import rounding
from tests.helpers.rounding import EXACT, ROUNDED, Flags, Note, opposite

emulated_tf32, notes = rounding.emulated_tf32, rounding.notes
CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=32, lr=0.05, schedule="one_cycle")
PRECISIONS: list[tuple[Precision, Flags]] = [("fp32", EXACT), ("tf32", ROUNDED), ("bf16", EXACT)]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_train=70, num_test=20)


def loaders(digits: Dataset) -> dict[str, Any]:
    return {f"{name}_loader": dataset_loader("memory", digits, name) for name in ("train", "test")}


def trained(
    out: Path, digits: Dataset, precision: Precision, *, of_attack: Precision | None = None, **changes: Any
) -> dict[str, torch.Tensor]:
    """A run of one epoch by BAT, validated, watched, and with AWP; its weights."""
    attack = TrainingAttack(16 / 255, 4 / 255, 1, of_attack or precision)
    step = StepSettings(build_method("bat", {}), attack, precision, awp=0.005)
    settings = TrainingSettings("tinynet", changes.get("recipe", RECIPE), step, attack, "val_pgd", 0)
    watched = WatchedSets({"test_typical": np.arange(10)}, attack, 1, "")
    splits = {name: dataset_loader("memory", digits, name) for name in ("train", "test")}
    held = hold_out(digits.train.labels, 10, seed=0)
    mem = np.linspace(0, 0.4, len(digits.train))
    material = TrainingData(digits, splits["train"], held, mem, watched=watched, loaders=splits)
    record = Record(Folder(out), {"seed": 0}, {})
    run.begin(record)
    run.train(settings, material, record, device=CPU)
    return load_model(str(out), "last").state_dict()


def passes(flags: Flags) -> set[Note]:
    """A training's: forward and backward, of the update (train mode) and of attacks (eval mode)."""
    return {Note(way, training, flags) for way in ("forward", "backward") for training in (True, False)}


@pytest.mark.parametrize(("precision", "wanted"), PRECISIONS)
def test_a_training(precision: Precision, wanted: Flags, digits: Dataset, tmp_path: Path, notes: set[Note]) -> None:
    with opposite(wanted):
        trained(tmp_path, digits, precision)
    assert notes == passes(wanted)


def test_an_attack_in_training_may_have_a_precision_of_its_own(
    digits: Dataset, tmp_path: Path, notes: set[Note]
) -> None:
    with opposite(EXACT):
        trained(tmp_path, digits, "fp32", of_attack="tf32")
    of_updates, of_attacks = ({note for note in notes if note.training == training} for training in (True, False))
    assert of_updates == {Note("forward", True, EXACT), Note("backward", True, EXACT)}
    assert {note.flags for note in of_attacks if note.way == "backward"} == {ROUNDED}
    assert {note.flags for note in of_attacks} == {ROUNDED, EXACT}  # validation judges what the attack has found


def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(digits: Dataset, tmp_path: Path) -> None:
    wild = Recipe(epochs=3, batch_size=32, lr=1e30, schedule="one_cycle")
    with opposite(ROUNDED), pytest.raises(NonFiniteBatch):
        trained(tmp_path, digits, "tf32", recipe=wild)


UNITS: list[Callable[[Dataset, Precision], object]] = [
    lambda data, precision: run_trial(
        0,
        settings=TrialSettings("tinynet", RECIPE, precision, 0.7, "uniform", 0),
        dataset=data,
        device=CPU,
        **loaders(data),
    ),
    lambda data, precision: run_member(
        0, settings=EnsembleSettings(("tinynet",), RECIPE, precision, 0), dataset=data, device=CPU, **loaders(data)
    ),
]


@pytest.mark.parametrize(("precision", "wanted"), PRECISIONS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_trial_and_a_member(
    unit: Callable[[Dataset, Precision], object], precision: Precision, wanted: Flags, digits: Dataset, notes: set[Note]
) -> None:
    with opposite(wanted):
        unit(digits, precision)
    assert notes == {*({*passes(wanted)} - {Note("backward", False, wanted)})}


@pytest.mark.parametrize(("precision", "wanted"), PRECISIONS)
def test_the_outputs_that_studies_look_at(
    precision: Precision, wanted: Flags, digits: Dataset, notes: set[Note], tmp_path: Path
) -> None:
    trained(tmp_path, digits, "fp32")
    notes.clear()
    network, loader = load_model(str(tmp_path), "last"), dataset_loader("memory", digits, "test")
    with opposite(wanted):
        attack = TrainingAttack(16 / 255, 4 / 255, 1, precision)
        outputs_of(network, loader, np.arange(10), attack=attack, precision=precision, seed=0)
    assert notes == {Note("forward", False, wanted), Note("backward", False, wanted)}


@pytest.mark.usefixtures("emulated_tf32")
def test_fp32_is_untouched_by_tf32_that_is_allowed_and_tf32_is_not(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: dict[str, dict[str, torch.Tensor]] = {}
    runs: list[tuple[str, Precision, bool]] = [("off", "fp32", False), ("on", "fp32", True), ("tf32", "tf32", False)]
    for name, precision, allowed in runs:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        weights[name] = trained(tmp_path / name, digits, precision)
    for name, exact in weights["off"].items():
        torch.testing.assert_close(weights["on"][name], exact, rtol=0, atol=0)
    first = next(iter(dict(load_model(str(tmp_path / "off"), "last").named_parameters())))
    rounded, exact = weights["tf32"][first], weights["off"][first]
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()
