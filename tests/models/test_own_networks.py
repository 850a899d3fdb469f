"""Networks of the user's own: weights of a seed, features, and what is refused."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from torch import nn

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.errors import UserError
from bat_dist.models.build import build
from bat_dist.models.own import OwnClassifier, OwnNetwork, check_takes, named_network, own_network
from bat_dist.parts import travelling
from bat_dist.training.seeding import seeded_model
from tests.helpers.own_parts import write_parts

MEAN, STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> OwnNetwork:
    return named_network(f"{write_parts(tmp_path_factory.mktemp('own'), 'width_of_own_networks')}:Net")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=20, num_test=10)


def test_images_are_normalized_and_features_are_the_input_of_the_last_layer(net: OwnNetwork) -> None:
    made = build(net, 10, mean=MEAN, std=STD).eval()
    assert isinstance(made, OwnClassifier)
    x = torch.rand(5, 3, 8, 8)
    logits, features = made(x.contiguous(memory_format=torch.channels_last), with_features=True)
    normalized = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.equal(logits, made.network(normalized))
    head = made.network.get_submodule("head")
    torch.testing.assert_close(logits, features @ head.weight.T + head.bias)
    assert torch.equal(made(x), logits)
    assert not any(module._forward_pre_hooks for module in made.modules())


def test_a_seed_decides_the_weights_of_a_class_and_of_a_network(net: OwnNetwork, dataset: Dataset) -> None:
    ready = own_network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)))
    for network in (net, ready):
        one, same, other = (
            seeded_model(network, dataset, CPU, key=key).state_dict() for key in ((0, 1), (0, 1), (0, 2))
        )
        assert all(torch.equal(one[name], same[name]) for name in one)
        conv = next(name for name in one if "normalize" not in name and one[name].ndim == 4)
        assert not torch.equal(one[conv], other[conv])


def test_it_travels_to_a_process_without_its_files(net: OwnNetwork, tmp_path: Path) -> None:
    for module in travelling():
        ray.cloudpickle.register_pickle_by_value(module)  # pyright: ignore[reportAttributeAccessIssue]
    (tmp_path / "net.pkl").write_bytes(ray.cloudpickle.dumps(net))  # pyright: ignore[reportAttributeAccessIssue]
    program = (
        "import pickle, torch; net = pickle.load(open('net.pkl', 'rb')); torch.manual_seed(5); "
        "print(net, sum(w.sum().item() for w in net.make(10).parameters()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.manual_seed(5)
    assert done.stdout == f"{net} {sum(w.sum().item() for w in net.make(10).parameters())}\n"


class Bare(nn.Module):
    """Weights of its own, which nothing can draw anew."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 192))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T


def test_what_cannot_be_used_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="the weights of the network, a Bare, cannot be drawn anew: give it a reset_"):
        own_network(Bare())
    bare = own_network(Bare)
    check_takes(bare, 3, 8)
    with pytest.raises(UserError, match=r"arch Bare must give logits \[batch, 4\], got \[2, 3\] for 2 images"):
        check_takes(bare, 4, 8)
    with pytest.raises(UserError, match="arch Bare cannot take images of 9x9"):
        check_takes(bare, 3, 9)
    with pytest.raises(UserError, match=r"Bare has no features: no nn.Linear gives its logits"):
        check_takes(bare, 3, 8, features=True)
    with pytest.raises(UserError, match="arch Flatten has no weights to train"):
        check_takes(own_network(nn.Flatten), 192, 8)
    with pytest.raises(UserError, match=r"int\(\) must give a torch.nn.Module, got int"):
        check_takes(own_network(int), 3, 8)  # pyright: ignore[reportArgumentType]


