"""The product on a pretended GPU: nothing there mixes devices."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bat_dist.artifacts.checkpoints import load_checkpoint
from bat_dist.attacks.autoattack import STANDARD, StandardAttack, autoattack
from bat_dist.attacks.square import square
from bat_dist.data.augment import to_float
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import Loader, dataset_loader
from bat_dist.data.table import DATASETS
from bat_dist.evaluation import attack as evaluation_attack
from bat_dist.evaluation.attack import Settings
from bat_dist.evaluation.plan import Stage, Unit
from bat_dist.evaluation.work import build_work
from bat_dist.methods.erm import Erm
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.table import build_method
from bat_dist.models.build import build
from bat_dist.planning.speed import Workload, measure
from bat_dist.planning.timed_operations import Piece
from bat_dist.storage.files import Folder
from bat_dist.training import run
from bat_dist.training.epoch import StepSettings, train_epoch
from bat_dist.training.loop import fit
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import RECIPES, Precision, Recipe
from bat_dist.training.run import Record, TrainingData, TrainingSettings
from bat_dist.training.seeding import seeded_model
from bat_dist.training.splits import hold_out
from bat_dist.training.trial import EnsembleSettings, TrialSettings, run_member, run_trial
from bat_dist.training.watched import WatchedSets
from bat_dist.training.world import THIS_PROCESS
from tests.helpers.pretended_gpu import CUDA, PretendedGpu

pytestmark = pytest.mark.usefixtures("gpu")
ATTACK = TrainingAttack(epsilon=16 / 255, step_size=4 / 255, num_steps=2, precision="bf16")
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="multistep", milestones=(0.5,))
ARCHS = (
    "resnet18",
    "resnet34",
    "resnet20",
    "resnet110",
    "preactresnet18",
    "wrn10-1",
    "wrn16-2",
    "resnet9-w8",
    "tinynet",
)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "erm": ("erm", {}),
    "pgd_at": ("pgd_at", {}),
    "trades": ("trades", {}),
    "mart": ("mart", {}),
    "gairat": ("gairat", {"begin": 0.0}),
    "bat": ("bat", {}),
    "bat with some negatives": ("bat", {"num_negatives": 4}),
    "bat as SupCon": ("bat", {"denominator": "supcon", "average": "anchors"}),
}


def scores(digits: Dataset) -> np.ndarray:
    return np.random.default_rng(0).random(len(digits.train.labels)) * 0.4


@pytest.mark.parametrize("arch", ARCHS)
def test_forward_and_backward(arch: str, gpu: PretendedGpu) -> None:
    model = build(arch, 10, mean=(0.5,) * 3, std=(0.25,) * 3).to(device=CUDA, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.rand(2, 3, 8, 8).to(CUDA).contiguous(memory_format=torch.channels_last)
    gpu.waits.clear()
    for precision in ("fp32", "bf16"):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            logits, _ = model(x, with_features=True)
        logits.float().sum().backward()
        assert logits.device == CUDA
        assert logits.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert all(parameter.grad is not None and parameter.grad.device == CUDA for parameter in model.parameters())
    assert not gpu.waits


@pytest.mark.parametrize("extra", [{}, {"awp": 0.01, "clip_norm": 0.1}], ids=["plain", "awp and clip"])
@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_of_a_method(digits: Dataset, method: str, extra: dict[str, Any]) -> None:
    loader = dataset_loader("memory", digits, "train", device=CUDA)
    progress = Progress(seeded_model("tinynet", digits, CUDA, key=(0,)), RECIPE, ema=0.9)
    name, chosen = METHODS[method]
    settings = StepSettings(build_method(name, chosen), ATTACK, "bf16", **extra)
    mem = torch.as_tensor(scores(digits), dtype=torch.float32, device=CUDA)
    how: dict[str, Any] = {"recipe": RECIPE, "settings": settings, "mem": mem, "seed": 0, "world": THIS_PROCESS}
    assert np.isfinite(train_epoch(progress, progress.network, loader, np.arange(100), **how))


class Stop(Exception):
    pass


def stop(row: Mapping[str, Any]) -> None:
    raise Stop


@pytest.mark.parametrize(("mode", "optimizer"), [("eval", "sgd"), ("keep", "adamw")])
def test_a_run_its_resume_and_its_checkpoint(digits: Dataset, tmp_path: Path, mode: Any, optimizer: Any) -> None:
    loaders = {name: dataset_loader("memory", digits, name, device=CUDA) for name in ("train", "test")}
    mem = scores(digits)
    watched = WatchedSets({"train_atypical": np.arange(9), "test_atypical": np.arange(9)}, ATTACK, 1, "")
    held = hold_out(digits.train.labels, 20, seed=0)
    material = TrainingData(digits, loaders["train"], held, mem, {"typical": mem < 0.1}, watched, loaders)
    step = StepSettings(build_method("bat", {}), dataclasses.replace(ATTACK, mode=mode), "bf16")
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    settings = TrainingSettings("tinynet", recipe, step, ATTACK, "val_pgd", 0, ema=0.9)
    whole, broken = (Record(Folder(tmp_path / name), {}, {}) for name in ("whole", "broken"))
    expected = run.train(settings, material, whole, device=CUDA)
    with pytest.raises(Stop):
        run.train(settings, material, broken, device=CUDA, on_epoch=stop)
    resumed = run.train(settings, material, broken, device=CUDA)
    for a, b in zip(expected, resumed, strict=True):
        assert {name: a[name] for name in a if "seconds" not in name} == {
            name: b[name] for name in b if "seconds" not in name
        }
    model = load_checkpoint(str(tmp_path / "whole"), device=CUDA).model
    assert all(parameter.device == CUDA for parameter in model.parameters())


def test_a_trial_and_an_ensemble_member(digits: Dataset) -> None:
    train_loader, test_loader = (dataset_loader("memory", digits, name, device=CUDA) for name in ("train", "test"))
    recipe = dataclasses.replace(RECIPE, epochs=1)
    how: dict[str, Any] = {"dataset": digits, "train_loader": train_loader, "test_loader": test_loader, "device": CUDA}
    row = run_trial(0, settings=TrialSettings("resnet9-w4", recipe, "bf16", 0.7, "uniform", 0), **how)
    assert row["train_correct"].shape == (100,)
    recipe = dataclasses.replace(recipe, lr=0.001, schedule="cosine", optimizer="adamw")
    row = run_member(0, settings=EnsembleSettings(("tinynet",), recipe, "bf16", 0), **how)
    assert row["test_probabilities"].shape == (40, 10)


ATTACKS = "clean fgsm pgd20 cw20 apgd-ce apgd-dlr apgd-t apgd-t3 fab-t square1000 pgd20-rescaled pgd20-large probe"


def shortened(attack: Callable[..., Any], steps: str) -> Callable[..., Any]:
    """The attack, which now takes eight steps."""

    def short(*args: Any, **how: Any) -> Any:
        return attack(*args, **how | {steps: 8})

    return short


@pytest.mark.parametrize("attack", ATTACKS.split())
def test_a_unit_of_an_evaluation(digits: Dataset, attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apgd", "apgd_targeted", "fab_targeted", "square"):
        steps = "num_queries" if name == "square" else "num_steps"
        monkeypatch.setattr(evaluation_attack, name, shortened(getattr(evaluation_attack, name), steps))
    torch.manual_seed(0)
    network = build("tinynet", 10, mean=digits.spec.mean, std=digits.spec.std)
    work = build_work(digits, network, Settings(16 / 255, 4 / 255, 2), keep_adversarial=True, device=CUDA)
    assert "spent" in work(Unit(Stage((attack,), 0), 0, tuple(range(12)), 8))


def trained(digits: Dataset, loader: Loader, precision: Precision = "fp32") -> nn.Module:
    model, generator = seeded_model("tinynet", digits, CUDA, key=(0,)), torch.Generator().manual_seed(0)
    recipe = dataclasses.replace(RECIPE, epochs=3)
    fit(model, loader, np.arange(100), method=Erm(), recipe=recipe, precision=precision, generator=generator)
    return model


def test_autoattack_in_a_loop(digits: Dataset) -> None:
    model = trained(digits, dataset_loader("memory", digits, "train", device=CUDA))
    x = to_float(torch.from_numpy(digits.test.images[:6]).to(CUDA))
    y, ids = torch.from_numpy(digits.test.labels[:6]).to(CUDA), torch.arange(6, device=CUDA)
    quick = {**STANDARD, "square": StandardAttack(partial(square, num_queries=30), 2)}
    found = autoattack(model, x, y, epsilon=4 / 255, seed=0, ids=ids, attacks=quick, batch_size=4)
    assert found.robust.device == found.x_adv.device == CUDA


def test_measuring_for_a_plan() -> None:
    subject = Workload(
        "tinynet",
        DATASETS["digits"],
        RECIPES["fast"],
        RECIPES["paper"],
        num_steps=2,
        precision="bf16",
        attacked_at_once=8,
    )
    pieces = [piece for piece in Piece if piece != Piece.CRAFT_STEP]
    assert measure(subject, pieces, seconds=0.2, threads=1).device == "pretended GPU"
