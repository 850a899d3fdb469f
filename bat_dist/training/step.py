"""What a step is in both training loops.

There are two, because their results rest on different streams of random numbers. `loop.fit` draws all of a trial from
one generator. `epoch.train_epoch` draws each epoch anew from (seed, epoch), so that a run can be resumed, adds up the
losses of all ranks, and cancels an update that is not finite. Both look at their losses once an epoch, so that no step
waits for a GPU.
"""

from jaxtyping import Float
from torch import Tensor

from bat_dist.attacks.numerics import numerics
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.table import Method
from bat_dist.training.optimizer import Optimizer
from bat_dist.training.precision import autocast
from bat_dist.training.recipe import Precision


class NonFiniteLoss(ArithmeticError):
    """The loss became infinite or NaN; training it again would do the same."""


def differentiate(method: Method, batch: MiniBatch, optimizer: Optimizer, precision: Precision) -> Float[Tensor, ""]:
    """Leave the gradient of the method's loss on the batch, and no other, in `.grad`; returns the loss, a constant."""
    optimizer.zero_grad()
    with numerics(precision):
        with autocast(batch.images.device, precision):
            loss = method.loss(batch)
        loss.backward()
    return loss.detach()


def batch_sizes(num_samples: int, batch_size: int, num_ranks: int = 1, *, smallest: int = 2) -> list[int]:
    """Samples in each batch of an epoch, over all ranks.

    A last one with fewer than `smallest`, or two for each rank, is left out: batch statistics of one image are none.
    """
    whole, last = divmod(num_samples, batch_size)
    return [batch_size] * whole + [last] * (last >= max(smallest, 2 * num_ranks))
