"""Empirical risk minimization: plain training, by which memorization is defined (Sec. 2.1)."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.parallel import ALONE, Ranks, mean
from bat_dist.methods.table import Method


@dataclass(frozen=True)
class Erm(Method):
    """Mean cross-entropy on clean images."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be in [0, 1), got {self.label_smoothing}: 0 is none, 0.1 a common value"
            )

    def loss(self, batch: MiniBatch) -> Float[Tensor, ""]:
        """The loss of one mini-batch."""
        return self.objective(batch.forward(batch.images), batch.labels, ranks=batch.ranks)

    def objective(
        self, logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"], *, ranks: Ranks = ALONE
    ) -> Float[Tensor, ""]:
        """mean CE(f(x), y), the empirical risk (Sec. 2.1)."""
        losses = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        return mean(losses, ranks)
