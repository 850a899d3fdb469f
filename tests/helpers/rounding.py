"""What PyTorch may round and choose while something is computed, seen from inside; and TF32, emulated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

backends: Any = torch.backends  # whose types do not know `fp32_precision`
cuda, cudnn = backends.cuda, backends.cudnn


class Flags(NamedTuple):
    """May cuDNN's convolutions and cuBLAS' products be rounded to TF32, and what is asked of cuDNN's algorithms?"""

    convolutions: bool
    products: bool
    deterministic: bool
    benchmark: bool


EXACT, ROUNDED = Flags(False, False, True, False), Flags(True, True, True, False)


def flags() -> Flags:
    """As the kernels read them, and as the older names tell them, which must be the same."""
    by_new_names = cudnn.conv.fp32_precision == "tf32", cuda.matmul.fp32_precision == "tf32"
    assert by_new_names == (cudnn.allow_tf32, cuda.matmul.allow_tf32)
    return Flags(*by_new_names, cudnn.deterministic, cudnn.benchmark)


@contextmanager
def opposite(of: Flags) -> Iterator[None]:
    """A process in which everything is set otherwise; at the end it must be as it was set."""
    before, other = flags(), Flags(*(not flag for flag in of))
    _set(other)
    try:
        yield
        assert flags() == other, "not restored"
    finally:
        _set(before)


def _set(wanted: Flags) -> None:
    cudnn.allow_tf32, cuda.matmul.allow_tf32 = wanted.convolutions, wanted.products
    cudnn.deterministic, cudnn.benchmark = wanted.deterministic, wanted.benchmark


class Note(NamedTuple):
    """A pass of a convolution: forward or backward, in train mode or not, with which flags."""

    way: str
    training: bool
    flags: Flags


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> set[Note]:
    """Of all passes of all convolutions; a few hundred passes leave a few notes."""
    found: set[Note] = set()

    class Noting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, training: bool) -> Tensor:
            ctx.training = training
            found.add(Note("forward", training, flags()))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
            found.add(Note("backward", ctx.training, flags()))
            return gradients[0], None

    exact = nn.Conv2d._conv_forward

    def noted(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        return Noting.apply(exact(self, x, weight, bias), self.training)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", noted)
    return found


@pytest.fixture
def emulated_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution keeps 10 bits of its factors' mantissas, unless PyTorch is told not to allow that.

    The gradients' own factors are not rounded, but for those that the forward pass has rounded.
    """
    exact = nn.Conv2d._conv_forward

    def rounded(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if flags().convolutions and x.dtype == torch.float32:
            x, weight = to_tf32(x), to_tf32(weight)
        return exact(self, x, weight, bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", rounded)


def to_tf32(values: Tensor) -> Tensor:
    """To the nearest, ties away from zero; the gradient passes."""
    bits = values.detach().contiguous().view(torch.int32)
    return values + (((bits + 0x1000) & ~0x1FFF).view(torch.float32) - values.detach())
