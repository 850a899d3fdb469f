"""On a real GPU: the numbers of the CPU, the same numbers twice and after a resume, a batch that does not fit, and how
often the host waits, as torch tells it.

Needs neither Ray nor FFCV: `make gpu` runs it wherever torch sees a card; elsewhere it skips.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bat_dist.artifacts.checkpoints import load_model
from bat_dist.attacks.apgd import apgd
from bat_dist.attacks.folding import faster
from bat_dist.attacks.graphs import SWITCH, record_calls_of, recordings_of
from bat_dist.attacks.linf import Images, Randomness, uniform_start
from bat_dist.attacks.noise import image_keys, uniform
from bat_dist.attacks.numerics import numerics
from bat_dist.attacks.pgd import pgd
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.evaluation.attack import Settings, attack_images, prepare
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.table import build_method
from bat_dist.models.build import build
from bat_dist.storage.files import Folder
from bat_dist.training import run
from bat_dist.training.epoch import StepSettings
from bat_dist.training.precision import computed_on, this_hardware
from bat_dist.training.recipe import Precision, Recipe
from bat_dist.training.run import Record, TrainingData, TrainingSettings
from bat_dist.training.splits import hold_out
from bat_dist.training.trial import TrialSettings, run_trial
from tests.helpers.wait_budgets import (
    ALL_STAND,
    ATTACKS,
    EXTRAS,
    SOME_FALL,
    WAITS_OF_A_STEP,
    WAITS_OF_A_TRIALS_STEP,
    WAITS_OF_AN_ITERATION,
    WAITS_OF_EXTRAS,
    attacked,
    train_steps,
    trial_steps,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")]
GPU, CPU = torch.device("cuda"), torch.device("cpu")
METHODS = ("erm", "pgd_at", "trades", "mart", "gairat", "bat")
RECIPE = Recipe(epochs=4, batch_size=32, lr=0.05, schedule="multistep", milestones=(0.5,))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_train=200, num_test=50)


def network(arch: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return build(arch, 10, mean=(0.5,) * 3, std=(0.25,) * 3).to(device).eval()


@pytest.mark.parametrize(
    "how", [{"crop_padding": 4}, {"crop_padding": 0, "crop_scale": 0.08, "crop_size": 24}], ids=str
)
def test_a_loader_gives_the_batches_of_the_cpu(how: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8), np.arange(100) % 10
    found = []
    for device in (CPU, GPU):
        loader = MemoryLoader(images, labels, **how, flip=True, device=device)
        order = torch.Generator().manual_seed(1)
        batches = loader.train_epoch(np.arange(100), batch_size=32, generator=order, drop_last=False)
        found.append([[part.cpu() for part in batch] for batch in batches])
    for expected, batch in zip(*found, strict=True):
        for a, b in zip(expected, batch, strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_images_random_numbers_are_those_of_the_cpu(dtype: torch.dtype) -> None:
    draws = [
        uniform(image_keys(3, "square", torch.arange(500, device=d)), 7, 3, 4, dtype=dtype).cpu() for d in (CPU, GPU)
    ]
    torch.testing.assert_close(draws[1], draws[0], rtol=0, atol=0)


@pytest.mark.parametrize("arch", ["resnet9", "resnet18", "preactresnet18", "wrn10-2"])
def test_pgd_ends_where_it_ends_on_the_cpu(arch: str) -> None:
    """In double precision, where rounding decides hardly any sign; from the same start, which a CPU generator gives."""
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, found = torch.arange(4), []
    for device in (CPU, GPU):
        how: dict[str, Any] = {"epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": 5}
        generator = torch.Generator().manual_seed(1)
        found.append(pgd(network(arch, device).double(), x.to(device), y.to(device), **how, generator=generator).cpu())
    assert ((found[1] - found[0]).abs() < 1e-9).double().mean() > 0.999


def trained(
    out: Path, digits: Dataset, method: str, precision: Precision, *, until: int = 4, device: torch.device = GPU
) -> Mapping[str, torch.Tensor]:
    """The weights after a run; `until`: the epoch after which it is broken off."""
    attack = TrainingAttack(16 / 255, 4 / 255, 2, precision=precision)
    step = StepSettings(build_method(method, {}), attack, precision)
    settings = TrainingSettings("tinynet", RECIPE, step, attack, "val_pgd", 0)
    loader = dataset_loader("memory", digits, "train", device=device)
    mem = np.random.default_rng(0).random(200) * 0.4
    record = Record(Folder(out), {"method": method}, {})
    material = TrainingData(digits, loader, hold_out(digits.train.labels, 40, seed=0), mem)

    def told(row: Mapping[str, Any]) -> None:
        if row["epoch"] == until < RECIPE.epochs:
            raise KeyboardInterrupt

    run.begin(record)
    try:
        history = run.train(settings, material, record, device=device, on_epoch=told)
    except KeyboardInterrupt:
        return {}
    run.finish(record, settings, history)
    return load_model(str(out), "last").state_dict()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_same_twice_and_after_a_resume(
    method: str, precision: Precision, digits: Dataset, tmp_path: Path
) -> None:
    first = trained(tmp_path / "a", digits, method, precision)
    trained(tmp_path / "b", digits, method, precision, until=2)
    resumed = trained(tmp_path / "b", digits, method, precision)
    for name, tensor in first.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0, msg=f"{name} differs")


def relative_errors(precision: Precision, device: torch.device) -> list[float]:
    """Of a convolution, a product and their four gradients, against double precision on the CPU."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(8, 64, 16, 16), (64, 64, 3, 3), (512, 512), (512, 512)]
    tensors = [torch.randn(shape, generator=draw) for shape in shapes]

    def computed(given: list[torch.Tensor]) -> list[torch.Tensor]:
        images, filters, left, right = leaves = [tensor.detach().requires_grad_() for tensor in given]
        found = [functional.conv2d(images, filters), left @ right]
        losses = [one.square().sum() / 2 for one in found]
        return [*found, *torch.autograd.grad(losses, leaves)]

    exact = computed([tensor.double() for tensor in tensors])
    with numerics(precision):
        found = computed([tensor.to(device) for tensor in tensors])
    return [((a.cpu() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


def test_fp32_is_exact_and_tf32_is_rounded_forward_and_backward() -> None:
    """Rounding a factor costs 2^-12 of it at most in TF32 and 2^-24 in fp32; sums of products lose as much again."""
    assert max(relative_errors("fp32", GPU)) < 1e-5
    rounded = relative_errors("tf32", GPU)
    assert max(rounded) < 1e-2
    if this_hardware().has_tf32:  # cuBLAS takes it for products of this size; of convolutions cuDNN may judge otherwise
        assert min(rounded[1], *rounded[4:]) > 1e-5


def test_a_gpu_says_what_it_is() -> None:
    told = computed_on()
    assert told.get("gpu") == torch.cuda.get_device_name()
    assert {"driver", "cuda", "cudnn"} <= told.keys()


def test_a_trial_is_the_same_twice(digits: Dataset) -> None:
    loaders = {f"{name}_loader": dataset_loader("memory", digits, name, device=GPU) for name in ("train", "test")}
    settings = TrialSettings("tinynet", RECIPE, "bf16", 0.7, "uniform", 0)
    rows = [run_trial(3, settings=settings, dataset=digits, device=GPU, **loaders) for _ in range(2)]
    for name in ("mask", "train_correct", "test_correct"):
        np.testing.assert_array_equal(rows[0][name], rows[1][name])
    assert rows[0]["metrics"][0] == rows[1]["metrics"][0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_attacks_and_steps_are_those_that_are_not_recorded(
    precision: Precision, digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An attack of several batches, and a trial, with CUDA graphs and without, to the last bit."""
    found = []
    for switch in ("0", "1"):
        monkeypatch.setenv(SWITCH, switch)
        model, y = record_calls_of(network("resnet9", GPU)), torch.arange(64, device=GPU) % 10
        how: dict[str, Any] = {"epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": 5, "precision": precision}
        parts = []
        for seed in range(3):
            x = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).to(GPU)
            parts.append(pgd(model, x, y, generator=image_keys(seed, "a", torch.arange(64, device=GPU)), **how).cpu())
        recordings = recordings_of(model)
        assert recordings is not None
        assert bool(recordings._recorded) == (switch == "1"), caplog.text
        loaders = {f"{name}_loader": dataset_loader("memory", digits, name, device=GPU) for name in ("train", "test")}
        row = run_trial(
            3,
            settings=TrialSettings("tinynet", RECIPE, precision, 0.7, "uniform", 0),
            dataset=digits,
            device=GPU,
            **loaders,
        )
        found.append((torch.cat(parts), row["metrics"][0], row["train_correct"], row["test_correct"]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    np.testing.assert_array_equal(np.concatenate(found[0][2:]), np.concatenate(found[1][2:]))
    assert not caplog.records, caplog.text


def test_autoattack_with_graphs_has_the_flags_of_autoattack_without(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(GPU)
    model, ids = network("resnet9", GPU), torch.arange(40, device=GPU)
    y = model(x).argmax(1)
    flags = []
    for switch in ("0", "1"):
        monkeypatch.setenv(SWITCH, switch)
        found = apgd(faster(model, x[:4]), x, y, epsilon=1 / 255, seed=0, ids=ids, num_steps=20)
        flags.append(found.robust)
    assert (flags[0] == flags[1]).float().mean() > 0.97


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("arch", ["resnet9", "resnet18"])
def test_batch_norms_are_folded(arch: str, tf32: bool) -> None:
    model = network(arch, GPU)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        folded = faster(model, torch.rand(4, 3, 32, 32, device=GPU).to(memory_format=torch.channels_last))
    finally:
        torch.backends.cudnn.allow_tf32 = before
    left = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert left < norms, f"{left} of {norms} are left"


def test_a_batch_that_does_not_fit_is_halved() -> None:
    """With a cap on the memory of this process, and the same flags as with room for all."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (512, 32, 32, 3), dtype=np.uint8), np.arange(512) % 10
    networks = prepare(network("resnet18", GPU), images[:4], GPU)
    x, y = networks.tensor(images), torch.from_numpy(labels).to(GPU)
    y = networks.model(x).argmax(1)
    how: dict[str, Any] = {"attack": "pgd3", "seed": 0, "settings": Settings(1 / 255, 1 / 255, 1)}
    ids = torch.arange(512, device=GPU)
    batches = zip(x.split(16), y.split(16), ids.split(16), strict=True)
    small = torch.cat([attack_images(networks, *batch, **how).robust for batch in batches])
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 400 * 2**20) / total))
        large = attack_images(networks, x, y, ids, **how).robust
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (large == small).float().mean() > 0.99


def waits(work: Callable[[int], Any], few: int, many: int) -> int:
    """How much more often the host waits in `many` steps of work than in few, as torch warns of it."""
    counts = []
    work(few)  # what is done once in a process
    for steps in (few, many):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work(steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchronizing" in str(warning.message) for warning in seen))
    return counts[1] - counts[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_as_seldom_as_on_the_pretended_gpu(digits: Dataset, method: str) -> None:
    assert waits(lambda steps: train_steps(digits, method, steps, GPU), 2, 6) <= 4 * WAITS_OF_A_STEP[method]


@pytest.mark.parametrize("name", EXTRAS)
def test_extras_wait_as_seldom_as_on_the_pretended_gpu(digits: Dataset, name: str) -> None:
    allowed = WAITS_OF_A_STEP["erm"] + WAITS_OF_EXTRAS[name]
    assert waits(lambda steps: train_steps(digits, "erm", steps, GPU, **EXTRAS[name]), 2, 6) <= 4 * allowed


def test_a_trials_step_waits_as_seldom_as_on_the_pretended_gpu(digits: Dataset) -> None:
    assert waits(lambda steps: trial_steps(digits, steps, GPU), 2, 6) <= 4 * WAITS_OF_A_TRIALS_STEP


@pytest.mark.parametrize("epsilon", [ALL_STAND, SOME_FALL])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_iteration_of_an_attack_waits_once(name: str, epsilon: float) -> None:
    found = waits(lambda steps: attacked(ATTACKS[name](steps), epsilon, GPU), 4, 12)
    assert found <= 8 * WAITS_OF_AN_ITERATION[name]


def test_pgd_does_not_wait_between_its_start_and_its_end() -> None:
    """Where torch raises at each operation for which the host would wait."""

    def start(x: Images, *, epsilon: float, generator: Randomness) -> Images:
        first = uniform_start(x, epsilon=epsilon, generator=generator)
        torch.cuda.set_sync_debug_mode("error")
        return first

    x, y = torch.rand(8, 3, 32, 32, device=GPU), torch.arange(8, device=GPU)
    how: dict[str, Any] = {"epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": 5}
    model, generator = network("resnet18", GPU), torch.Generator().manual_seed(0)
    pgd(model, x, y, **how, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode is a prototype
        try:
            pgd(model, x, y, **how, start=start, generator=generator)
        finally:
            torch.cuda.set_sync_debug_mode("default")
