"""Terms that several losses share: a value per example, in float32 at least, whatever autocast says."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """-log softmax(logits)[y]."""
    return functional.cross_entropy(full_precision(logits), labels, reduction="none")


def log_softmax(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """Logarithm of the probabilities: finite for finite logits, so that 0 * log 0 is 0."""
    return full_precision(logits).log_softmax(dim=1)


def softmax(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """The probabilities."""
    return full_precision(logits).softmax(dim=1)


def largest_wrong(probs: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """max_{c != y} probs[c]; of equals the first, which alone gets the gradient."""
    return probs.scatter(1, labels[:, None], -1.0).max(dim=1).values


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
