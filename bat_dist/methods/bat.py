"""Benign Adversarial Training (Sec. 4): poisoning atypical samples count less, and typical samples of different classes
are driven apart.

    q     = largest softmax probability of a wrong class on x_adv                                 (Eq. 6)
    w     = exp(-alpha q) if mem > sigma and argmax f(x_adv) != y, else 1                         (Eq. 7)
    L_rw  = sum w CE(f(x_adv), y) / sum w                                                         (Eq. 8)
    L_DL  = mean of -s_ij + log D_ij over pairs of typical samples of one class, s = h.h / tau    (Eq. 9)
    L_BAT = L_rw + beta L_DL                                                                      (Eq. 10)

Attack in training: PGD on the cross-entropy; h are the penultimate features of x_adv, of the same forward pass.
With alpha = beta = 0 this is PGD-AT, bit for bit. Where the paper leaves something open or contradicts itself, our
reading is the default and the others are options:

Eq. 7   prints "argmax = y". Then q could not pass 0.5, against the paper's own examples with q > 0.8 (Fig. 3) and
        Sec. 4.1. `downweight`: misclassified (default), as_printed, all_atypical (mem > sigma alone).
        w is a constant: the paper says "assigned", and a loss should not fall by lowering its own weights.
Eq. 9   prints D = sum_k exp(s_ik) over samples of other classes, of features as they are: unbounded below, and seen to
        collapse. `denominator`: pos_plus_neg (default: that plus exp(s_ij), which bounds the loss by 0), neg_only (as
        printed), supcon (all other typical samples). `unit_length`: h scaled to length 1 (default) or raw (printed).
        x_k are all typical samples of other classes in the mini-batch (the paper's footnote 2), or
        `num_negatives` drawn for each pair, uniformly and with replacement (the text's K).
        The expectation is a mean over ordered pairs (`average` pairs) or over anchors (of the mean over their
        positives). Anchors without a positive or without a negative are left out; nothing left gives 0.
sigma   "mem < sigma" is typical in Eq. 9, "mem <= sigma" in Algorithm 1: `sigma_is_typical`.
tau     the paper gives none; 0.1 is ours.
NaN     undefined memorization (no trial with the sample, or none without it) is neither above nor below sigma: the
        sample has weight 1 and no part in L_DL. To count it as typical, put 0 in its place.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from bat_dist.attacks.checks import check_choice
from bat_dist.attacks.noise import Keys, uniform
from bat_dist.attacks.numerics import exact
from bat_dist.methods.checks import check_above_0, check_at_least_0, check_per_example
from bat_dist.methods.defaults import ALPHA, BETA
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.parallel import ALONE, Ranks, weighted_mean
from bat_dist.methods.table import Method
from bat_dist.methods.terms import cross_entropy, full_precision, largest_wrong, softmax

Downweight = Literal["misclassified", "as_printed", "all_atypical"]
Denominator = Literal["pos_plus_neg", "neg_only", "supcon"]
Average = Literal["pairs", "anchors"]
_NEGATIVES = 1  # number of the draw; draw 0 is where attacks start


@dataclass(frozen=True)
class Bat(Method):
    """Hyper-parameters of BAT.

    `alpha` 1 (or 2) and `beta` 0.2 are the best of the paper's grid (Sec. 5.2), `sigma` 0.15 is its threshold of
    atypical samples (Sec. 2.1). The other fields choose between readings: see the module.
    """

    alpha: float = ALPHA
    beta: float = BETA
    sigma: float = 0.15
    tau: float = 0.1
    downweight: Downweight = "misclassified"
    denominator: Denominator = "pos_plus_neg"
    unit_length: bool = True
    average: Average = "pairs"
    sigma_is_typical: bool = False
    num_negatives: int | None = None

    def __post_init__(self) -> None:
        check_at_least_0("alpha", self.alpha, "0 turns the reweighting off, 1 and 2 are the paper's")
        check_at_least_0("beta", self.beta, "0 turns the discrimination loss off, 0.2 is the paper's")
        check_above_0("tau", self.tau, "it divides the similarities, and 0.1 is the default")
        if not math.isfinite(self.sigma):
            raise ValueError(f"sigma must be finite, got {self.sigma}: a threshold of memorization, 0.15 in the paper")
        check_choice("downweight", self.downweight, Downweight)
        check_choice("denominator", self.denominator, Denominator)
        check_choice("average", self.average, Average)
        if self.num_negatives is not None and self.num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, got {self.num_negatives}: none takes all there are")
        if self.num_negatives is not None and self.denominator == "supcon":
            raise ValueError("num_negatives has no meaning with denominator supcon: drop it, or take pos_plus_neg")

    def loss(self, batch: MiniBatch) -> Float[Tensor, ""]:
        """The loss of one mini-batch.  Raises ValueError if it carries no memorization."""
        if batch.mem is None:
            raise ValueError("BAT needs the memorization of its samples: give scores")
        logits, features = batch.forward(batch.adversarial(), with_features=True)
        return self.objective(logits, features, batch.labels, batch.mem, ranks=batch.ranks, keys=batch.keys)

    def objective(
        self,
        logits_adv: Float[Tensor, "batch classes"],
        features_adv: Float[Tensor, "batch width"],
        labels: Int64[Tensor, " batch"],
        mem: Float[Tensor, " batch"],
        *,
        ranks: Ranks = ALONE,
        keys: Keys | None = None,
    ) -> Float[Tensor, ""]:
        """L_BAT of the batch (Eq. 10); `mem` is the memorization of its samples.

        `keys`: of its samples; needed for `num_negatives` alone. Raises ValueError without them.
        """
        check_per_example("mem", mem, labels, "index the scores by the batch's positions in the training set")
        weights = poisoning_weights(
            logits_adv, labels, mem, alpha=self.alpha, sigma=self.sigma, downweight=self.downweight
        )
        reweighted = weighted_mean(cross_entropy(logits_adv, labels), weights, ranks)  # Eq. 8
        if self.beta == 0:
            return reweighted
        mem = ranks.gather(mem)
        discrimination = discrimination_loss(
            ranks.gather(features_adv),
            ranks.gather(labels),
            mem <= self.sigma if self.sigma_is_typical else mem < self.sigma,
            tau=self.tau,
            denominator=self.denominator,
            unit_length=self.unit_length,
            average=self.average,
            num_negatives=self.num_negatives,
            keys=ranks.gather(keys) if self.num_negatives and keys is not None else None,
        )
        return reweighted + self.beta * discrimination  # Eq. 10


# --- reweighting


def poisoning_score(probs: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """q: largest probability of a wrong class (Eq. 6)."""
    return largest_wrong(probs, labels)


def poisoning_weights(
    logits_adv: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"],
    mem: Float[Tensor, " batch"],
    *,
    alpha: float,
    sigma: float,
    downweight: Downweight = "misclassified",
) -> Float[Tensor, " batch"]:
    """w: exp(-alpha q) for poisoning atypical samples, 1 for others (Eq. 7); a constant."""
    logits_adv = logits_adv.detach()
    q = poisoning_score(softmax(logits_adv), labels)
    poisoning = mem > sigma
    if downweight != "all_atypical":
        right = logits_adv.argmax(dim=1) == labels
        poisoning = poisoning & (right if downweight == "as_printed" else ~right)
    return torch.where(poisoning, torch.exp(-alpha * q), 1.0)  # Eq. 7


# --- discrimination


def discrimination_loss(
    features: Float[Tensor, "batch width"],
    labels: Int64[Tensor, " batch"],
    typical: Bool[Tensor, " batch"],
    *,
    tau: float,
    denominator: Denominator = "pos_plus_neg",
    unit_length: bool = True,
    average: Average = "pairs",
    num_negatives: int | None = None,
    keys: Keys | None = None,
) -> Float[Tensor, ""]:
    """L_DL: -s_ij + log D over pairs of typical samples of one class (Eq. 9); 0 with a zero gradient if there are none.

    Masks instead of picked rows: nothing waits for the device.  keys: of the samples, from which negatives are drawn.
    """
    s = similarity(features, tau=tau, unit_length=unit_length)
    positive, negative = pair_masks(labels, typical)
    counted = positive & negative.any(dim=1, keepdim=True)
    if num_negatives is None:
        losses = -s + log_denominator(s, positive, negative, denominator)  # Eq. 9
    else:
        losses = sampled_losses(s, draw_negatives(negative, num_negatives, keys), denominator)
    return average_pairs(losses, counted, average)


def similarity(
    features: Float[Tensor, "batch width"], *, tau: float, unit_length: bool
) -> Float[Tensor, "batch batch"]:
    """s_ij = h_i . h_j / tau (Eq. 9), neither in half precision nor in TF32: tau magnifies the rounding."""
    with torch.autocast(features.device.type, enabled=False):
        h = full_precision(features)
        h = functional.normalize(h, dim=1, eps=1e-12) if unit_length else h
        factor = exact(h)
        return (factor @ factor.T).to(h.dtype) / tau


def pair_masks(
    labels: Int64[Tensor, " batch"], typical: Bool[Tensor, " batch"]
) -> tuple[Bool[Tensor, "batch batch"], Bool[Tensor, "batch batch"]]:
    """Which (i, j) are two typical samples of one class, and which are of different classes."""
    same = labels[:, None] == labels[None, :]
    both = typical[:, None] & typical[None, :]
    both = both & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return both & same, both & ~same


def log_denominator(
    s: Float[Tensor, "batch batch"],
    positive: Bool[Tensor, "batch batch"],
    negative: Bool[Tensor, "batch batch"],
    denominator: Denominator,
) -> Float[Tensor, "batch _"]:
    """log D_ij (Eq. 9), by row where D does not depend on j; a finite number without meaning for nothing to sum."""
    summed = positive | negative if denominator == "supcon" else negative
    lowest = torch.finfo(s.dtype).min  # -inf would send NaN through the backward pass, to be masked later
    log_sum = s.masked_fill(~summed, lowest).logsumexp(dim=1, keepdim=True)
    return torch.logaddexp(s, log_sum) if denominator == "pos_plus_neg" else log_sum


def sampled_losses(
    s: Float[Tensor, "batch batch"], negatives: Int64[Tensor, "batch batch drawn"], denominator: Denominator
) -> Float[Tensor, "batch batch"]:
    """-s_ij + log D of each pair (i, j), with D over the pair's own drawn negatives (Eq. 9 with K)."""
    anchors = torch.arange(len(s), device=s.device)[:, None, None]
    log_sum = s[anchors, negatives].logsumexp(dim=2)
    return -s + (torch.logaddexp(s, log_sum) if denominator == "pos_plus_neg" else log_sum)


