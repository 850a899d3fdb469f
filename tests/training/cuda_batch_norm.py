"""torch.nn.SyncBatchNorm on CPUs: its CUDA kernels by their definition (Ioffe & Szegedy 2015), for its own Python."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CHANNELS = (1, -1, 1, 1)


def _sums(x: Tensor) -> Tensor:
    return x.sum(dim=(0, 2, 3))


def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    return mean, torch.rsqrt(variance + eps)


def batch_norm_gather_stats_with_counts(
    x: Tensor,
    means: Tensor,
    invstds: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    share = (counts / counts.sum()).view(-1, 1)
    mean = (share * means).sum(0)
    variance = (share * (invstds**-2 - eps + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, torch.rsqrt(variance + eps)


def batch_norm_elemt(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, eps: float) -> Tensor:
    return (x - mean.view(CHANNELS)) * (invstd * weight).view(CHANNELS) + bias.view(CHANNELS)


def batch_norm_backward_reduce(
    grad: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, *wanted: bool
) -> tuple[Tensor, ...]:
    sum_dy, sum_dy_xmu = _sums(grad), _sums(grad * (x - mean.view(CHANNELS)))
    return sum_dy, sum_dy_xmu, sum_dy_xmu * invstd, sum_dy


def batch_norm_backward_elemt(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    counts: Tensor,
) -> Tensor:
    size = counts.sum()
    slope = (invstd**2 * sum_dy_xmu / size).view(CHANNELS)
    centred = grad - (sum_dy / size).view(CHANNELS) - (x - mean.view(CHANNELS)) * slope
    return centred * (invstd * weight).view(CHANNELS)


KERNELS = (
    batch_norm_stats,
    batch_norm_gather_stats_with_counts,
    batch_norm_elemt,
    batch_norm_backward_reduce,
    batch_norm_backward_elemt,
)


real_forward = nn.SyncBatchNorm.forward


def forward(module: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """Its own, which takes the CPU for a device of somebody else's."""
    with mock.patch.object(torch._C, "_get_privateuse1_backend_name", return_value="cpu"):
        return real_forward(module, x)


def gather_into(found: Tensor, x: Tensor, group: dist.ProcessGroup, *, async_op: bool) -> None:
    """NCCL's way of gathering, which gloo takes in another shape."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x, group, async_op=async_op)
    found.copy_(torch.cat(parts).view_as(found))


@contextmanager
def taken_for_gpus() -> Iterator[None]:
    """Weights say that they are on a GPU, the process group that it is NCCL, and SyncBatchNorm has its kernels."""
    with ExitStack() as stack:
        for kernel in KERNELS:
            stack.enter_context(mock.patch.object(torch, kernel.__name__, kernel))
        stack.enter_context(mock.patch.object(nn.Parameter, "is_cuda", True, create=True))
        stack.enter_context(mock.patch.object(nn.SyncBatchNorm, "forward", forward))
        stack.enter_context(
            mock.patch.object(DistributedDataParallel, "_passing_sync_batchnorm_handle")
        )  # it wants GPUs
        stack.enter_context(mock.patch.object(dist.ProcessGroup, "_get_backend_name", return_value="nccl"))
        for name in ("all_gather_single", "all_gather_into_tensor"):  # the name in this version of torch, and before
            stack.enter_context(mock.patch.object(dist, name, gather_into, create=True))
        yield
