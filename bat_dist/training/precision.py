"""Numerical precision of a forward pass, and the device it runs on."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch

from bat_dist.training.recipe import Precision

log = logging.getLogger(__name__)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context in which convolutions and products run in `precision`; weights and reductions stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def default_device() -> torch.device:
    """The GPU that this process sees, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def warn_if_emulated(precision: Precision) -> None:
    """Say so if this machine has to emulate bf16, with neither GPU nor AVX-512: then fp32 is many times as fast."""
    capability = torch.backends.cpu.get_cpu_capability()
    if precision == "bf16" and default_device().type == "cpu" and capability in ("DEFAULT", "AVX2"):
        log.warning("bf16 is emulated on this CPU (%s), many times slower than fp32: give --precision fp32", capability)
