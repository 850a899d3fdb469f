"""How AutoAttack's attacks see a model: frozen, as logits or as a gradient with respect to the images alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bat_dist.attacks.checks import check_batch, check_logits
from bat_dist.attacks.frozen import frozen
from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels, Logits, Loss, PerExample
from bat_dist.attacks.standing import Flags, Ids


class GradientAt(NamedTuple):
    """At a point: the gradient of the loss there, and what was seen on the way; free of any graph."""

    gradient: Images
    logits: Logits
    losses: PerExample


@dataclass(frozen=True)
class FrozenModel:
    """A model inside `attacked`.

    num_draws: passes over which a gradient is averaged, for a model that draws random numbers in each: the expectation
    over transformation (EOT) of Athalye et al. 2018 (arXiv:1707.07397), as AutoAttack `rand` takes it.
    """

    model: nn.Module
    num_draws: int = 1

    def logits(self, x: Images) -> Logits:
        """One forward pass, without a graph."""
        return self.model(x).to(x.dtype)

    def gradient(self, x: Images, loss: Loss, against: Tensor) -> GradientAt:
        """Of the sum of the losses: of each image its own loss's.  Logits and losses are those of the last draw."""
        leaf, gradients = x.detach().requires_grad_(), []
        for _ in range(self.num_draws):
            with torch.enable_grad():
                logits = self.logits(leaf)
                losses = loss(logits, against)
                gradients += torch.autograd.grad(losses.sum(), leaf)
        gradient = gradients[0] if self.num_draws == 1 else torch.stack(gradients).mean(dim=0)
        return GradientAt(gradient, logits.detach(), losses.detach())


@contextmanager
def attacked(
    model: nn.Module, x: Images, y: Labels, ids: Ids | None, logits: Logits | None
) -> Iterator[tuple[FrozenModel, Images, Labels, Logits]]:
    """The frozen model, the batch and its logits. No matter in what contexts: no_grad, inference_mode, autocast.

    Without `logits` it costs one forward pass. Raises ValueError for a batch or labels that cannot be attacked.
    """
    largest = check_batch(x, y)
    if ids is not None:
        check_ids(ids, x)
    no_autocast = torch.autocast(x.device.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), no_autocast, frozen(model):
        victim, x, y = FrozenModel(model), x.detach().clone(), y.clone()
        logits = victim.logits(x) if logits is None else logits.clone()
        check_logits(logits, len(x), largest)
        yield victim, x, y, logits


def wrong(logits: Logits, y: Labels) -> Flags:
    """Of equal logits the first wins, as in torch.argmax; logits of which one is not a number are wrong."""
    return (logits.argmax(dim=1) != y) | logits.isnan().any(dim=1)


def check_ids(ids: Ids, x: Images) -> None:
    """Is there one whole number per image? Raises ValueError."""
    if ids.dtype != torch.int64 or ids.shape != x.shape[:1] or ids.device != x.device:
        raise ValueError(
            f"ids must be torch.int64 of shape {list(x.shape[:1])} on {x.device}, a number that names each image "
            f"in whatever batch it comes, got {ids.dtype} of shape {list(ids.shape)} on {ids.device}"
        )
