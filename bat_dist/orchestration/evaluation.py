"""An evaluation on Ray: blocks of test images, each attacked by itself, into a row store; then flags by image."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import ray
import torch
from jaxtyping import Bool, Int64

from bat_dist.config import RunError, UserError
from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.blocks import robust_flags
from bat_dist.evaluation.names import rows_of
from bat_dist.orchestration.pool import Resources, Work
from bat_dist.orchestration.rows import Filled, fill_rows
from bat_dist.orchestration.session import ray_session
from bat_dist.orchestration.settings import EvaluateSettings
from bat_dist.storage.checkpoints import Checkpoint, load_checkpoint
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.training.precision import default_device

STORE = "blocks"


@dataclass(frozen=True)
class Flags:
    """Is each test image classified right after each attack?  Rows as `evaluation.names.rows_of`."""

    attacks: tuple[str, ...]
    robust: Bool[np.ndarray, "attacks images"]


@dataclass(frozen=True)
class Trained:
    """A network as it travels to the workers."""

    checkpoint: Checkpoint
    digest: str


def load_trained(dataset: Dataset, settings: EvaluateSettings) -> Trained:
    """The checkpoint.  Raises UserError if it is missing, damaged, or of other classes or image size than the data."""
    found = load_checkpoint(settings.checkpoint, settings.which)
    if found.spec.class_names != dataset.class_names:
        raise UserError(
            f"checkpoint {settings.checkpoint} knows {len(found.spec.class_names)} classes, "
            f"{_some(found.spec.class_names)}, the data has {len(dataset.class_names)}, {_some(dataset.class_names)}"
        )
    digest = sha256()
    for name, tensor in sorted(found.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return Trained(found, digest.hexdigest()[:16])


def evaluate(folder: Folder, dataset: Dataset, settings: EvaluateSettings, trained: Trained) -> tuple[Flags, Filled]:
    """Attack the blocks that the folder lacks, and put all together by image.

    Raises UserError if the folder holds an evaluation of something else, RunError if a block failed.
    """
    rows, images = rows_of(settings.attacks), len(dataset.test)
    blocks = blocks_of(images, settings.block)
    attack = {
        "attacks": settings.attacks,
        "epsilon": settings.epsilon or dataset.spec.epsilon,
        "step_size": settings.step_size or dataset.spec.step_size,
        "restarts": settings.restarts,
        "seed": settings.seed,
    }
    identity = {**attack, "attacks": list(settings.attacks), "block": settings.block, "network": trained.digest}
    identity |= {"dataset": dataset.name, "data_fingerprint": dataset.fingerprint}
    fields = {"robust": Field("bool", (len(rows), len(blocks[0])))}
    store = RowStore.open(folder / STORE, fields=fields, identity=identity, num_rows=len(blocks))
    filled = Filled(len(blocks), 0, (), {}, 0.0)
    if not store.status().complete[: len(blocks)].all():
        with ray_session(settings.ray_address):
            filled = fill_rows(
                store,
                folder,
                len(blocks),
                build_work,
                [ray.put(dataset), ray.put(trained.checkpoint), settings.block, attack],
                what="blocks",
                resources=Resources.of_worker(settings.cpus_per_worker, settings.gpus_per_worker),
                num_workers=settings.num_workers,
                give_up_on=(ValueError,),
            )
    if filled.failed:
        block, reason = min(filled.failed.items())
        raise RunError(f"{len(filled.failed)} blocks failed, block {block} with {reason}; the same command goes on")
    robust = np.zeros((len(rows), images), bool)
    for number, indices in enumerate(blocks):
        robust[:, indices] = store.read("robust", np.array([number]))[0][:, : len(indices)]
    return Flags(rows, robust), filled


def blocks_of(images: int, size: int) -> list[Int64[np.ndarray, " block"]]:
    """Every index once, in blocks of at most `size` that differ by one: every k-th image, so that they cost alike."""
    count = -(-images // size)
    return [np.arange(first, images, count) for first in range(count)]


def build_work(dataset: Dataset, checkpoint: Checkpoint, size: int, attack: dict[str, Any]) -> Work:
    """Runs once in each worker: the network on its device, and a function of the block's number alone."""
    device = default_device()
    model = checkpoint.model.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    blocks, test = blocks_of(len(dataset.test), size), dataset.test

    def work(number: int) -> dict[str, Any]:
        at = blocks[number]
        robust = robust_flags(model, test.images[at], test.labels[at], at, device=device, **attack)
        padded = np.zeros((len(robust), len(blocks[0])), bool)
        padded[:, : len(at)] = robust
        return {"robust": padded}

    return work


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
