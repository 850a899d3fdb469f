"""Adversarial weight perturbation (Wu, Xia & Wang 2020, arXiv:2004.05884).

The loss is minimized not at the weights w but at w + v, with v the worst direction of a given relative length:

    v = gamma * ||w|| * g / ||g||      with g = gradient of the loss at w, per layer        (Eq. 8, one step)

Perturbed are weights of two and more dimensions (convolutions, linear layers), not biases and BatchNorm, as its authors
do. The published script takes g from a proxy network and its own optimizer; with one step that is the same direction.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.table import Method
from bat_dist.training.optimizer import Optimizer
from bat_dist.training.recipe import Precision
from bat_dist.training.step import differentiate


def differentiate_perturbed(
    method: Method, batch: MiniBatch, optimizer: Optimizer, precision: Precision, *, gamma: float
) -> Float[Tensor, ""]:
    """Do what `step.differentiate` does, with loss and gradient at w + v."""
    buffers = [buffer.clone() for buffer in batch.network.buffers()]
    differentiate(method, batch, optimizer, precision)
    with torch.no_grad():  # the look ahead moves no running statistics
        for buffer, before in zip(batch.network.buffers(), buffers, strict=True):
            buffer.copy_(before)
    with perturbed(batch.network, perturbation(batch.network, gamma)):
        return differentiate(method, batch, optimizer, precision)


@torch.no_grad()
def perturbation(network: nn.Module, gamma: float) -> dict[str, Tensor]:
    """v of each perturbed weight, from the gradients that lie in `.grad`."""
    moved = {}
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and weight.grad is not None:
            moved[name] = weight.grad * (gamma * weight.norm() / (weight.grad.norm() + 1e-20))
    return moved


@contextmanager
def perturbed(network: nn.Module, moved: dict[str, Tensor]) -> Iterator[None]:
    """Inside, the weights are w + v; afterwards, also after an error, exactly w."""
    weights = {name: weight for name, weight in network.named_parameters() if name in moved}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                weight += moved[name]
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
