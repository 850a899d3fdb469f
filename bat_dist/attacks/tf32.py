"""fp32 that is fp32: on Ampere and later, PyTorch lets cuDNN round the factors of a convolution to TF32's 10 bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_tf32() -> Iterator[None]:
    """A context in which fp32 convolutions and products are not rounded to TF32, and cuDNN is deterministic.

    For numbers that are compared, as robust accuracies and the logits of a folded network are: TF32 moves logits by
    about a thousandth, and its own rounding is what an attack would then climb. No effect on CPUs.
    """
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = products