def draw_negatives(
    negative: Bool[Tensor, "batch batch"], num_negatives: int, keys: Keys | None
) -> Int64[Tensor, "batch batch drawn"]:
    """`num_negatives` for each pair (i, j) out of row i of `negative`, uniformly, with replacement (the K of Eq. 9).

    A row without any gets samples without meaning. Raises ValueError without keys.
    """
    if keys is None:
        raise ValueError("num_negatives needs the keys of the samples, from which it draws: see attacks/noise.py")
    size = len(negative)
    in_front = negative.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    numbers = uniform(keys, _NEGATIVES, size * num_negatives, dtype=torch.float64)
    rank = (numbers * negative.sum(dim=1, keepdim=True)).long()
    return in_front.gather(1, rank).view(size, size, num_negatives)


def average_pairs(
    losses: Float[Tensor, "batch batch"], counted: Bool[Tensor, "batch batch"], average: Average
) -> Float[Tensor, ""]:
    """The expectation of Eq. 9: mean over the counted pairs, or over anchors of the mean over their pairs; else 0."""
    shares = counted.to(losses.dtype)
    if average == "anchors":
        shares = shares / shares.sum(dim=1, keepdim=True).clamp_min(1)
    return (shares * torch.where(counted, losses, 0.0)).sum() / shares.sum().clamp_min(1)
