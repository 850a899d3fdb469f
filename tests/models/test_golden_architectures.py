"""Given the same weights, the networks compute what published implementations do (tests/golden/07_*)."""

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bat_dist.models.build import build
from bat_dist.models.cost import count_parameters

GOLDEN = Path(__file__).parents[1] / "golden"
VECTORS = np.load(GOLDEN / "07_architectures.npz")
COUNTS = json.loads((GOLDEN / "07_architectures.json").read_text())
TOLERANCE = 1e-9
NO_NORMALIZATION = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

CASES = {
    "wrn28_10_nc10": ("wrn28-10", 10),
    "wrn28_10_nc100": ("wrn28-10", 100),
    "resnet18_nc10": ("resnet18", 10),
    "resnet18_nc100": ("resnet18", 100),
    "preactresnet18_nc10": ("preactresnet18", 10),
}
REFERENCES = {  # what the references call it -> what we call it
    "trades.WideResNet(28,10,nc10)": ("wrn28-10", 10),
    "trades.WideResNet_update(28,10,nc10)": ("wrn28-10", 10),
    "rice.WideResNet(28,10,nc10)": ("wrn28-10", 10),
    "rice.WideResNet(28,10,nc100)": ("wrn28-10", 100),
    "trades.WideResNet(34,10,nc10)": ("wrn34-10", 10),
    "rice.WideResNet(34,10,nc10)": ("wrn34-10", 10),
    "gairat.Wide_ResNet(28,10,nc10)": ("wrn28-10", 10),
    "gairat.Wide_ResNet_Madry(32,10,nc10)": ("wrn34-10", 10),  # its "32" has 34 layers
    "bat-authors.fair_robust.WideResNet(28,nc10)": ("wrn28-10", 10),
    "trades.ResNet18(nc10)": ("resnet18", 10),
    "mart.ResNet18(nc10)": ("resnet18", 10),
    "gairat.ResNet18(nc100)": ("resnet18", 100),
    "gairat.PreActResNet18(nc10)": ("preactresnet18", 10),
}


def meta_model(name: str, num_classes):
    with torch.device("meta"):
        return build(name, num_classes, **NO_NORMALIZATION)


def count_macs(model, image_size):
    """Multiply-adds of convolutions and linear layers for one image, forward pass, from shapes alone."""
    shapes = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, image_size, image_size, device="meta"))
    return counter.get_total_flops() // 2  # a multiply-add is counted as two


@torch.no_grad()
def fill(model):
    """Weights by the rule of the golden README: they depend on kind and shape only."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            i, fan_in = counter(module.weight), module.weight[0].numel()
            put(module.weight, torch.sin(0.37 * i + 0.11 * (i % 7)) * math.sqrt(2 / fan_in))
        elif isinstance(module, nn.Linear):
            put(module.weight, torch.cos(0.23 * counter(module.weight)) / math.sqrt(module.in_features))
            put(module.bias, 0.01 * counter(module.bias))
        elif isinstance(module, nn.BatchNorm2d):
            i = counter(module.weight)
            put(module.weight, 1 + 0.1 * torch.cos(0.7 * i))
            put(module.bias, 0.1 * torch.sin(0.3 * i))
            put(module.running_mean, 0.05 * torch.sin(0.9 * i))
            put(module.running_var, 1 + 0.2 * torch.cos(0.5 * i) ** 2)


def counter(tensor):
    return torch.arange(tensor.numel(), dtype=torch.float64)


def put(tensor, values):
    tensor.copy_(values.view_as(tensor))


def golden_images():
    i = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)
    phase = 0.013 * i * (1 + 0.001 * (i % 97)) + float(VECTORS["image.phase"])
    return (0.5 + 0.5 * torch.sin(phase)).view(2, 3, 32, 32)


def record(model):
    """Append one row [kind, weight shape, stride, padding, output height and width] per layer that runs."""
    rows, norms = [], []

    def hook(module, _inputs, output):
        shape, size = list(module.weight.shape), list(output.shape[2:])
        if isinstance(module, nn.Conv2d):
            rows.append(["conv", shape, module.stride[0], module.padding[0], size])
        elif isinstance(module, nn.BatchNorm2d):
            rows.append(["bn", shape, 0, 0, size])
            norms.append(module)
        else:
            rows.append(["linear", shape, 0, 0, []])

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            module.register_forward_hook(hook)
    return rows, norms


def main_and_projections(trace):
    """The two branches of a block have no order between them, so they are compared one by one."""

    def projects(row):
        return row[0] == "conv" and row[1][2:] == [1, 1]

    return [row for row in trace if not projects(row)], [row for row in trace if projects(row)]


def sorted_shapes(model):
    return sorted((list(parameter.shape) for parameter in model.parameters()), key=lambda s: (len(s), s))


def error(actual, expected):
    """|a - b| / (1 + |b|), the largest."""
    actual = actual.detach().numpy()
    assert actual.shape == expected.shape
    return np.max(np.abs(actual - expected) / (1 + np.abs(expected)))


class Observed(NamedTuple):
    outputs: dict[str, torch.Tensor]
    trace: list
    model: nn.Module


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Key of the golden file, and everything our network gives for it: one pass in each mode."""
    return request.param, observe(*CASES[request.param])


