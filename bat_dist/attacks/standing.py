"""An attack as a unit of work: its outcome, and the book of who still stands."""

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels, Logits

Ids = Int64[Tensor, " batch"]
Flags = Bool[Tensor, " batch"]


class AttackOutcome(NamedTuple):
    """What an attack did to a batch.

    robust: is the image still classified right? x_adv: where it is not, an image in the ball that the model gets wrong
    (the clean one if it was wrong before); elsewhere the image as it was.
    """

    robust: Flags
    x_adv: Images


class Attack(Protocol):
    """One attack. What it does to an image does not depend on the other images of the batch."""

    def __call__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        *,
        epsilon: float,
        seed: int,
        ids: Ids,
        logits: Logits | None = None,
    ) -> AttackOutcome:
        """Attack a batch.

        ids: name the images, for their random numbers. logits: the model's at x, if the caller has them.
        """
        ...


class Survivors:
    """Which images of a batch still stand. Those that fall are written down and leave the attack's state."""

    def __init__(self, x: Images) -> None:
        self.outcome = AttackOutcome(torch.ones(len(x), dtype=torch.bool, device=x.device), x.clone())
        self._rows = torch.arange(len(x), device=x.device)

    def __len__(self) -> int:
        """How many stand."""
        return len(self._rows)

    def fell(self, fallen: Flags, x_adv: Images, *state: Tensor) -> tuple[Tensor, ...]:
        """fallen, x_adv and state have a row per standing image; returned are the rows of state that go on.

        fallen: may be on the CPU. On a GPU the host waits once, for the flags: it tells from them which rows go where.
        """
        flags = fallen.cpu()
        if not flags.any():
            return state
        device = self._rows.device
        gone, left = (which.nonzero().squeeze(1).to(device, non_blocking=True) for which in (flags, ~flags))
        rows = self._rows.index_select(0, gone)
        self.outcome.robust.index_fill_(0, rows, False)
        self.outcome.x_adv.index_copy_(0, rows, rows_of(x_adv, gone))
        self._rows = self._rows.index_select(0, left)
        return tuple(rows_of(tensor, left) for tensor in state)


def rows_of(tensor: Tensor, at: Int64[Tensor, " rows"]) -> Tensor:
    """tensor[at], in the tensor's memory format; `index_select`, which is faster, makes all contiguous."""
    return tensor.index_select(0, at) if tensor.is_contiguous() else tensor[at]
