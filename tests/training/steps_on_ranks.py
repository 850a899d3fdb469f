"""Three optimizer steps of every method, and a resumed run, on this rank of a gloo world: test_world.py starts it."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes

from bat_dist.artifacts.checkpoints import load_tensors
from bat_dist.data.datasets import load_dataset
from bat_dist.data.loaders import Batch, Indices, dataset_loader
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.parallel import Ranks
from bat_dist.methods.table import build_method
from bat_dist.models.build import build
from bat_dist.storage.files import Folder
from bat_dist.training import files
from bat_dist.training.epoch import StepSettings, train_epoch
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Recipe
from bat_dist.training.run import Record, TrainingData, TrainingSettings, train
from bat_dist.training.splits import hold_out
from bat_dist.training.sync_batch_norm import synchronize_batch_norm
from bat_dist.training.world import World
from tests.training.cuda_batch_norm import taken_for_gpus

METHODS: dict[str, dict[str, Any]] = {
    "erm": {},
    "pgd_at": {},
    "trades": {},
    "mart": {},
    "gairat": {"begin": 0.0},
    "bat": {"alpha": 2.0, "beta": 0.5, "sigma": 0.3},  # three quarters are typical: the last batch has pairs too
    "bat_sampled": {"alpha": 2.0, "beta": 0.5, "sigma": 0.3, "num_negatives": 4},
}
STEPS = {"one": 16, "three": 43}  # samples at batch size 16: the last of three batches has 11, 6 and 5 for two ranks
FEATURES = {"with_awp": {"awp": 0.01}, "clipped": {"clip_norm": 0.1}}


class DoubleLoader:
    """Images in float64, so that the sign of a gradient is no matter of rounding."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def train_epoch(self, *args: Any, **kwargs: Any) -> Iterator[Batch]:
        for images, labels, indices in self.loader.train_epoch(*args, **kwargs):
            yield Batch(images.double(), labels, indices)

    def eval_epoch(self, indices: Indices | None = None, *, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError


def without_batch_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, nn.Identity() if isinstance(child, nn.BatchNorm2d) else without_batch_norm(child))
    return module


def network(norm: str, world: World) -> nn.Module:
    torch.manual_seed(3)
    net = build("resnet9-w4", 10, mean=(0.3,) * 3, std=(0.4,) * 3).double()
    if norm == "none":
        return without_batch_norm(net)
    return synchronize_batch_norm(net) if world.size > 1 else net


def cases(size: int) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """What `size` ranks train; four of them only what four may do otherwise than two."""
    for norm in ("none", "sync"):
        for method in METHODS:
            for steps in STEPS if size == 2 else ["three"]:
                yield method, norm, steps, {}
    for extra in FEATURES.values() if size == 2 else ():
        yield "pgd_at", "none", "three", extra


def name_of(case: tuple[str, str, str, dict[str, Any]]) -> str:
    return "-".join([*case[:3], *case[3]])


def weights_after(case: tuple[str, str, str, dict[str, Any]], world: World) -> np.ndarray:
    """All weights and running statistics, in one row."""
    method, norm, steps, extra = case
    dataset = load_dataset("digits", num_train=100, num_test=10)
    loader = DoubleLoader(dataset_loader("memory", dataset, "train"))
    recipe = Recipe(epochs=1, batch_size=16, lr=0.05, schedule="multistep", milestones=(0.5,))
    progress = Progress(network(norm, world), recipe)
    attack = TrainingAttack(epsilon=16 / 255, step_size=4 / 255, num_steps=2)
    settings = StepSettings(build_method(method.removesuffix("_sampled"), METHODS[method]), attack, "fp32", **extra)
    mem = torch.rand(100, generator=torch.Generator().manual_seed(1)) * 0.4
    with mock.patch("torch.manual_seed"):  # the test's own order of random numbers is not looked at
        train_epoch(
            progress,
            world.parallel(progress.network),
            loader,
            np.arange(STEPS[steps]),
            recipe=recipe,
            settings=settings,
            mem=mem,
            seed=0,
            world=world,
        )
    world.average_buffers(progress.network)
    return torch.cat([tensor.double().flatten() for tensor in progress.network.state_dict().values()]).numpy()


