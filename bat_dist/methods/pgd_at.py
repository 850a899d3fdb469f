"""PGD adversarial training: cross-entropy on adversarial images alone (Madry et al. 2018, arXiv:1706.06083, Eq. 2.1).

Attack in training: PGD on the cross-entropy from a uniform start in the ball.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.parallel import ALONE, Ranks, mean
from bat_dist.methods.table import Method
from bat_dist.methods.terms import cross_entropy


@dataclass(frozen=True)
class PgdAt(Method):
    """Mean cross-entropy on adversarial images; no hyper-parameter of its own."""

    def loss(self, batch: MiniBatch) -> Float[Tensor, ""]:
        """The loss of one mini-batch."""
        return self.objective(batch.forward(batch.adversarial()), batch.labels, ranks=batch.ranks)

    def objective(
        self,
        logits_adv: Float[Tensor, "batch classes"],
        labels: Int64[Tensor, " batch"],
        *,
        ranks: Ranks = ALONE,
    ) -> Float[Tensor, ""]:
        """mean CE(f(x_adv), y) (arXiv:1706.06083, Eq. 2.1)."""
        return mean(cross_entropy(logits_adv, labels), ranks)
