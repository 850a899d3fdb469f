"""A network of digits that some attacks fool and others do not."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.models.build import build
from bat_dist.models.classifier import ImageClassifier


@pytest.fixture(scope="package")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="package")
def trained(digits: Dataset) -> ImageClassifier:
    """Tinynet, trained for a few seconds on noisy digits."""
    x, y = torch.from_numpy(digits.train.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(digits.train.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build("tinynet", 10, mean=digits.spec.mean, std=digits.spec.std)
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(300):
            rows = torch.randint(len(x), (128,))
            noisy = (x[rows] + 0.2 * torch.randn(128, 1, 8, 8)).clamp(0, 1)
            optimizer.zero_grad()
            functional.cross_entropy(net(noisy), y[rows]).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="package")
def images(digits: Dataset, trained: ImageClassifier) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """96 test images that the network gets right, as bytes and in [0, 1], and their labels."""
    test = digits.test
    x, y = torch.from_numpy(test.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(test.labels)
    with torch.no_grad():
        right = (trained(x).argmax(1) == y).nonzero().squeeze(1)[:96]
    return test.images[right.numpy()], x[right], y[right]
