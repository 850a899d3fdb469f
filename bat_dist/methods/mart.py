"""MART: misclassification-aware adversarial training (Wang et al. 2020, "Improving Adversarial Robustness Requires
Revisiting Misclassified Examples").

The formulas are the paper's. The constants that keep the logarithms finite are those of its published script, which
the golden numbers stand for; no line of it was used. Attack in training: PGD on the cross-entropy, in that script from
a small Gaussian start (0.001) around the image.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bat_dist.attacks.linf import gaussian_start
from bat_dist.methods.checks import check_at_least_0
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.parallel import ALONE, Ranks, mean
from bat_dist.methods.table import Method
from bat_dist.methods.terms import cross_entropy, largest_wrong, log_softmax, softmax


@dataclass(frozen=True)
class Mart(Method):
    """mean [BCE(a, y) + beta (1 - p[y]) KL(p || a)], p = softmax f(x), a = softmax f(x_adv); no gradient is cut.

    `beta`: 5 for ResNets, 6 for wide ones (the published scripts).
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        check_at_least_0("beta", self.beta, "0 leaves the boosted cross-entropy alone, 5 or 6 are the published ones")

    def loss(self, batch: MiniBatch) -> Float[Tensor, ""]:
        """The loss of one mini-batch."""
        x_adv = batch.adversarial(start=gaussian_start)
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
        boosted = boosted_cross_entropy(logits_adv, labels)
        return mean(boosted + self.beta * weighted_kl(logits_nat, logits_adv, labels), ranks)


def boosted_cross_entropy(
    logits_adv: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """BCE = -log a[y] - log(1 - max_{c != y} a[c]), MART's boosted cross-entropy (Wang et al. 2020)."""
    runner_up = largest_wrong(softmax(logits_adv), labels)
    return cross_entropy(logits_adv, labels) - torch.log(1.0001 - runner_up + 1e-12)


def weighted_kl(
    logits_nat: Float[Tensor, "batch classes"],
    logits_adv: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """(1 - p[y]) KL(p || a), MART's weighted KL (Wang et al. 2020): what is misclassified or uncertain counts more."""
    log_p, a = log_softmax(logits_nat), softmax(logits_adv)
    p = log_p.exp()
    kl = (p * (log_p - torch.log(a + 1e-12))).sum(dim=1)
    return (1.0000001 - p.gather(1, labels[:, None]).squeeze(1)) * kl