def observe(name, num_classes):
    model = meta_model(name, num_classes).double().to_empty(device="cpu").requires_grad_(False)
    fill(model)
    put(model.normalize.mean, torch.zeros(3))
    put(model.normalize.std, torch.ones(3))
    images = golden_images().requires_grad_()
    model.eval()
    logits, penultimate = model(images, with_features=True)
    (gradient,) = torch.autograd.grad((torch.cos(0.1 * torch.arange(num_classes)) * logits).sum(), images)
    rows, norms = record(model)
    model.train()
    outputs = {"eval.logits": logits, "eval.penultimate": penultimate, "eval.input_grad": gradient}
    with torch.no_grad():
        outputs["train.logits"] = model(images)
    for place, norm in (("stem", norms[0]), ("final", norms[-1])):
        outputs[f"train.{place}_bn_running_mean"] = norm.running_mean
        outputs[f"train.{place}_bn_running_var"] = norm.running_var
    return Observed(outputs, [*rows, ["penultimate", [penultimate.shape[1]], 0, 0, []]], model)


def test_outputs_gradients_and_running_statistics(case):
    key, observed = case
    expected = {name.removeprefix(f"{key}."): VECTORS[name] for name in VECTORS.files if name.startswith(key + ".")}
    names = [name for name in expected if name.startswith(("eval.", "train."))]
    assert len(names) == 6
    assert {name: error(observed.outputs[name], expected[name]) for name in names} == {
        name: pytest.approx(0, abs=TOLERANCE) for name in names
    }


def test_layers_run_in_the_published_order(case):
    key, observed = case
    expected = [json.loads(row) for row in VECTORS[f"{key}.trace"]]
    assert main_and_projections(observed.trace) == main_and_projections(expected)


def test_parameter_shapes(case):
    key, observed = case
    assert sorted_shapes(observed.model) == [json.loads(row) for row in VECTORS[f"{key}.sorted_param_shapes"]]


@pytest.mark.parametrize("reference", REFERENCES)
def test_counts(reference):
    expected = COUNTS[reference]
    model = meta_model(*REFERENCES[reference])
    modules = list(model.modules())
    assert count_parameters(model) == expected["params_used_in_forward"]
    assert count_macs(model, 32) == expected["macs_per_32x32_image"]
    assert model.head.in_features == expected["penultimate_dim"]
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == expected["n_conv"]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in modules) == expected["n_bn"]
    if expected["params"] == expected["params_used_in_forward"]:  # else TRADES's extra group is among the shapes
        digest = hashlib.sha256(json.dumps(sorted_shapes(model)).encode()).hexdigest()
        assert digest == expected["sorted_param_shapes_sha256"]


def test_macs_by_hand():
    """tinynet on 8x8: 8 and 16 and 32 maps of 64, 16 and 16 positions."""
    expected = 3 * 8 * 9 * 64 + 8 * 16 * 9 * 16 + 16 * 32 * 9 * 16 + 32 * 10
    model = build("tinynet", 10, **NO_NORMALIZATION)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert count_macs(model, 8) == expected
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_our_preactresnet18_lacks_only_the_final_norm_of_rice():
    other = COUNTS["rice.PreActResNet18(nc10)"]
    assert count_parameters(meta_model("preactresnet18", 10)) + 2 * 512 == other["params"]


def test_every_reference_is_compared():
    assert set(COUNTS) == {*REFERENCES, "rice.PreActResNet18(nc10)"}
