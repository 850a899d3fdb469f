"""Streams of randomness: a seed from a few numbers, and networks whose weights depend on those alone."""

import numpy as np
import torch
from torch import nn

from bat_dist.data.datasets import Dataset
from bat_dist.models.build import build
from bat_dist.models.classifier import ImageClassifier
from bat_dist.models.own import OwnNetwork


def seed_of(*key: int) -> int:
    """A seed for torch from numbers >= 0; other numbers, or another order of them, give an unrelated one."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def seeded_model(arch: str | OwnNetwork, dataset: Dataset, device: torch.device, *, key: tuple[int, ...]) -> nn.Module:
    """A new network on `device` whose weights depend on `key` alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*key))
        model = build(arch, len(dataset.class_names), mean=dataset.spec.mean, std=dataset.spec.std)
    if not isinstance(model, ImageClassifier):  # its `view` may rely on the usual order
        return model.to(device)
    return model.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
