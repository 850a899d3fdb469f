"""Numerical precision of a forward pass, the device it runs on, and what that is and has."""

import logging
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from bat_dist.errors import UserError
from bat_dist.storage.provenance import ComputedOn, cpu_name, driver_version
from bat_dist.training.recipe import Precision, PrecisionOrAuto

log = logging.getLogger(__name__)

ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # the user's limit on what oneDNN may use


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context in which convolutions and products run in bf16 if that is asked for; weights and reductions stay fp32.

    What fp32 is, `attacks.numerics` says; unlike this context, that must hold in the backward pass too.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def default_device() -> torch.device:
    """The GPU that this process sees, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Hardware(NamedTuple):
    """What one process computes on.  has_bf16: by instructions of its own, not by emulation."""

    host: str
    device: str
    has_bf16: bool
    has_tf32: bool = False

    def __str__(self) -> str:
        if self.host == socket.gethostname():
            return f"this {self.device}"
        return f"the {self.device} of {self.host}"


def this_hardware(device: torch.device | None = None) -> Hardware:
    """What this process computes on: the device, or by default the GPU that it sees, or the CPU."""
    is_gpu = (device or default_device()).type == "cuda"
    name = torch.cuda.get_device_name() if is_gpu else "CPU"
    has_bf16 = _gpu_has_bf16() if is_gpu else _cpu_has_bf16()
    return Hardware(socket.gethostname(), name, has_bf16, has_tf32=is_gpu and _gpu_is_ampere_or_later())


def computed_on() -> ComputedOn:
    """What this process computes on, to be kept with what it has computed."""
    found: ComputedOn = {"cpu": cpu_name(), "threads": torch.get_num_threads()}
    if default_device().type != "cuda":
        return found
    found["gpu"] = torch.cuda.get_device_name()
    if driver := driver_version():
        found["driver"] = driver
    found["cuda"] = torch.version.cuda or f"HIP {torch.version.hip}"
    if version := torch.backends.cudnn.version():
        found["cudnn"] = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
    return found


def check_tf32(workers: Iterable[Hardware]) -> None:
    """Raise UserError for a worker that has no TF32: its fp32 would be recorded as what it is not."""
    if without := next((worker for worker in workers if not worker.has_tf32), None):
        raise UserError(
            f"precision tf32: {without} has no TF32, as only NVIDIA GPUs of compute capability 8.0 or more (Ampere) "
            "have it; take precision fp32, or auto"
        )


def choose_precision(asked: PrecisionOrAuto, workers: Sequence[Hardware]) -> tuple[Precision, str]:
    """What is asked for, or bf16 if all workers have it by instructions of their own, else fp32; and why.

    Warns of bf16 that a worker must emulate. Raises UserError for TF32 that a worker has not.
    """
    if asked == "tf32":
        check_tf32(workers)
    without = next((worker for worker in workers if not worker.has_bf16), None)
    if asked == "bf16" and without:
        log.warning("bf16 is emulated: %s has no bf16 instructions; --precision fp32 is many times as fast", without)
    if asked != "auto":
        return asked, "as asked for"
    if without:
        return "fp32", f"{without} has no bf16 instructions"
    if not workers:
        return "fp32", "no worker has said whether it has bf16 instructions"
    return "bf16", f"{workers[0] if len(workers) == 1 else 'every worker'} has bf16 instructions"


def _gpu_has_bf16() -> bool:
    """PyTorch's own `is_bf16_supported` says yes to emulation (Turing and older) too."""
    return torch.cuda.is_bf16_supported() if torch.version.hip else _gpu_is_ampere_or_later()


def _gpu_is_ampere_or_later() -> bool:
    """NVIDIA's GPUs of compute capability 8.0 and more: these have bf16 and TF32."""
    return torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)


def isa_limit() -> str:
    """What oneDNN may use at most, in its own words and upper case: ALL, unless the user has set a limit."""
    return next((os.environ[name].upper() for name in ISA_LIMITS if os.environ.get(name)), "ALL")


def _cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for it, and neither PyTorch nor oneDNN was told to do without (`ISA_LIMITS`)."""
    known = hasattr(torch.cpu, "get_capabilities")  # not in older versions of PyTorch
    found = torch.cpu.get_capabilities() if known else {}
    if found.get("architecture") in ("aarch64", "arm64"):
        return bool(found.get("bf16"))
    limited = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    allowed = any(word in isa_limit() for word in ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10"))
    return allowed and not limited and any(found.get(name) for name in ("avx512_bf16", "amx_bf16"))