def without_reduction(world: World) -> Any:
    """Each rank for itself: what a loss would be that forgot the others."""
    return mock.patch.object(World, "ranks", lambda self, batch: Ranks(self.size, lambda x: x * self.size))


def as_on_nccl() -> Any:
    """torch takes gloo for NCCL and sends a gather's gradients back by a reduce-scatter, not an all-to-all."""
    return mock.patch.object(dist, "get_backend", return_value=dist.Backend.NCCL)


def reduce_scattered(world: World) -> Iterator[tuple[str, np.ndarray]]:
    """The weights after the steps whose losses gather rows, and how often a reduce-scatter was called for them."""
    for case in cases(world.size):
        method, norm, steps, _ = case
        if (norm, steps) == ("none", "three") and method in ("bat", "bat_sampled"):
            with as_on_nccl(), mock.patch.object(dist, "reduce_scatter", wraps=dist.reduce_scatter) as called:
                yield f"nccl-{method}", weights_after(case, world)
            yield f"nccl-{method}-calls", np.array(called.call_count)


def by_torchs_own_batch_norm(world: World) -> Iterator[tuple[str, np.ndarray]]:
    """As on GPUs, where BatchNorm over all ranks is torch's own."""
    for method in ("pgd_at", "bat"):
        with taken_for_gpus():
            kinds = {type(module) for module in network("sync", world).modules()}
            assert nn.SyncBatchNorm in kinds, "the network was not taken for one on a GPU"
            yield f"sync_on_gpus-{method}", weights_after((method, "sync", "three", {}), world)


def resumed(out: Path, world: World) -> Iterator[tuple[str, np.ndarray]]:
    """How far the state of a run that was resumed after its first epoch is from that of one that was not.

    And how far the averaged network's running statistics are from the mean of the ranks', which the network has.
    """
    dataset = load_dataset("digits", num_train=200, num_test=10)
    material = TrainingData(
        dataset, dataset_loader("memory", dataset, "train"), hold_out(dataset.train.labels, 40, seed=0)
    )
    attack = TrainingAttack(epsilon=16 / 255, step_size=4 / 255, num_steps=1)
    recipe = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="multistep", milestones=(0.5,))
    step = StepSettings(build_method("pgd_at", {}), attack, "fp32")
    settings = TrainingSettings("tinynet", recipe, step, attack, "val_pgd", seed=1, ema=0.9)
    whole, parted = (Record(Folder(out / name), {}, {"method": "pgd_at"}) for name in ("whole", "parted"))

    def copy_the_first(row: Any) -> None:
        if row["epoch"] == 1:
            shutil.copytree(out / "whole", out / "parted")

    cpu = torch.device("cpu")
    train(settings, material, whole, device=cpu, world=world, on_epoch=copy_the_first)
    train(settings, material, parted, device=cpu, world=world)
    dist.barrier()
    (state, _), (other, _) = (load_tensors(record.folder, files.STATE) for record in (whole, parted))
    yield "resumed", np.array([(state[name] - other[name]).abs().max() for name in state])
    means = [name for name in state if name.startswith("network.") and "running_" in name]
    averages = ["average.module." + name.removeprefix("network.") for name in means]
    assert means
    yield (
        "averaged_statistics",
        np.array([(state[a] - state[b]).abs().max() for a, b in zip(means, averages, strict=True)]),
    )


def main(out: Path, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=size)
    world = World.current()
    found: dict[str, Any] = {name_of(case): weights_after(case, world) for case in cases(size)}
    with without_reduction(world):
        for method in ("gairat", "bat"):
            found[f"careless-{method}"] = weights_after((method, "none", "three", {}), world)
    found |= dict(reduce_scattered(world)) | dict(by_torchs_own_batch_norm(world)) | dict(resumed(out, world))
    gathered = world.concatenate({name: row.sum() for name, row in found.items()})
    assert gathered[0] == gathered[-1], "the ranks' weights differ"
    if rank == 0:
        np.savez(out / "found.npz", **found)
    dist.destroy_process_group()


if __name__ == "__main__":  # all ranks, forked from one process that has imported all there is to import
    size = int(sys.argv[2])
    start_processes(lambda rank: main(Path(sys.argv[1]), rank, size), nprocs=size, start_method="fork")
