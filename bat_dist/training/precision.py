"""Numerical precision of a forward pass, and the device it runs on."""

from contextlib import AbstractContextManager, nullcontext

import torch

from bat_dist.training.recipe import Precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context in which convolutions and products run in `precision`; weights and reductions stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def default_device() -> torch.device:
    """The GPU that this process sees, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
