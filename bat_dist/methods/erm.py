"""Empirical risk minimization: plain training, by which memorization is defined (Sec. 2.1)."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Erm:
    """Mean cross-entropy on clean images."""

    label_smoothing: float = 0.0

    def loss(
        self, model: nn.Module, images: Float[Tensor, "batch 3 height width"], labels: Int64[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """The loss of one mini-batch."""
        return functional.cross_entropy(model(images), labels, label_smoothing=self.label_smoothing)
