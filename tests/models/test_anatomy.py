"""Networks with the same weights that answer differently are told apart; the same network made twice is not."""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bat_dist.models.anatomy import anatomy
from bat_dist.models.build import build


class Scaled(nn.Module):
    """Logits times what `change` makes of it."""

    def __init__(self, change: Callable[["Scaled"], object] = lambda net: None) -> None:
        super().__init__()
        self.layer, self.scale, self.names = nn.Linear(4, 2), 1.0, {"a": [1, 2]}
        self.register_buffer("outside", torch.ones(2), persistent=False)
        self.table = np.arange(3)
        self.post: Callable[..., object] = torch.relu
        self.thing = Thing(3)
        change(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.layer(x)


class Other(Scaled):
    """The same weights."""


class Thing:
    """No module, no plain value."""

    def __init__(self, number: int) -> None:
        self.number, self.me = number, self  # in a circle


def halved(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x * factor


def to_zero(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 0


CHANGES: dict[str, Callable[[Scaled], object]] = {
    "a constant": lambda net: setattr(net, "scale", 0.0),
    "a constant of another type": lambda net: setattr(net, "scale", 1),
    "a value inside": lambda net: net.names["a"].append(3),
    "a buffer outside the state dict": lambda net: net.outside.zero_(),  # pyright: ignore[reportCallIssue]
    "an array": lambda net: net.table.fill(7),
    "a function": lambda net: setattr(net, "post", torch.tanh),
    "a lambda": lambda net: setattr(net, "post", lambda x: x + 1),
    "a closure": lambda net: setattr(net, "post", halved(0.5)),
    "another value in a closure": lambda net: setattr(net, "post", halved(0.25)),
    "a partial function": lambda net: setattr(net, "post", functools.partial(torch.clamp, min=0)),
    "an object": lambda net: setattr(net, "thing", Thing(4)),
    "a hook": lambda net: net.register_forward_hook(to_zero),
    "a layer of another kind": lambda net: setattr(net, "layer", nn.Sequential(nn.Linear(4, 2), nn.Tanh())),
    "an attribute of a layer": lambda net: setattr(net.layer, "in_features", 5),
    "an attribute more": lambda net: setattr(net, "extra", None),
}


def test_each_change_is_told_and_none_of_them_twice() -> None:
    found = {name: anatomy(Scaled(change)) for name, change in {"nothing": lambda net: None, **CHANGES}.items()}
    found["another class"] = anatomy(Other())
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_same_network_made_twice_is_the_same(change: Callable[[Scaled], object]) -> None:
    assert anatomy(Scaled(change)) == anatomy(Scaled(change))


def test_what_cannot_be_told_is_another_each_time() -> None:
    locked = lambda: Scaled(lambda net: setattr(net, "post", object()))  # noqa: E731
    assert anatomy(locked()) != anatomy(locked())


@pytest.mark.parametrize("arch", ["resnet18", "preactresnet18", "wrn10-1", "tinynet"])
def test_weights_and_mode_do_not_count(arch: str) -> None:
    one, other = (build(arch, 10, mean=(0.5,) * 3, std=(0.25,) * 3) for _ in range(2))
    assert anatomy(one.train()) == anatomy(other.eval())


def test_another_process_finds_the_same() -> None:
    imports = "from tests.models.test_anatomy import CHANGES, Scaled, anatomy"
    code = f"{imports}; print(*(anatomy(Scaled(change)).hex() for change in CHANGES.values()))"
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert told.split() == [anatomy(Scaled(change)).hex() for change in CHANGES.values()]
