"""BatchNorm over the batch of all ranks, on any device.

torch.nn.SyncBatchNorm refuses CPU tensors, so that gloo runs (and tests without a GPU) need this one; on CUDA torch's
own is used.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class _SyncBatchNorm2d(nn.BatchNorm2d):
    """It does what torch.nn.SyncBatchNorm does: statistics of the joined batch in training, running ones otherwise."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or dist.get_world_size() == 1:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        count = torch.tensor([x.numel() / x.shape[1]], dtype=x.dtype, device=x.device)
        sums = all_reduce(torch.cat([x.sum(dim=(0, 2, 3)), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = x - mean.view(-1, 1, 1)
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / count  # in two passes: no cancellation
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None  # noqa: PT018
            assert self.num_batches_tracked is not None and self.momentum is not None  # noqa: PT018
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out = centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return out.to(input.dtype)


def synchronize_batch_norm(network: nn.Module) -> nn.Module:
    """The network with each BatchNorm2d replaced by one over all ranks; weights, buffers and their names are kept."""
    if any(parameter.is_cuda for parameter in network.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SyncBatchNorm2d  # which has no state of its own
    return network