def test_a_librarys_network_by_name() -> None:
    found = named_network("torchvision:squeezenet1_1")
    assert str(found).startswith("torchvision:squeezenet1_1 0.")
    check_takes(found, 10, 32)
    with pytest.raises(UserError, match=r"cannot take images of 4x4 .* larger images"):
        check_takes(found, 10, 4)
    with pytest.raises(UserError, match=r"torchvision has no network 'squeezenet1_2'; did you mean squeezenet1_1?"):
        named_network("torchvision:squeezenet1_2")


def new_weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return own_network(network).make(10).state_dict()


@pytest.mark.filterwarnings("ignore:`torch.nn.utils")
def test_weights_that_a_reset_does_not_reach_are_refused() -> None:
    """After a pass without gradients the derived `weight` is a tensor of its own, as in a trained network."""
    of_old, new = nn.utils, nn.utils.parametrizations
    for normalized, stays in ((of_old.spectral_norm, "weight_orig"), (of_old.weight_norm, "weight_g")):
        network = nn.Sequential(nn.Flatten(), normalized(nn.Linear(192, 10)))
        with torch.no_grad():
            network(torch.rand(2, 3, 8, 8))
        with pytest.raises(UserError, match=rf"1\.{stays} of the network cannot be drawn anew.* FILE\.py:NAME"):
            new_weights_of(network)
    for normalized in (new.spectral_norm, new.weight_norm, new.orthogonal):
        with pytest.raises(UserError, match="a ParametrizationList, cannot be drawn anew"):
            new_weights_of(nn.Sequential(nn.Flatten(), normalized(nn.Linear(192, 10))))


class Fixed(nn.Linear):
    """Weights that are the same whenever they are set, which is no fault, and a bias without a reset."""

    def __init__(self, *, keeps_bias: bool) -> None:
        super().__init__(192, 10)
        self.keeps_bias = keeps_bias

    def reset_parameters(self) -> None:
        nn.init.eye_(self.weight)
        if not getattr(self, "keeps_bias", False):
            nn.init.zeros_(self.bias)


def test_constants_are_no_weights_that_a_reset_does_not_reach() -> None:
    made = new_weights_of(nn.Sequential(nn.Flatten(), Fixed(keeps_bias=False)))
    assert torch.equal(made["1.weight"], torch.eye(10, 192))
    with pytest.raises(UserError, match=r"1\.bias of the network cannot be drawn anew"):
        new_weights_of(nn.Sequential(nn.Flatten(), Fixed(keeps_bias=True)))
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))  # which are drawn at the first pass
    check_takes(own_network(lazy), 10, 8)


@pytest.mark.parametrize("affine", [True, False])
def test_running_statistics_begin_anew(affine: bool) -> None:
    given = nn.Sequential(nn.BatchNorm2d(3, affine=affine), nn.Flatten(), nn.Linear(192, 10))
    given(torch.rand(4, 3, 8, 8))
    made = new_weights_of(given)
    assert made["0.running_mean"].tolist() == [0, 0, 0]
    assert made["0.running_var"].tolist() == [1, 1, 1]
    assert made["0.num_batches_tracked"] == 0
    assert given.state_dict()["0.num_batches_tracked"] == 1


class WithAuxiliaryHead(nn.Linear):
    """A second output in training mode, as GoogLeNet has; or, where `in_eval`, in eval mode."""

    def __init__(self, *, in_eval: bool = False) -> None:
        super().__init__(192, 10)
        self.in_eval = in_eval

    def forward(self, input: torch.Tensor) -> Any:
        logits = super().forward(input.flatten(1))
        return logits if self.training == self.in_eval else (logits, logits)


def test_the_outputs_of_both_modes_are_checked() -> None:
    with pytest.raises(UserError, match=r"got tuple for 2 images in training mode: a function .* auxiliary heads"):
        check_takes(own_network(WithAuxiliaryHead), 10, 8)
    with pytest.raises(UserError, match="got tuple for 2 images in eval mode"):
        check_takes(own_network(partial(WithAuxiliaryHead, in_eval=True)), 10, 8)
