"""What an attack ascends: one value per example, from the logits at x_adv and what they are compared with.

A loss of one's own is any function of that form. Give it logits in float32 or float64; `pgd` does.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

Logits = Float[Tensor, "batch classes"]
Labels = Int64[Tensor, " batch"]
PerExample = Float[Tensor, " batch"]
Loss = Callable[[Logits, Tensor], PerExample]


def cross_entropy(logits: Logits, labels: Labels) -> PerExample:
    """-log softmax(logits)[label] (Madry et al. 2018, arXiv:1706.06083)."""
    return functional.cross_entropy(logits, _labels(labels), reduction="none")


def margin(logits: Logits, labels: Labels, *, confidence: float = 50.0) -> PerExample:
    """-max(0, l_y - max_{c != y} l_c + confidence): CW's margin (arXiv:1608.04644, f_6) as GAIRAT ascends it.

    Once every wrong class is `confidence` above the label the loss is 0 and so is its gradient: the image rests.
    The default 50 (GAIRAT's) is never reached in practice. To set it: functools.partial(margin, confidence=0.0).
    """
    column = _labels(labels).unsqueeze(1)
    true = logits.gather(1, column).squeeze(1)
    other = logits.scatter(1, column, -torch.inf).max(dim=1).values
    return -(true - other + confidence).relu()


def rescaled_cross_entropy(logits: Logits, labels: Labels, *, spread: float = 10.0) -> PerExample:
    """Cross-entropy of the logits scaled so that largest and smallest are `spread` apart; the scale is a constant.

    A network whose logits are far apart has a softmax of ones and zeros and a gradient of exactly 0 in float32, which
    stops PGD without making the network robust (Carlini & Wagner 2017, arXiv:1608.04644, on defensive distillation).
    """
    apart = (logits.amax(dim=1, keepdim=True) - logits.amin(dim=1, keepdim=True)).detach()
    return cross_entropy(logits * (spread / apart.clamp(min=1e-30)), labels)


def kl_divergence(logits: Logits, clean_logits: Logits) -> PerExample:
    """KL(softmax f(x) || softmax f(x_adv)), natural logarithm (TRADES, arXiv:1901.08573, Eq. 5).

    With `pgd`: against="clean_logits", start=gaussian_start.
    """
    if not clean_logits.is_floating_point():
        raise ValueError(f"kl_divergence compares with logits, got {clean_logits.dtype}: pass against='clean_logits'")
    log_p, log_q = clean_logits.log_softmax(dim=1), logits.log_softmax(dim=1)
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


def _labels(labels: Tensor) -> Labels:
    if labels.dtype != torch.int64:
        raise ValueError(f"this loss compares with labels (torch.int64), got {labels.dtype}: pass against='labels'")
    return labels
