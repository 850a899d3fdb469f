"""What is made ready once for an attack: rounded weights are the same bit for bit, folded layers but for rounding."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from bat_dist.attacks.folding import pairs_of
from bat_dist.attacks.frozen import attacked
from bat_dist.attacks.losses import cross_entropy
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.numerics import Precision
from bat_dist.attacks.pgd import pgd
from bat_dist.attacks.prepared_weights import CAST_ONCE, prepared
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


def attack(model: nn.Module, **how: Any) -> Tensor:
    images = torch.rand(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    keys = image_keys(0, "a", torch.arange(BATCH))
    how = {"epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": NUM_STEPS, "precision": "bf16"} | how
    return pgd(model, images, torch.arange(BATCH) % CLASSES, generator=keys, **how)


@pytest.mark.parametrize("arch", ["tinynet", "resnet9-w4", "wrn10-1", "tied"])
def test_the_attack_is_the_same_to_the_last_bit(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once = attack(network(arch))
    monkeypatch.setenv(CAST_ONCE, "0")
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
    monkeypatch.setenv(CAST_ONCE, "0")
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
    with pytest.raises(RuntimeError, match="in the middle"), prepared(model, in_bf16=True):
        raise RuntimeError("in the middle")
    assert torch.equal(attack(model), changed)


# --- BatchNorm folded into convolutions


def trained(arch: str) -> nn.Module:
    """With scales, shifts and statistics of its own."""
    torch.manual_seed(1)
    model = build(arch, CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        model.train()(torch.rand(16, 3, 8, 8))
    return model


def calls(model: nn.Module, kind: str, **how: Any) -> int:
    """Operations of a kind in an attack on the model."""
    found = profile()
    with found:
        attack(model, **how)
    events = found.function_events
    assert events is not None
    return sum(event.name == f"aten::{kind}" for event in events)


@pytest.mark.parametrize("arch", ["tinynet", "resnet9-w4", "wrn10-1", "preactresnet18"])
def test_folded_it_has_the_same_logits_and_gradients(arch: str) -> None:
    model, y = trained(arch), torch.arange(BATCH) % CLASSES
    x = torch.rand(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with attacked(model, x, y) as (plain, x, y):
        expected = plain.gradient(x, cross_entropy, y)
    with attacked(model, x, y, fold_batch_norm=True) as (folded, x, y):
        found = folded.gradient(x, cross_entropy, y)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-3, atol=1e-4)
    assert not torch.equal(found.gradient, expected.gradient)  # it was folded


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_batch_norm_is_computed_and_weights_are_folded_once(precision: Precision) -> None:
    model = trained("tinynet")
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    how = {"precision": precision, "fold_batch_norm": True}
    attack(model, **how)  # the pairs are found in the first attack
    assert calls(model, "batch_norm", **how | {"fold_batch_norm": False}) == NUM_STEPS * norms
    assert calls(model, "batch_norm", **how) == 0
    assert calls(model, "rsqrt", **how) == norms


def test_each_attack_folds_the_weights_and_statistics_of_its_time() -> None:
    model = trained("tinynet")
    attack(model, precision="fp32", fold_batch_norm=True)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.mul_(3)
    moved = attack(model, precision="fp32", fold_batch_norm=True)
    assert not any("forward" in vars(module) for module in model.modules())
    plain = attack(model, precision="fp32")
    assert (moved - plain).abs().gt(1e-6).float().mean() < 0.02  # a gradient near 0 may change its sign


def test_an_attack_in_train_mode_folds_nothing() -> None:
    how = {"precision": "fp32", "mode": "keep"}
    assert torch.equal(attack(trained("tinynet"), **how, fold_batch_norm=True), attack(trained("tinynet"), **how))


def test_layers_that_somebody_watches_are_left_alone() -> None:
    model, seen = trained("tinynet"), list[Any]()
    pairs = pairs_of(model, torch.rand(1, 3, 8, 8))
    conv, norm = pairs[0]
    conv.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    norm.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        model.eval()(x)
        with prepared(model, in_bf16=False, pairs=pairs):
            model(x)
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
