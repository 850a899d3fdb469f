"""Losses under data parallelism: R ranks with parts of a batch train as one process with the whole batch.

DDP averages the gradients of the ranks. So each loss here is scaled to fulfil one rule, for value and gradient alike:

    mean over ranks of loss_r  =  loss of the joined batch

Weighted mean   L = sum_i w_i v_i / W with W = sum_i w_i over the whole batch, and w constant. Rank r returns
                loss_r = R * sum_{i in r} w_i v_i / W, whose mean over ranks is L. Dividing by the rank's own sum
                instead gives every rank the same say, whatever its weights or its number of samples.
Joint loss      L = f(H) of the gathered rows H, the same on each rank. As mean_r L = L, rank r returns L as it is.
                The gradient that comes back to rank r's rows is then sum_r' dL/dH_r = R dL/dH_r, and DDP's mean of
                R (dL/dH_r) (dH_r/dtheta) over ranks is dL/dtheta. A gather that passed on the rank's own gradient
                alone would be too small by R.

A loss calls the same collectives in the same order on every rank, whatever the data. Nothing here imports
torch.distributed: whoever starts the ranks hands the operations in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Ranks:
    """The collective operations that a loss needs; as they are here, those of a single process.

    `sum(x)`     x summed over the ranks, as a constant: no gradient is asked for.
    `gather(x)`  the rows of all ranks in rank order, [rows, ...] -> [all rows, ...], also of tensors without
                 gradient. Its backward pass gives a rank's rows the sum, over ranks, of the gradients that reached
                 them (as torch.distributed.nn.functional.all_gather does). Where each rank computes the same from
                 what was gathered, `size` times the own gradient is that sum, and needs no communication.
    """

    size: int = 1
    sum: Callable[[Tensor], Tensor] = _unchanged
    gather: Callable[[Tensor], Tensor] = _unchanged


ALONE = Ranks()


def weighted_mean(values: Float[Tensor, " batch"], weights: Float[Tensor, " batch"], ranks: Ranks) -> Float[Tensor, ""]:
    """sum(w v) / sum(w) over the batch of all ranks, with constant w >= 0: this rank's share, times their number.

    0 with a zero gradient where all weights are 0. Equal weights of 1 give `mean`, bit for bit.
    """
    weights = weights.detach()
    total = ranks.sum(weights.sum()).clamp_min(torch.finfo(weights.dtype).tiny)
    return (weights * values).sum() * ranks.size / total


def mean(values: Float[Tensor, " batch"], ranks: Ranks) -> Float[Tensor, ""]:
    """The mean over the batch of all ranks, which may have different numbers of samples."""
    return weighted_mean(values, torch.ones_like(values), ranks)
