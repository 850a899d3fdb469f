"""TRADES: natural cross-entropy, and adversarial outputs drawn to natural ones (Zhang et al. 2019, arXiv:1901.08573).

Attack in training: PGD on the same KL divergence, from a small Gaussian start (0.001) around the image.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from bat_dist.attacks.linf import gaussian_start
from bat_dist.attacks.losses import kl_divergence
from bat_dist.methods.checks import check_at_least_0
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.parallel import ALONE, Ranks, mean
from bat_dist.methods.table import Method
from bat_dist.methods.terms import cross_entropy, log_softmax


@dataclass(frozen=True)
class Trades(Method):
    """mean [CE(f(x), y) + beta KL(p || a)], p = softmax f(x), a = softmax f(x_adv) (arXiv:1901.08573, Eq. 5).

    `beta` is 1 / lambda: 5 in the paper's tables (Sec. 5, "1/lambda = 5"); the published script's default is 6.
    As in that script, p is a target that learns: its gradient is not cut.
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        check_at_least_0("beta", self.beta, "0 is training on natural images, 5 the paper's")

    def loss(self, batch: MiniBatch) -> Float[Tensor, ""]:
        """The loss of one mini-batch."""
        x_adv = batch.adversarial(loss=kl_divergence, against="clean_logits", start=gaussian_start)
        logits_nat, logits_adv = batch.forward(batch.images), batch.forward(x_adv)
        return self.objective(logits_nat, logits_adv, batch.labels, ranks=batch.ranks)

    def objective(
        self,
        logits_nat: Float[Tensor, "batch classes"],
        logits_adv: Float[Tensor, "batch classes"],
        labels: Int64[Tensor, " batch"],
        *,
        ranks: Ranks = ALONE,
    ) -> Float[Tensor, ""]:
        """The loss of the batch, from logits of natural and adversarial images."""
        return mean(cross_entropy(logits_nat, labels) + self.beta * robust_kl(logits_nat, logits_adv), ranks)


def robust_kl(
    logits_nat: Float[Tensor, "batch classes"], logits_adv: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """KL(p || a) = sum_c p_c (log p_c - log a_c), with gradient in both (arXiv:1901.08573, Eq. 5)."""
    log_p, log_a = log_softmax(logits_nat), log_softmax(logits_adv)
    return (log_p.exp() * (log_p - log_a)).sum(dim=1)
