"""What every architecture promises, and the closed forms of the papers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bat_dist.errors import UserError
from bat_dist.models.build import build
from bat_dist.models.cost import count_parameters
from bat_dist.models.names import ARCHITECTURES, check_fits
from bat_dist.models.resnet import PaddedShortcut
from bat_dist.models.small import Residual
from tests.helpers.grey_digits import grey_digits

SMALL_FORMS = {"wrnD-K": "wrn10-2", "resnet9-wW": "resnet9-w8"}
NAMES = [SMALL_FORMS.get(name, name) for name in ARCHITECTURES]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def network(name: str, num_classes=10, *, mean=MEAN, std=STD, seed=0):
    torch.manual_seed(seed)
    return build(name, num_classes, mean=mean, std=std)


def images(batch, size):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_shrinks_images_to_nothing_is_named_with_the_size_that_it_takes(name):
    """What is said without computing is what the network does."""
    model = network(name).eval()
    for size in (1, 2, 3, 4, 6, 7, 8):
        try:
            with torch.no_grad():
                model(images(1, size))
        except RuntimeError:
            with pytest.raises(UserError, match=f"does not fit images of {size}x{size}: it takes those from 8x8 on"):
                check_fits(name, size)
        else:
            check_fits(name, size)


@pytest.mark.parametrize("name", NAMES)
def test_any_image_size_and_logits_are_the_head_of_the_features(name):
    model = network(name, 7).eval()
    with torch.no_grad():
        for size in (8, 32, 64):
            x = images(1, size)
            logits, features = model(x, with_features=True)
            assert logits.shape == (1, 7)
            assert features.shape == (1, model.head.in_features)
            assert logits.isfinite().all()
            assert torch.equal(logits, model.head(features))
            assert torch.equal(logits, model(x))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_weights(name):
    first, same, other = (network(name, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.get_parameter("body.0.weight"), other.get_parameter("body.0.weight"))


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "preactresnet18", "wrn10-2", "resnet9-w8", "tinynet"])
def test_channels_last_changes_the_layout_and_not_the_result(name):
    model = network(name).double().eval()
    x = images(2, 16).double()
    expected = model(x)
    formats = []
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | PaddedShortcut | Residual):
            module.register_forward_hook(
                lambda _m, _i, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    assert torch.allclose(model(x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-9, atol=1e-9)
    assert all(formats)


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "preactresnet18", "wrn10-2", "resnet9-w8", "tinynet"])
def test_every_parameter_gets_a_gradient(name):
    model = network(name)
    model(images(4, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_convolutions_start_with_variance_two_over_fan_out():
    for module in network("resnet18").modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 50_000:
            fan_out = module.weight.numel() // module.in_channels
            assert module.weight.var().item() * fan_out == pytest.approx(2, rel=0.05)


def plain_resnet_parameters(widths, num_blocks, num_classes, *, projections):
    """Written out: two 3x3 convolutions with BatchNorm per block, a stem and a linear layer."""
    norm = 2
    total, before = 3 * widths[0] * 9 + norm * widths[0], widths[0]
    for width, count in zip(widths, num_blocks, strict=True):
        for _ in range(count):
            total += before * width * 9 + width * width * 9 + 2 * norm * width
            if before != width and projections:
                total += before * width + norm * width
            before = width
    return total + (before + 1) * num_classes


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_parameters_of_the_cifar_resnets(name, published):
    """Table 6 of He et al.: 0.27, 0.46, 0.66, 0.85 and 1.7 million."""
    blocks = [(int(name.removeprefix("resnet")) - 2) // 6] * 3
    assert plain_resnet_parameters((16, 32, 64), blocks, 10, projections=False) == published
    assert count_parameters(network(name)) == published


def test_parameters_of_resnet34():
    assert plain_resnet_parameters((64, 128, 256, 512), (3, 4, 6, 3), 10, projections=True) == 21_282_122
    assert count_parameters(network("resnet34")) == 21_282_122


def test_parameters_of_resnet9():
    """Page's network has 6,573,120, its head being without bias."""
    convolutions = [(3, 64), (64, 128), *[(128, 128)] * 2, (128, 256), (256, 512), *[(512, 512)] * 2]
    expected = sum(a * b * 9 + 2 * b for a, b in convolutions) + 512 * 10
    assert expected == 6_573_120
    assert count_parameters(network("resnet9")) == expected + 10


@pytest.mark.parametrize(
    ("name", "millions"), [("wrn16-4", 2.7), ("wrn28-10", 36.5), ("wrn40-2", 2.2), ("wrn40-4", 8.9)]
)
def test_parameters_of_wide_resnets(name, millions):
    """As rounded in the tables of Zagoruyko and Komodakis."""
    with torch.device("meta"):
        assert count_parameters(network(name)) / 1e6 == pytest.approx(millions, abs=0.06)


def test_weightless_shortcut_takes_every_second_position_and_appends_zeros():
    x = torch.arange(2 * 3 * 5 * 4.0).view(2, 3, 5, 4)
    out = PaddedShortcut(3, 2)(x)
    assert out.shape == (2, 6, 3, 2)
    assert torch.equal(out[:, :3], x[:, :, [0, 2, 4]][..., [0, 2]])
    assert torch.equal(out[:, 3:], torch.zeros(2, 3, 3, 2))


def test_resnet9_by_hand():
    model = network("resnet9-w4").double().eval()
    modules = [m for m in model.body.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    units = iter(zip(modules[::2], modules[1::2], strict=True))

    def unit(x):
        convolution, norm = next(units)
        return F.relu(norm(convolution(x)))

    x = images(2, 16).double()
    a = unit(model.normalize(x))
    a = F.max_pool2d(unit(a), 2)
    a = a + unit(unit(a))
    a = F.max_pool2d(unit(a), 2)
    a = F.max_pool2d(unit(a), 2)
    a = a + unit(unit(a))
    _, features = model(x, with_features=True)
    assert next(units, None) is None
    assert torch.allclose(features, a.flatten(2).max(dim=2).values, rtol=1e-12, atol=1e-12)


def test_cifar_resnet_has_no_weights_in_shortcuts():
    convolutions = [m for m in network("resnet32").modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 31
    assert all(m.kernel_size == (3, 3) for m in convolutions)


def test_too_few_classes():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        network("tinynet", 1)


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        network("resnet19")


def test_tinynet_learns_digits():
    x, y = grey_digits()
    x = x[:, None].expand(-1, 3, -1, -1)
    model = network("tinynet", mean=(0.5,) * 3, std=(0.5,) * 3)
    test = torch.arange(len(x)) % 5 == 0
    train(model, x[~test], y[~test], num_epochs=6)
    with torch.no_grad():
        accuracy = (model.eval()(x[test]).argmax(1) == y[test]).float().mean().item()
    assert accuracy > 0.96


def train(model, x, y, *, num_epochs, batch_size=64):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=num_epochs)
    for _ in range(num_epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        decay.step()
