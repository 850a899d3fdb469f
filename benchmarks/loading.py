"""Loaders: batches of augmented training images, against torchvision's DataLoader and against a training step."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from bat_dist.data.loaders import Loader, LoaderUnavailable, dataset_loader
from bat_dist.methods.erm import Erm
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.training.progress import Progress
from bat_dist.training.step import differentiate
from benchmarks.adversarial import RECIPE, best_precision, in_channels_last, network
from benchmarks.data import images
from benchmarks.measurement import Context, Quantities, Side, Sides, Unavailable
from benchmarks.rivals import plain_loader

BATCH = 128


@contextmanager
def loaders(context: Context) -> Iterator[Sides]:
    """An epoch of each, and training steps of ResNet-9 of width 32; seconds are per batch of 128 images."""
    torch.set_num_threads(context.cores)
    count = context.pick(5000, 1000, 32)
    data, everyone = images(context, count, 10), np.arange(count)
    num_batches = -(-count // BATCH)

    def ours(loader: Loader, number: int) -> Quantities:
        generator = torch.Generator().manual_seed(number)
        return per_batch(num_batches, lambda: loader.train_epoch(everyone, batch_size=BATCH, generator=generator))

    def ffcv() -> Side | Unavailable:
        try:
            return partial(ours, dataset_loader("ffcv", data, "train"))
        except LoaderUnavailable as error:
            return Unavailable(str(error))

    theirs = plain_loader(data.train, everyone, batch_size=BATCH, augment=True)
    model, precision = (
        in_channels_last(network(context.pick("resnet9-w32", "resnet9-w8", "tinynet"), 0)),
        best_precision(),
    )
    progress = Progress(model, RECIPE)
    x = torch.rand(min(BATCH, count), 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.arange(len(x)) % 10

    def step(number: int) -> Quantities | None:
        model.train()
        differentiate(Erm(), MiniBatch(x, y, network=model, forward=model), progress.optimizer, precision)
        progress.optimizer.step(0.01)

    yield {
        "torchvision": lambda number: per_batch(num_batches, lambda: theirs),
        "memory": partial(ours, dataset_loader("memory", data, "train")),
        "ffcv": Unavailable("not in tests") if context.size == "tiny" else ffcv(),
        "training step": step,
    }


def per_batch(num_batches: int, epoch: Callable[[], Iterable[object]]) -> Quantities:
    """Seconds of a batch, from those of an epoch, its order and draws included; no batch is kept, as in training."""
    start = time.perf_counter()
    deque(epoch(), maxlen=0)
    return {"seconds": (time.perf_counter() - start) / num_batches}
