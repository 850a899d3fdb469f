"""GAIRAT: geometry-aware instance-reweighted adversarial training (Zhang et al. 2021, arXiv:2010.01736).

A sample counts by its distance to the decision boundary, of which kappa is the measure: the number of PGD iterates
0..K-1 that are still classified right (K the number of steps). Attack in training: PGD on the cross-entropy.

The weights are those of the published script, which the golden numbers stand for: with h = floor(K / 2),

    tanh        (tanh(Lambda + 5 (h - kappa) / h) + 1) / 2
    sigmoid     sigmoid(Lambda + 5 (h - kappa) / h)
    discrete    (K + 1 - kappa) / (K + 1), without Lambda

then scaled to sum to the number of samples. Lambda = inf means equal weights, plain PGD-AT.

Lambda as a function of progress, the finished share of the epochs (epoch / epochs, from 0):

    fixed       `initial_lambda` before `begin`, `final_lambda` from it on
    linear      `initial_lambda` before `begin`, from it on initial - progress * (initial - final)

The default is plain PGD-AT up to half of the epochs, where the paper's recipe first lowers the learning rate (Sec. 5,
epoch 80 of 160), and -1 from there on. For another recipe, give its first drop as `begin`. The published script counts
epochs from 1 and starts at epoch 60 of its 120, the same share.

Its third schedule, `piecewise`, is not offered: its branches stand in an order in which the later stages are never
reached, so that every published result under that name is of `fixed`, and we would have to make up what was meant.
Its `linear` from an infinite Lambda, its default, is NaN; here it is refused.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bat_dist.attacks.checks import check_choice
from bat_dist.methods.checks import check_per_example
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.parallel import ALONE, Ranks, mean, weighted_mean
from bat_dist.methods.table import Method
from bat_dist.methods.terms import cross_entropy

WeightFunction = Literal["tanh", "sigmoid", "discrete"]
Schedule = Literal["fixed", "linear"]
_ONE_STEP = "kappa of one step says nothing of distance"
_LOWEST_LAMBDA = -20  # weights from e^-60 on: far below any use, and far above what float32 rounds to 0


@dataclass(frozen=True)
class Gairat(Method):
    """mean of w CE(f(x_adv), y), with weights w that sum to the number of samples, over all ranks.

    `function` tanh and `final_lambda` -1 are what its authors suggest, whom the paper follows (Sec. 5).
    """

    function: WeightFunction = "tanh"
    schedule: Schedule = "fixed"
    begin: float = 0.5
    initial_lambda: float = math.inf
    final_lambda: float = -1.0

    def __post_init__(self) -> None:
        check_choice("function", self.function, WeightFunction)
        check_choice("schedule", self.schedule, Schedule)
        if not 0 <= self.begin <= 1:
            raise ValueError(f"begin must be in [0, 1], got {self.begin}: it is a share of the epochs, 0.5 the paper's")
        check_lambda("initial_lambda", self.initial_lambda)
        check_lambda("final_lambda", self.final_lambda)
        if self.schedule == "linear" and math.inf in (self.initial_lambda, self.final_lambda):
            raise ValueError(
                f"schedule linear needs finite lambdas, got initial_lambda {self.initial_lambda}, "
                f"final_lambda {self.final_lambda}: give initial_lambda a value such as 3, or take schedule fixed"
            )

    def check_attack(self, num_steps: int) -> None:
        """Raise ValueError for an attack by which no weights can be told, if any will be needed."""
        weighs = self.initial_lambda < math.inf or (self.begin < 1 and self.final_lambda < math.inf)
        if weighs and num_steps < 2:
            raise ValueError(f"num_steps must be at least 2 for gairat, got {num_steps}: {_ONE_STEP}")

    def lambda_at(self, progress: float) -> float:
        """Lambda when `progress`, a share of the epochs, is finished; inf is plain PGD-AT."""
        if progress < self.begin:
            return self.initial_lambda
        if self.schedule == "fixed":
            return self.final_lambda
        return self.initial_lambda - progress * (self.initial_lambda - self.final_lambda)

    def loss(self, batch: MiniBatch) -> Float[Tensor, ""]:
        """The loss of one mini-batch."""
        path = batch.adversarial_path()
        return self.objective(
            batch.forward(path.x_adv),
            batch.labels,
            path.kappa,
            num_steps=batch.num_steps,
            progress=batch.progress,
            ranks=batch.ranks,
        )

    def objective(
        self,
        logits_adv: Float[Tensor, "batch classes"],
        labels: Int64[Tensor, " batch"],
        kappa: Int64[Tensor, " batch"],
        *,
        num_steps: int,
        progress: float,
        ranks: Ranks = ALONE,
    ) -> Float[Tensor, ""]:
        """The loss of the batch; `num_steps` are those of the attack that counted `kappa`. w is a constant."""
        check_per_example("kappa", kappa, labels, "count it on this batch")
        losses, lambda_ = cross_entropy(logits_adv, labels), self.lambda_at(progress)
        if lambda_ == math.inf:
            return mean(losses, ranks)
        weights = geometry_weights(kappa.to(losses), num_steps=num_steps, lambda_=lambda_, function=self.function)
        return weighted_mean(losses, normalized(weights, ranks=ranks), ranks)


def geometry_weights(
    kappa: Int64[Tensor, " batch"] | Float[Tensor, " batch"],
    *,
    num_steps: int,
    lambda_: float,
    function: WeightFunction,
) -> Float[Tensor, " batch"]:
    """A weight per sample in [0, 1], falling with kappa; not yet normalized (arXiv:2010.01736; see the module).

    Raises ValueError for an attack of fewer than two steps, and for a Lambda that leaves no weights to divide by.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps must be at least 2, got {num_steps}: {_ONE_STEP}")
    check_lambda("lambda_", lambda_)
    if function == "discrete":
        return (num_steps + 1 - kappa) / (num_steps + 1)
    half = num_steps // 2
    exponent = lambda_ + 5 * (half - kappa) / half
    return torch.sigmoid(2 * exponent if function == "tanh" else exponent)  # (tanh z + 1) / 2, which would cancel


def normalized(weights: Float[Tensor, " batch"], *, ranks: Ranks = ALONE) -> Float[Tensor, " batch"]:
    """The weights scaled to sum to the number of samples, both over the batch of all ranks (the published script)."""
    total, count = ranks.sum(torch.stack([weights.sum(), torch.ones_like(weights).sum()]))
    return weights * count / total


def check_lambda(name: str, value: float) -> None:
    """A number that leaves weights to divide by, or inf."""
    if not value >= _LOWEST_LAMBDA:
        raise ValueError(f"{name} must be at least {_LOWEST_LAMBDA}, got {value}: -1 is published, inf is plain PGD-AT")
