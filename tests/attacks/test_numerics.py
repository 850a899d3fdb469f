"""What fp32 is, inside an attack and after it, whoever has set what before."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bat_dist.attacks.apgd import apgd
from bat_dist.attacks.fab import fab_targeted
from bat_dist.attacks.linf import no_start
from bat_dist.attacks.numerics import Precision, numerics
from bat_dist.attacks.pgd import fgsm, pgd, pgd_path
from bat_dist.attacks.square import square
from bat_dist.methods.bat import similarity
from tests.helpers import rounding
from tests.helpers.rounding import EXACT, ROUNDED, Flags, Note, flags, opposite, to_tf32

notes = rounding.notes
backends: Any = torch.backends  # whose types do not know `fp32_precision`
cuda, cudnn, mkldnn = backends.cuda, backends.cudnn, backends.mkldnn
PRECISIONS: list[tuple[Precision, Flags]] = [("fp32", EXACT), ("tf32", ROUNDED), ("bf16", EXACT)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()


X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y, IDS = network()(X).argmax(dim=1), torch.arange(4)


@pytest.mark.parametrize(("precision", "wanted"), PRECISIONS)
def test_inside_all_is_as_the_precision_says_and_afterwards_as_it_was(precision: Precision, wanted: Flags) -> None:
    with opposite(wanted):
        with numerics(precision):
            assert flags() == wanted
            with numerics("fp32" if precision == "tf32" else "tf32"):
                assert flags() != wanted
            assert flags() == wanted
        with pytest.raises(KeyError), numerics(precision):
            raise KeyError


def matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "not told"


def everything() -> list[str | bool]:
    operations = (cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, cudnn, backends)
    return [operation.fp32_precision for operation in operations]


def generic() -> None:
    backends.fp32_precision = "tf32"


def generic_exact() -> None:
    backends.fp32_precision = "ieee"


def convolutions_exact() -> None:
    cudnn.conv.fp32_precision = "ieee"


def products() -> None:
    cuda.matmul.fp32_precision = "tf32"


def medium() -> None:
    torch.set_float32_matmul_precision("medium")


def older_names() -> None:
    cuda.matmul.allow_tf32, cudnn.allow_tf32 = True, False


@pytest.fixture
def _as_pytorch_begins():
    yield
    backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = True
    for operation, value in ((cuda.matmul, "none"), (cudnn.conv, "tf32"), (cudnn.rnn, "tf32"), (mkldnn.matmul, "none")):
        operation.fp32_precision = value


@pytest.mark.usefixtures("_as_pytorch_begins")
@pytest.mark.parametrize("user", [generic, generic_exact, convolutions_exact, products, medium, older_names])
def test_whatever_names_the_user_has_set_it_by(user: Callable[[], None]) -> None:
    """PyTorch has two sets of names, and raises where one that is read has been set by the other."""
    user()
    before, told = everything(), matmul_precision()
    for precision, wanted in PRECISIONS:
        with numerics(precision):
            assert flags() == wanted
            assert matmul_precision() != "not told"
    assert everything() == before
    assert matmul_precision() == told or told == "not told"


def test_pytorch_leaves_tf32_to_convolutions_alone() -> None:
    """What docs/training.md and `numerics` say of it; nothing in this process has changed it."""
    assert flags()[:2] == (True, False)


ATTACKS: list[Callable[..., object]] = [
    lambda net, **how: pgd(net, X, Y, epsilon=0.1, step_size=0.1, num_steps=2, start=no_start, **how),
    lambda net, **how: pgd_path(net, X, Y, epsilon=0.1, step_size=0.1, num_steps=2, start=no_start, **how),
    lambda net, **how: fgsm(net, X, Y, epsilon=0.1, **how),
]
EXACT_ATTACKS: list[Callable[..., object]] = [
    lambda net: apgd(net, X, Y, epsilon=0.1, seed=0, ids=IDS, num_steps=3),
    lambda net: fab_targeted(net, X, Y, epsilon=0.1, seed=0, ids=IDS, num_steps=2, num_targets=2),
    lambda net: square(net, X, Y, epsilon=0.1, seed=0, ids=IDS, num_queries=3),
]


@pytest.mark.parametrize(("precision", "wanted"), PRECISIONS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_goes_forward_and_backward_in_its_precision(
    attack: Callable[..., object], precision: Precision, wanted: Flags, notes: set[Note]
) -> None:
    with opposite(wanted):
        attack(network(), precision=precision)
    assert notes == {Note("forward", False, wanted), Note("backward", False, wanted)}


@pytest.mark.parametrize("attack", EXACT_ATTACKS)
def test_attacks_that_judge_are_exact(attack: Callable[..., object], notes: set[Note]) -> None:
    with opposite(EXACT):
        attack(network())
    assert {note.flags for note in notes} == {EXACT}


def test_a_network_that_raises_leaves_everything_as_it_was() -> None:
    class Raising(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            raise KeyError

    with opposite(EXACT), pytest.raises(KeyError):
        pgd(
            nn.Sequential(nn.Flatten(), Raising(192, 10)), X, Y, epsilon=0.1, step_size=0.1, num_steps=2, start=no_start
        )


class RoundedProducts(TorchFunctionMode):
    """cuBLAS' TF32, emulated: products keep 10 bits of their factors' mantissas, where PyTorch allows it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (Tensor.matmul, Tensor.__matmul__, torch.matmul) and args[0].dtype == torch.float32:
            args = tuple(map(to_tf32, args)) if flags().products else args
        return func(*args, **(kwargs or {}))


def test_similarities_are_as_exact_in_tf32_as_in_fp32() -> None:
    """tau magnifies what a factor loses, so no precision of the network may round them (see `similarity`)."""
    features = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    expected = similarity(wide := features.double().requires_grad_(), tau=0.1, unit_length=True)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), wide)
    with numerics("tf32"), RoundedProducts():
        assert not torch.allclose((features @ features.T).double(), features.double() @ features.double().T, rtol=1e-4)
        found = similarity(leaf := features.clone().requires_grad_(), tau=0.1, unit_length=True)
        (of_found,) = torch.autograd.grad((found * weights).sum(), leaf)
    assert found.dtype == of_found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(of_found.double(), gradient, rtol=0, atol=1e-4)
