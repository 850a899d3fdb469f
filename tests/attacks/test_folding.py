"""The faster copy says what the model says, whatever the model; and where it would not, it is a plain copy."""

import pytest
import torch
from torch import nn

from bat_dist.attacks.folding import faster, pairs_of
from bat_dist.attacks.frozen import attacked
from bat_dist.attacks.numerics import numerics
from bat_dist.models.build import build
from tests.attacks.attack_nets import state
from tests.helpers import rounding

emulated_tf32 = rounding.emulated_tf32

ARCHITECTURES = ["resnet9-w16", "resnet20", "preactresnet18", "wrn16-1", "tinynet"]


def images(count=8):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def warmed(model):
    """With running statistics, scales and shifts that are not the initial ones."""
    model.train()
    with torch.no_grad():
        model(images(16))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return model


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_same_logits_and_gradient_with_fewer_layers(name):
    torch.manual_seed(0)
    model = warmed(build(name, 10, mean=(0.5,) * 3, std=(0.25,) * 3))
    before = state(model)
    copy = faster(model, images(4))
    assert state(model) == before
    assert norms(copy) < norms(model)
    x, y = images().double().requires_grad_(), images().double().requires_grad_()
    expected, logits = model.double().eval()(x), faster(model, images(4).double())(y)
    assert torch.allclose(logits, expected, atol=1e-9)
    (one,), (other,) = torch.autograd.grad(expected[:, 0].sum(), x), torch.autograd.grad(logits[:, 0].sum(), y)
    assert torch.allclose(one, other, atol=1e-9)


def test_single_precision_to_one_in_a_hundred_thousand():
    torch.manual_seed(0)
    model = warmed(build("resnet9-w16", 10, mean=(0.5,) * 3, std=(0.25,) * 3))
    copy = faster(model, images(4))
    expected = model.eval()(images())
    assert norms(copy) == 0
    assert ((copy(images()) - expected).abs() <= 1e-5 * (1 + expected.abs())).all()


@pytest.mark.usefixtures("emulated_tf32")
@pytest.mark.parametrize("name", ["resnet9-w16", "resnet20"])
def test_layers_are_folded_where_the_gpu_would_round_to_tf32(name, monkeypatch):
    """All that are folded in fp32."""
    torch.manual_seed(0)
    model = warmed(build(name, 10, mean=(0.5,) * 3, std=(0.25,) * 3))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    rounded = norms(faster(model, images(4)))
    assert torch.backends.cudnn.allow_tf32
    assert not torch.allclose(model.eval()(images()), exact_logits(model), atol=1e-4)  # the emulation does something
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert rounded == norms(faster(model, images(4))) < norms(model)


def exact_logits(model):
    with numerics("fp32"):
        return model(images())


class TrainsItself(nn.Module):
    """Its BatchNorm is in train mode whenever it is asked."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x):
        self.norm.train()
        return self.head(self.norm(self.conv(x)).amax((2, 3)))


def test_a_batch_norm_that_sets_itself_to_train_is_left():
    copy = faster(TrainsItself(), images(4))
    assert norms(copy) == 1


class TwoReaders(nn.Module):
    """Someone else reads the convolution before BatchNorm does."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10)

    def forward(self, x):
        made = self.conv(x)
        return (made + self.norm(made)).amax((2, 3))


class Shared(TwoReaders):
    """One BatchNorm behind two calls of one convolution."""

    def forward(self, x):
        return (self.norm(self.conv(x)) + self.norm(self.conv(1 - x))).amax((2, 3))


class Overwritten(nn.Module):
    """The sigmoid's value is needed after the ReLU."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 10, 3), nn.ReLU()

    def forward(self, x):
        made = self.conv(x).sigmoid()
        return (made * self.relu(made)).amax((2, 3))


class ReadTwice(nn.Module):
    """A ReLU beside its own input."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 10, 3), nn.ReLU()

    def forward(self, x):
        made = self.conv(x)
        return (self.relu(made) + made).amax((2, 3))


@pytest.mark.parametrize("kind", [TwoReaders, Shared, Overwritten, ReadTwice])
def test_what_cannot_be_changed_is_a_plain_copy(kind):
    torch.manual_seed(0)
    model = kind()
    if kind in (TwoReaders, Shared):
        warmed(model)
    copy, expected = faster(model, images(4)), model.eval()(images())
    assert torch.allclose(copy(images()), expected, atol=1e-6)
    assert copy(images().requires_grad_()).sum().backward() is None


# --- which layers of a network in training may be folded


@pytest.mark.parametrize(
    ("name", "number"), [("resnet9-w4", 8), ("resnet20", 19), ("tinynet", 3), ("preactresnet18", 8), ("wrn16-1", 6)]
)
def test_pairs_of_our_networks(name, number):
    """All of the others'; of those with pre-activation, the first convolution of each block and the norm behind it."""
    model = build(name, 10, mean=(0.5,) * 3, std=(0.25,) * 3).train()
    before = state(model)
    assert len(pairs_of(model, images(1))) == number
    assert state(model) == before
    assert pairs_of(model, images(1)) is pairs_of(model, images(1))


class Hidden(TwoReaders):
    """The other reader of the convolution is hidden as long as a scale is 0, as in the last BatchNorm of a block."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        made = self.conv(x)
        return (self.scale * made + self.norm(made)).amax((2, 3))


class Drawing(nn.Module):
    """It says something else each time."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10)

    def forward(self, x):
        return self.norm(self.conv(x)).amax((2, 3)) + torch.rand(())


class Uncopied(Drawing):
    def __deepcopy__(self, memo):
        raise TypeError("it holds a lock")


@pytest.mark.parametrize("kind", [TwoReaders, Shared, Hidden, TrainsItself, Drawing, Uncopied])
def test_pairs_that_would_change_the_network_are_none(kind):
    torch.manual_seed(0)
    assert list(pairs_of(kind(), images(2))) == []


def test_pairs_are_found_anew_when_layers_are_replaced():
    model = build("tinynet", 10, mean=(0.5,) * 3, std=(0.25,) * 3)
    conv, norm = pairs_of(model, images(1))[0]
    parent, name = next((p, n) for p in model.modules() for n, child in p.named_children() if child is norm)
    setattr(parent, name, nn.Identity())
    assert len(pairs_of(model, images(1))) == 2
    assert conv not in dict(pairs_of(model, images(1)))


@pytest.mark.parametrize("context", [torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)])
def test_pairs_are_the_same_in_whatever_context_the_caller_is(context):
    model = build("tinynet", 10, mean=(0.5,) * 3, std=(0.25,) * 3)
    with context(), attacked(model, images(1), torch.zeros(1, dtype=torch.int64), fold_batch_norm=True):
        pass
    assert len(pairs_of(model, images(1))) == 3
