"""Nets of ten classes with images that some attacks fool and others do not: that of golden 05, and one for digits."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.grey_digits import grey_digits

GOLDEN = Path(__file__).parents[1] / "golden" / "05_autoattack.npz"
VECTORS = {key: array if array.dtype.kind == "U" else torch.from_numpy(array) for key, array in np.load(GOLDEN).items()}
EPSILON = VECTORS["eps"].item()
X, Y = VECTORS["x"], VECTORS["y"].long()
IDS = torch.arange(len(X))


def golden_net():
    conv1, conv2, fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Linear(256, 10)
    for layer, weights in (("conv1", conv1), ("conv2", conv2), ("fc", fc)):
        weights.load_state_dict({part: VECTORS[f"weights.{layer}.{part}"] for part in ("weight", "bias")})
    return nn.Sequential(conv1, nn.ReLU(), conv2, nn.ReLU(), nn.Flatten(), fc).eval()


@cache
def digits():
    """x, y, and a net that has learned the others."""
    x, y = grey_digits()
    x = x.unsqueeze(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), nn.Linear(384, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(200):
            rows = torch.randint(200, len(x), (128,))
            noise = 0.15 * torch.randn(128, 1, 8, 8)
            optimizer.zero_grad()
            functional.cross_entropy(net((x[rows] + noise).clamp(0, 1)), y[rows]).backward()
            optimizer.step()
    return x[:200], y[:200], net.eval().requires_grad_(False)


class OneWay(torch.autograd.Function):
    """Its value is its input, and it has no gradient at all."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, _):
        raise AssertionError("backward was called")


class Forward(nn.Module):
    def forward(self, x):
        return OneWay.apply(x)


def inputs_of(model, work):
    """What the model was asked while work() ran."""
    seen = []
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    try:
        work()
    finally:
        hook.remove()
    return seen
