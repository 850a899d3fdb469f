"""Networks that their users have moved to a GPU are taken as any others, and left where they are."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from bat_dist import evaluate
from bat_dist.artifacts.foreign import load_foreign
from bat_dist.evaluation.attack import prepare
from bat_dist.models.own import OwnClassifier, check_takes, own_network
from tests.helpers.pretended_gpu import CUDA

pytestmark = pytest.mark.usefixtures("gpu")
MEAN, STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)


def network() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 10))


def on_gpu() -> nn.Module:
    return network().to(CUDA)


def devices(network: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in network.state_dict().values()}


def test_it_is_evaluated() -> None:
    given, images = on_gpu(), np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    found = evaluate(given, images, np.arange(6), attacks=("clean",), mean=MEAN, std=STD, check_images=0)
    assert found.flags["clean"].shape == (6,)
    assert devices(given) == {"cuda"}


class Means(nn.Module):
    """Its weights are a buffer."""

    classes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("classes", torch.rand(10, 192))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -torch.cdist(x.flatten(1), self.classes)


@pytest.mark.parametrize("made", [network, Means, nn.Flatten])
def test_images_go_where_the_network_is(made: Callable[[], nn.Module]) -> None:
    networks = prepare(made(), np.zeros((2, 8, 8, 3), np.uint8), CUDA)
    x = networks.tensor(np.zeros((3, 8, 8, 3), np.uint8))
    assert x.device.type == ("cpu" if made is nn.Flatten else "cuda")
    assert len(networks.fast(x)) == 3


@pytest.mark.parametrize("form", ["network", "function"])
def test_it_is_trained(form: str) -> None:
    given = on_gpu()
    own = own_network(given if form == "network" else on_gpu)
    check_takes(own, 10, 8, features=True)
    assert devices(OwnClassifier(own, 10, mean=MEAN, std=STD)) == {"cpu"}
    assert devices(given) == {"cuda"}


def test_workers_without_a_gpu_can_read_it() -> None:
    own = own_network(on_gpu())
    assert devices(own.factory.args[0]) == {"cpu"}  # pyright: ignore[reportFunctionMemberAccess]


def test_a_file_of_others_may_make_it_there() -> None:
    made = load_foreign(f"{__file__}:on_gpu", None, num_classes=10, mean=MEAN, std=STD).network
    assert made(torch.rand(2, 3, 8, 8)).shape == (2, 10)
    assert devices(made) == {"cpu"}
