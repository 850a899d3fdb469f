import math

import pytest
import torch

from bat_dist.models.build import build
from bat_dist.models.normalization import Normalize


def test_closed_form():
    x = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    out = Normalize((0.5, 0.25, 0.0), (0.5, 0.125, 2.0))(x)
    assert out.shape == (2, 3, 4, 5)
    assert [out[1, channel, 3, 4].item() for channel in range(3)] == [-1.0, 2.0, 0.5]


def test_the_model_normalizes():
    """A model with (mean, std) sees raw images as a model with (0, 1) sees normalized ones."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    inside = build("tinynet", 10, mean=mean, std=std).eval()
    outside = build("tinynet", 10, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    outside.body.load_state_dict(inside.body.state_dict())
    outside.head.load_state_dict(inside.head.state_dict())
    x = torch.rand(2, 3, 8, 8)
    normalized = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(inside(x), outside(normalized))


def test_a_checkpoint_carries_mean_and_std():
    saved = build("tinynet", 10, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).eval()
    loaded = build("tinynet", 10, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    loaded.load_state_dict(saved.state_dict())
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(saved(x), loaded(x))


def test_mean_and_std_are_not_trained():
    names = [name for name, _ in build("tinynet", 10, mean=(0, 0, 0), std=(1, 1, 1)).named_parameters()]
    assert not any("normalize" in name for name in names)


def test_channels_last_is_kept():
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert Normalize((0, 0, 0), (1, 1, 1))(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5,), (0.5,) * 3, "mean must be three finite numbers"),
        ((0.5,) * 3, (0.5, 0.5), "std must be three finite numbers"),
        ((0.5, math.nan, 0.5), (0.5,) * 3, "mean must be three finite numbers"),
        ((0.5,) * 3, (0.5, 0.0, 0.5), "std must be positive"),
    ],
)
def test_bad_statistics(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalize(mean, std)


def test_bytes_are_refused():
    with pytest.raises(ValueError, match=r"images must be floating point in \[0, 1\], got torch.uint8"):
        Normalize((0, 0, 0), (1, 1, 1))(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
