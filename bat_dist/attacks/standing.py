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
        """fallen, x_adv and state have a row per standing image; returned are the rows of state that go on."""
        if not fallen.any():
            return state
        rows = self._rows[fallen]
        self.outcome.robust[rows], self.outcome.x_adv[rows] = False, x_adv[fallen]
        self._rows = self._rows[~fallen]
        return tuple(tensor[~fallen] for tensor in state)
