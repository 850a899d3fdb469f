"""The ranks of a data-parallel run: one process each, over torch.distributed (gloo on CPUs, NCCL on GPUs).

Whoever starts the processes (Ray Train, torchrun, a test) starts the process group too. Without one, the world is this
process alone, and nothing here communicates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.parallel import DistributedDataParallel

from bat_dist.data.loaders import Share
from bat_dist.methods.parallel import ALONE, Ranks


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "World":
        """The default process group's, or this process alone."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def share(self) -> Share:
        """This rank's rows of a batch."""
        return Share(self.rank, self.size)

    def ranks(self, batch: int) -> Ranks:
        """The collectives that a loss needs, for a batch of that many rows in all."""
        if self.size == 1:
            return ALONE
        rows = [Share(rank, self.size).rows(batch) for rank in range(self.size)]
        return Ranks(self.size, self.sum, partial(_gather_rows, counts=[r.stop - r.start for r in rows]))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, a constant; `tensor` stays as it is."""
        if self.size == 1:
            return tensor.detach()
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def concatenate(self, values: Any) -> list[Any]:
        """Each rank's `values`, a picklable object, in rank order."""
        found: list[Any] = [None] * self.size
        if self.size == 1:
            return [values]
        dist.all_gather_object(found, values)
        return found

    def parallel(self, network: nn.Module) -> Callable[..., Any]:
        """The network, with gradients averaged over the ranks where there are several.

        Buffers are left alone during an epoch: broadcasting them would write into a graph whose loss takes two forward
        passes. `average_buffers` brings them together. Not `static_graph`: it changes no bit (tried with two ranks of
        gloo), and saves nothing where each pass uses all parameters.

        DDP puts the gradients into other buckets after its first backward pass. A sum over three ranks or more depends,
        in its last bits, on the place of a gradient in its bucket; so a first pass is made here, with gradients of 0,
        that a run which was resumed takes its steps with the buckets of one that was not.
        """
        if self.size == 1:
            return network
        parallel = DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)
        parallel.reducer.prepare_for_backward([])
        sums = [weights.sum() for weights in network.parameters() if weights.requires_grad]
        (0.0 * torch.stack(sums).sum()).backward()
        network.zero_grad()
        return parallel

    @torch.no_grad()
    def average_buffers(self, network: nn.Module) -> None:
        """Give every rank the mean of the ranks' floating-point buffers: BatchNorm's running statistics."""
        if self.size == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.size


THIS_PROCESS = World()


def _gather_rows(tensor: Tensor, counts: list[int]) -> Tensor:
    """The rows of all ranks, in rank order, with the adjoint that `Ranks.gather` asks for."""
    most = max(counts)
    if len(tensor) < most:  # the last batch: collectives want equal shapes
        padding = tensor.new_zeros((most - len(tensor), *tensor.shape[1:]))
        tensor = torch.cat([tensor, padding])
    if tensor.requires_grad:
        parts = list(all_gather(tensor.contiguous()))
    else:
        parts = [torch.empty_like(tensor) for _ in counts]
        dist.all_gather(parts, tensor.contiguous())
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
