"""Sgd and AdamW against torch.optim: in double precision against the plain form, bit for bit against the fused one."""

import dataclasses

import pytest
import torch
from torch import nn

from bat_dist.training.optimizer import AdamW
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Recipe
from bat_dist.training.sgd import Sgd

RECIPE = Recipe(epochs=1, batch_size=4, lr=0.1, schedule="one_cycle")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"),
    [(0.9, True, 5e-4), (0.9, False, 5e-4), (0.8, True, 0.0), (0.0, False, 0.1)],
)
def test_steps_are_those_of_torch(momentum: float, nesterov: bool, weight_decay: float) -> None:
    """The last layer gets its first gradient in the third step; the learning rate changes."""
    recipe = dataclasses.replace(RECIPE, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    ours, theirs = network().double(), network().double()
    sgd = Sgd(ours, recipe)
    reference = torch.optim.SGD(
        theirs.parameters(), lr=recipe.lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
    )
    assert sgd.lr == recipe.lr
    for step in range(6):
        x, lr = torch.randn(8, 5).double(), 0.1 / (step + 1)
        for net in (ours, theirs):
            for parameter in net.parameters():
                parameter.grad = None
            (net[:3](x) if step < 2 else net(x)).square().mean().backward()
        sgd.step(lr)
        reference.param_groups[0]["lr"] = lr
        reference.step()
        assert sgd.lr == lr
        for name, parameter in theirs.named_parameters():
            mine = ours.get_parameter(name)
            torch.testing.assert_close(mine, parameter, rtol=1e-10, atol=1e-14, msg=f"{name} in step {step}")
            buffer = reference.state[parameter].get("momentum_buffer")
            assert (mine in sgd.momentum) == (buffer is not None), name
            if buffer is not None:
                torch.testing.assert_close(sgd.momentum[mine], buffer, rtol=1e-10, atol=1e-14)
    sgd.zero_grad()
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_all_bits_are_those_of_torchs_fused_step() -> None:
    recipe = dataclasses.replace(RECIPE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    ours, theirs = network(), network()
    sgd = Sgd(ours, recipe)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    for _ in range(4):
        x = torch.randn(8, 5)
        for net, optimizer in ((ours, sgd), (theirs, reference)):
            optimizer.zero_grad()
            net(x).square().mean().backward()
        sgd.step(0.1)
        reference.step()
    for mine, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, parameter)


ADAMW = Recipe(epochs=1, batch_size=4, lr=0.01, schedule="cosine", weight_decay=0.1, optimizer="adamw")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adamw_is_that_of_torch(dtype: torch.dtype) -> None:
    """The last layer gets its first gradient in the third step; the learning rate changes, and may be a tensor."""
    ours, theirs = network().to(dtype), network().to(dtype)
    progress = Progress(ours, ADAMW)
    fused = dtype == torch.float32
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1, fused=fused)
    for step in range(6):
        x, lr = torch.randn(8, 5, dtype=dtype), 0.01 / (step + 1)
        for net in (ours, theirs):
            for parameter in net.parameters():
                parameter.grad = None
            (net[:3](x) if step < 2 else net(x)).square().mean().backward()
        progress.optimizer.step(torch.tensor(lr, dtype=torch.float64) if step % 2 else lr)
        reference.param_groups[0]["lr"] = lr
        reference.step()
        for mine, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
            if fused:
                assert torch.equal(mine, parameter), step
            else:
                torch.testing.assert_close(mine, parameter, rtol=1e-8, atol=1e-11)  # the fused one sums otherwise
        # Its state is whole: another process goes on from it.
        fresh = Progress(network().to(dtype), ADAMW)
        fresh.restore({name: tensor.clone() for name, tensor in progress.tensors().items()}, [])
        for kind, of in progress.optimizer.state.items():
            for mine, restored in zip(of.values(), fresh.optimizer.state[kind].values(), strict=True):
                assert torch.equal(mine, restored), kind


def test_a_cancelled_step_of_adamw_moves_nothing() -> None:
    net = network()
    adamw = AdamW(net, ADAMW)
    tensors = [*net.parameters(), *(tensor for of in adamw.state.values() for tensor in of.values())]
    for cancel in (0.0, 1.0):
        before = [tensor.clone() for tensor in tensors]
        adamw.zero_grad()
        net(torch.randn(8, 5)).square().mean().backward()
        adamw.step(0.1, cancel=torch.tensor(cancel))
        assert all(torch.equal(old, new) == bool(cancel) for old, new in zip(before, tensors, strict=True))
