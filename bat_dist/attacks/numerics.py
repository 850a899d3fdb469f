"""The one place that sets how GPUs round and choose algorithms; precisions are named here.

`fp32` is single precision in every product. `tf32` lets GPUs round the factors of convolutions and matrix products to
TF32's 10 bits (NVIDIA Ampere and later). `bf16` runs the network under autocast; products that autocast leaves in
single precision are as in `fp32`. Left to itself PyTorch allows TF32 to cuDNN's convolutions, and to no other product.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["bf16", "fp32", "tf32"]

_backends: Any = torch.backends  # whose types do not know `fp32_precision`


@contextmanager
def numerics(precision: Precision) -> Iterator[None]:
    """A context, or decorator, in which fp32 is what `precision` says, and cuDNN deterministic and without a search.

    Both hold for the whole process, thus for the threads of the backward pass too, which must run inside. Afterwards,
    also after an exception, everything is as it was found, whether it was set through `allow_tf32` or through
    `fp32_precision`. CPUs have neither TF32 nor cuDNN; their products in single precision are exact inside.
    """
    before = (_matmul_precision(), [operation.fp32_precision for operation in _operations()])
    chosen = _backends.cudnn.benchmark, _backends.cudnn.deterministic
    rounded = precision == "tf32"
    _backends.cudnn.benchmark, _backends.cudnn.deterministic = False, True
    _set("high" if rounded else "highest", ["tf32" if rounded else "ieee"] * len(before[1]))
    try:
        yield
    finally:
        _set(*before)
        _backends.cudnn.benchmark, _backends.cudnn.deterministic = chosen


def exact(tensor: Tensor) -> Tensor:
    """The tensor for a product that must not be rounded to TF32: in double precision where TF32 is allowed now."""
    return tensor.double() if _backends.cuda.matmul.fp32_precision == "tf32" else tensor


def _operations() -> tuple[Any, ...]:
    """What has an `fp32_precision` of its own; convolutions come first."""
    return (_backends.cudnn.conv, _backends.cudnn.rnn, _backends.cuda.matmul, _backends.mkldnn.matmul)


def _matmul_precision() -> str:
    """As `set_float32_matmul_precision` takes it; PyTorch does not tell it of a process that uses `fp32_precision`."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "high" if _backends.cuda.matmul.fp32_precision == "tf32" else "highest"


def _set(matmul_precision: str, of_operations: list[str]) -> None:
    """Through the old names and then the new ones: PyTorch raises where a reader of the old ones finds them differ."""
    torch.set_float32_matmul_precision(matmul_precision)
    _backends.cudnn.allow_tf32 = of_operations[0] == "tf32"
    for operation, value in zip(_operations(), of_operations, strict=True):
        operation.fp32_precision = value
