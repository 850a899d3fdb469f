"""Look at a model from outside and leave it exactly as it was."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import nn

Mode = Literal["eval", "keep"]


@contextmanager
def frozen(model: nn.Module, *, mode: Mode = "eval") -> Iterator[None]:
    """Inside, no parameter asks for a gradient, and the model is in eval mode (or, with "keep", in the mode it has).

    Afterwards, also after an exception, the mode of every submodule, requires_grad, every buffer and torch's global
    generators are what they were. No .grad is touched. In train mode ("keep") BatchNorm uses the statistics of the
    batch and would move its running ones: it moves copies, lent for the time, so that the model's own buffers are not
    even written to (writing them back would break a caller's graph that has saved them). Random layers (dropout) draw
    from the global generators as they stand; these are then set back.

    Give it the plain model: DistributedDataParallel's `.module`, never the wrapper.
    """
    modules, learning = list(model.modules()), [p for p in model.parameters() if p.requires_grad]
    modes = [module.training for module in modules]
    try:
        if mode == "eval":
            model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        with _global_rng_kept(model), _buffers_kept(modules if mode == "keep" else []):
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, training in zip(modules, modes, strict=True):
            module.training = training  # one by one: train() would set the children too


@contextmanager
def _buffers_kept(modules: list[nn.Module]) -> Iterator[None]:
    own = [(module, dict(module.named_buffers(recurse=False))) for module in modules]
    try:
        for module, buffers in own:
            for name, buffer in buffers.items():
                setattr(module, name, buffer.clone())
        yield
    finally:
        for module, buffers in own:
            for name, buffer in buffers.items():
                setattr(module, name, buffer)


def _global_rng_kept(model: nn.Module) -> AbstractContextManager:
    cuda = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return torch.random.fork_rng(devices=list(cuda))
