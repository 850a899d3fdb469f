"""The pretended GPU itself: what waits, what does not, what it refuses, and that its values are the CPU's."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.pretended_gpu import CPU, CUDA, DeviceMistake, PretendedGpu, pretended_gpu

Use = Callable[[Tensor], object]


def put(x: Tensor, index: object, value: object) -> None:
    x[index] = value  # pyright: ignore[reportArgumentType]


WAITING: dict[str, Use] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool((x > 0).any()),
    "tolist": Tensor.tolist,
    "nonzero": torch.nonzero,
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "values put through a mask": lambda x: put(x, x > 0, x[:1].expand(3)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": torch.unique,
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "isnan in an if": lambda x: 1 if x.isnan().all() else 0,
    "cpu": Tensor.cpu,
    "to the CPU": lambda x: x.to("cpu", torch.float64),
    "to the GPU": lambda x: torch.ones(2).to(x.device),
    "copy": lambda x: x.copy_(torch.ones(4)),
    "copy back": lambda x: torch.ones(4).copy_(x),
    "new from a list": lambda x: torch.tensor([1.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "as_tensor": lambda x: torch.as_tensor(torch.ones(2), device="cuda"),
    "an index of the CPU": lambda x: x[torch.tensor([0, 1])],
    "synchronize": lambda x: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("name", WAITING)
def test_one_wait(gpu: PretendedGpu, name: str) -> None:
    x = torch.tensor([1.0, 2.0, -1.0, 3.0]).to(CUDA)
    gpu.waits.clear()
    with warnings.catch_warnings():
        WAITING[name](x)
    assert sum(gpu.waits.values()) == 1, gpu.waits


def not_waiting(x: Tensor) -> None:
    use(x + 1, x * torch.tensor(2.0), torch.where(x > 0, x, 0.0), x[1:], x[None], len(x), x.shape)
    use(x.to(CUDA), x.to("cuda:0"), x.to(x.double()), x.sort(), x.topk(2), x.amax(), [row * 2 for row in x])
    use(torch.cat([x, x]), x.clone().uniform_(), x.index_select(0, torch.arange(2, device=x.device)))
    use(torch.ones(2).to(x.device, non_blocking=True), x.to("cpu", non_blocking=True))
    use(torch.zeros(3, device="cuda"), torch.full((2,), 3.0, device=x.device), torch.zeros_like(x), x.new_zeros(2))
    x[0] = 3.0
    x[x > 0] = 0.0
    x[torch.zeros(2, dtype=torch.int64, device="cuda")] = x[1].clone()


def use(*values: object) -> None:
    """They were computed."""


def test_no_wait(gpu: PretendedGpu) -> None:
    x = torch.ones(4).to(CUDA)
    gpu.waits.clear()
    not_waiting(x)
    assert not gpu.waits
    assert gpu.launches


MISTAKES: dict[str, Use] = {
    "a sum": lambda x: x + torch.ones(4),
    "cat": lambda x: torch.cat([x, torch.ones(4)]),
    "a number in stack": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
    "where": lambda x: torch.where(x > 0, x, torch.ones(4)),
    "index_select": lambda x: x.index_select(0, torch.arange(2)),
    "a CPU's tensor indexed": lambda x: torch.ones(4)[x.long()],
    "a CPU's tensor masked": lambda x: torch.ones(4)[x > 0],
    "values of the CPU put": lambda x: put(x, torch.arange(2, device="cuda"), torch.ones(2)),
    "numpy": Tensor.numpy,
    "a generator": lambda x: x.uniform_(generator=torch.Generator()),
    "a generator of a new tensor": lambda x: torch.rand(2, device="cuda", generator=torch.Generator()),
    "a network left behind": lambda x: nn.Linear(4, 1)(x),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(gpu: PretendedGpu, name: str) -> None:
    x = torch.ones(4).to(CUDA)
    with pytest.raises(DeviceMistake):
        MISTAKES[name](x)


def trained(device: torch.device) -> list[Tensor]:
    """The weights after three steps of a small network with BatchNorm, and those of its copy."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    x = torch.rand(6, 3, 8, 8).to(device)
    before = list(network.parameters())
    network = network.to(device)
    assert all(a is b for a, b in zip(before, network.parameters(), strict=True))
    for _ in range(3):
        nn.functional.cross_entropy(network(x), torch.arange(6, device=device) % 5).backward()
        for parameter in network.parameters():
            assert parameter.grad is not None
            assert parameter.grad.device == device
            with torch.no_grad():
                parameter -= 0.1 * parameter.grad
            parameter.grad = None
    copy = deepcopy(network)
    assert all(isinstance(parameter, nn.Parameter) for parameter in copy.parameters())
    with torch.inference_mode():
        outputs = network.eval()(x)
    return [tensor.to("cpu") for tensor in (*network.state_dict().values(), *copy.state_dict().values(), outputs)]


def test_the_values_are_those_of_the_cpu() -> None:
    expected = trained(CPU)
    with pretended_gpu():
        found = trained(CUDA)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)


def test_a_wait_is_told_by_its_place(gpu: PretendedGpu) -> None:
    x = torch.ones(2).to(CUDA)
    gpu.waits.clear()
    line = partial(Tensor.item)
    line(x[0])
    ((kind, place),) = gpu.waits
    assert kind == "item"
    assert place.startswith("test_pretended_gpu.py:")


def test_outside_there_is_no_gpu() -> None:
    with pretended_gpu():
        assert torch.cuda.is_available()
    assert torch.ones(1).device == CPU
    assert torch.autocast.__module__ == "torch.amp.autocast_mode"
