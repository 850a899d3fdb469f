"""Rounding weights to bf16 once for an attack changes nothing but how often it is done."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from bat_dist.attacks.cast_weights import SWITCH, cast_once
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.pgd import pgd
from bat_dist.models.build import build

NUM_STEPS, CLASSES, BATCH = 3, 3, 6


class Tied(nn.Module):
    """A layer whose weight is read from outside too, one whose weight is computed, and one behind a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, CLASSES)
        self.normalized, self.hooked = weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4)

        def negate_its_weight(layer: nn.Module, inputs: object) -> None:
            with torch.no_grad():
                self.hooked.weight.neg_()

        self.hooked.register_forward_pre_hook(negate_its_weight)

    def forward(self, x: Tensor) -> Tensor:
        features = self.hooked(self.normalized(self.conv(x).relu().mean(dim=(2, 3))))
        return self.head(features) + 30 * functional.linear(features, functional.normalize(self.head.weight))


def network(arch: str) -> nn.Module:
    torch.manual_seed(0)
    return Tied() if arch == "tied" else build(arch, CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)


def attack(model: nn.Module) -> Tensor:
    images = torch.rand(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    keys = image_keys(0, "a", torch.arange(BATCH))
    attacked = partial(pgd, epsilon=8 / 255, step_size=2 / 255, num_steps=NUM_STEPS, precision="bf16")
    return attacked(model, images, torch.arange(BATCH) % CLASSES, generator=keys)


@pytest.mark.parametrize("arch", ["tinynet", "resnet9-w4", "wrn10-1", "tied"])
def test_the_attack_is_the_same_to_the_last_bit(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once = attack(network(arch))
    monkeypatch.setenv(SWITCH, "0")
    assert torch.equal(attack(network(arch)), once)


def casts(model: nn.Module) -> Counter[tuple[int, ...]]:
    """What an attack casts from one type to another, by shape."""
    found = profile(record_shapes=True)
    with found:
        attack(model)
    events = found.function_events
    assert events is not None
    return Counter(tuple(event.input_shapes[0]) for event in events if event.name == "aten::_to_copy")


def test_each_weight_is_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("tinynet")
    shapes = {tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Conv2d)}
    assert len(shapes) == 3
    once = casts(model)
    assert [once[shape] for shape in shapes] == [1, 1, 1]
    monkeypatch.setenv(SWITCH, "0")
    again = casts(model)
    assert [again[shape] for shape in shapes] == [NUM_STEPS] * 3


def test_the_layers_are_themselves_again_and_weights_may_change_between_attacks() -> None:
    model = network("tinynet")
    first = attack(model)
    assert not any("forward" in vars(module) for module in model.modules())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1)
    changed = attack(model)
    assert not torch.equal(changed, first)
    with pytest.raises(RuntimeError, match="in the middle"), cast_once(model):
        raise RuntimeError("in the middle")
    assert torch.equal(attack(model), changed)
