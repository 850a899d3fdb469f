"""Networks of the user's own, and those of timm and torchvision: made under a seed, they take images in [0, 1].

A network is called once with images; its features are the input of its last linear layer.
"""

import copy
import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from bat_dist.errors import UserError
from bat_dist.models.anatomy import digest_of
from bat_dist.models.classifier import Features, Logits
from bat_dist.models.normalization import Normalize
from bat_dist.parts import Own, Part, library_of, load_part, modules_in, source_of

_DIGITS = 12  # of a digest, as identities have it


@dataclass(frozen=True)
class OwnNetwork(Own):
    """How a network is made, and from what source; equal where both are said to be.  It travels by pickle to workers.

    factory: called with `num_classes` if it takes that, gives a network. digest: of its source. reference: what it was
    imported from, as it was given. modules: names of the user's own modules, which other machines do not have.
    """

    name: str
    factory: Callable[..., nn.Module] = field(compare=False, repr=False)
    digest: str
    reference: str = field(default="", compare=False)
    modules: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return super().__str__()

    def make(self, num_classes: int) -> nn.Module:
        """A new network.  Raises UserError if the factory raises, or gives something else."""
        return called(self.factory, num_classes, name=f"{self.name}()")


class OwnClassifier(nn.Module):
    """logits = network(normalize(images)); features are the input of the last linear layer that gives the logits."""

    def __init__(self, network: nn.Module, num_classes: int, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network
        heads = [name for name, m in network.named_modules() if isinstance(m, nn.Linear)]
        self.head_name = next((n for n in reversed(heads) if _width(network, n) == num_classes), None)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], *, with_features: bool = False
    ) -> Logits | tuple[Logits, Features]:
        """Logits of images in [0, 1]; with `with_features` also the input of the last linear layer.

        Raises UserError if features are asked for and there is no such layer, or it is not used once.
        """
        x = self.normalize(images).contiguous()  # `x.view(len(x), -1)` is for images in the usual order
        if not with_features:
            return self.network(x)
        if self.head_name is None:
            raise UserError(f"{type(self.network).__name__} has no features: no nn.Linear gives its logits")
        inputs: list[Tensor] = []
        handle = self.network.get_submodule(self.head_name).register_forward_pre_hook(
            lambda _, given: inputs.append(given[0])
        )
        try:
            logits = self.network(x)
        finally:
            handle.remove()
        if len(inputs) != 1 or inputs[0].ndim != 2:
            shapes = [list(one.shape) for one in inputs]
            raise UserError(
                f"{type(self.network).__name__} has no features: its last nn.Linear, {self.head_name}, must be called "
                f"once with [batch, width], got {shapes or 'no call'}"
            )
        return logits, inputs[0]


def own_network(
    factory_or_module: Callable[..., nn.Module] | nn.Module,
    *,
    name: str | None = None,
    modules: Sequence[ModuleType] = (),
) -> OwnNetwork:
    """A network of the user's own from a class, a function that makes it, or a module.

    Copies of a module get new weights from their layers' `reset_parameters`, so that a seed decides them. name: default
    the class's or function's. modules: files of the user's beside the one that defines it and those that it imports.
    Raises UserError for a module whose weights cannot be drawn anew.
    """
    factory, shown = factory_or_module, factory_or_module
    if isinstance(factory_or_module, nn.Module):
        _check_can_be_drawn_anew(factory_or_module)
        factory, shown = partial(_drawn_anew, factory_or_module), type(factory_or_module)
    if not callable(factory):
        raise UserError(f"a network must be a class, a function or a torch.nn.Module, got {type(factory).__name__}")
    own = tuple(dict.fromkeys([*_modules_of(shown), *modules]))
    source = source_of(own) if own else ""
    digest = sha256(source.encode() + digest_of(factory_or_module)).hexdigest()[:_DIGITS]
    called_so = name or getattr(shown, "__name__", type(shown).__name__)
    return OwnNetwork(called_so, factory, digest, modules=tuple(m.__name__ for m in own))


def named_network(reference: str, *, what: str = "arch") -> OwnNetwork:
    """The network that FILE.py:NAME, package.module:NAME, timm:NAME or torchvision:NAME names; it is not yet made.

    Raises UserError.
    """
    if library := library_of(reference):
        factory = partial(_of_library, library, reference.partition(":")[2])
        return OwnNetwork(reference, factory, version(library), reference)
    part = load_part(reference, what=what)
    if isinstance(part.made, nn.Module):
        made = own_network(part.made)
        factory = made.factory
    else:
        factory = part.made
    if not callable(factory):
        raise UserError(f"{what} {reference!r} must be a class or a function that makes a network")
    name = reference.rpartition(":")[2]
    return OwnNetwork(name, factory, _digest(part), reference, tuple(m.__name__ for m in part.modules))


def called(factory: Callable[..., Any], num_classes: int, *, name: str) -> nn.Module:
    """The network that a class or function gives, called with num_classes if it takes that.

    By name or, as torchvision's functions, for what they call. Raises UserError if it raises, or gives something else.
    """
    try:
        network = _call(factory, num_classes)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} raised {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} must give a torch.nn.Module, got {type(network).__name__}")
    return network


def _call(made: Callable[..., Any], num_classes: int) -> Any:
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):  # some built-in ones do not tell
        return made()
    if any(p.name == "num_classes" for p in parameters):
        return made(num_classes=num_classes)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        with suppress(TypeError):
            return made(num_classes=num_classes)
    return made()


def _of_library(library: str, name: str, num_classes: int) -> nn.Module:
    """An untrained network of timm or torchvision.  Raises UserError for a name that the library does not list."""
    try:
        if library == "timm":
            import timm

            return timm.create_model(name, pretrained=False, num_classes=num_classes)
        from torchvision.models import get_model

        return get_model(name, weights=None, num_classes=num_classes)
    except ImportError:
        raise UserError(f"{library}:{name} needs {library}: pip install {library}") from None


def _digest(part: Part) -> str:
    """Of the user's files; of an installed package, which has none, of the code that is called."""
    return (part.source or sha256(digest_of(part.made)).hexdigest())[:_DIGITS]


def _modules_of(made: Any) -> tuple[ModuleType, ...]:
    """The user's own modules in the folder of the file that defines it; none if it is of a package or a notebook."""
    module = sys.modules.get(getattr(made, "__module__", ""))
    file = getattr(module, "__file__", None)
    return modules_in(Path(file).resolve().parent) if file and module and module.__name__ != "__main__" else ()


def _check_can_be_drawn_anew(network: nn.Module) -> None:
    for name, module in network.named_modules():
        owns = any(True for _ in module.parameters(recurse=False))
        if owns and not callable(getattr(module, "reset_parameters", None)):
            raise UserError(
                f"the weights of {name or 'the network'}, a {type(module).__name__}, cannot be drawn anew: give it a "
                "reset_parameters, or give the class or a function that makes the network instead of a network"
            )


def _drawn_anew(network: nn.Module) -> nn.Module:
    made = copy.deepcopy(network)
    for module in made.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.reset_parameters()  # pyright: ignore[reportCallIssue]
    return made


def _width(network: nn.Module, name: str) -> int:
    head = network.get_submodule(name)
    assert isinstance(head, nn.Linear)
    return head.out_features
