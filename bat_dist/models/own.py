"""Networks of the user's own, and those of timm and torchvision: made under a seed, they take images in [0, 1].

A network is called once with images; its features are the input of its last linear layer.
"""

import copy
import functools
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

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bat_dist.errors import UserError
from bat_dist.models.anatomy import digest_of
from bat_dist.models.classifier import Features, Logits
from bat_dist.models.normalization import Normalize
from bat_dist.parts import DIGITS, Own, file_digest, library_of, load_part, modules_of, source_of, travel
from bat_dist.wording import nearest


@dataclass(frozen=True)
class OwnNetwork(Own):
    """How a network is made, and from what source; equal where both are said to be.  It travels by pickle to workers.

    factory: called with `num_classes` if it takes that, gives a network. digest: of its source. reference: what it was
    imported from, as it was given.
    """

    name: str
    factory: Callable[..., nn.Module] = field(compare=False, repr=False)
    digest: str
    reference: str = field(default="", compare=False)

    def __str__(self) -> str:
        return super().__str__()

    def make(self, num_classes: int) -> nn.Module:
        """A new network.  Raises UserError if the factory raises, or gives something else."""
        return called(self.factory, num_classes, name=f"{self.name}()")


class OwnClassifier(nn.Module):
    """logits = network(normalize(images)); features are the input of the last linear layer as wide as the logits.

    source: the network's name and the digest of its source.
    """

    def __init__(self, own: OwnNetwork, num_classes: int, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.source = str(own)
        self.normalize = Normalize(mean, std)
        self.network = network = own.make(num_classes).float().cpu()  # some make themselves on a GPU
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
    Raises UserError for a module that cannot be copied, or whose weights cannot be drawn anew.
    """
    factory, shown = factory_or_module, factory_or_module
    if isinstance(factory_or_module, nn.Module):
        _check_can_be_drawn_anew(factory_or_module)
        factory, shown = partial(_drawn_anew, copy_of(factory_or_module)), type(factory_or_module)
    if not callable(factory):
        raise UserError(f"a network must be a class, a function or a torch.nn.Module, got {type(factory).__name__}")
    digest = code_digest(factory_or_module, modules)
    return OwnNetwork(name or getattr(shown, "__name__", type(shown).__name__), factory, digest)


def code_digest(made: Any, modules: Sequence[ModuleType] = ()) -> str:
    """The digest of a class, a function or a network that was passed as an object, and not by name.

    The user's files that it comes from, and `modules`, are sent to workers from now on.
    """
    folder = modules_of(made)
    module = sys.modules.get(getattr(made, "__module__", None) or "")
    travel([*folder, *modules])
    is_named = inspect.isclass(made) or inspect.isfunction(made)  # a network or a `partial` is more than its file says
    digest = file_digest(Path(str(module.__file__))) if module in folder and is_named else digest_of(made).hex()
    further = source_of(Path(str(one.__file__)) for one in modules)
    return sha256(f"{digest} {further}".encode()).hexdigest()[:DIGITS] if modules else digest[:DIGITS]


def named_network(reference: str, *, what: str = "arch") -> OwnNetwork:
    """The network that FILE.py:NAME, package.module:NAME, timm:NAME or torchvision:NAME names; it is not yet made.

    Raises UserError.
    """
    if library := library_of(reference):
        factory = partial(_of_library, library, reference.partition(":")[2])
        _check_listed(library, reference.partition(":")[2])
        return OwnNetwork(reference, factory, version(library).partition("+")[0], reference)  # without `+cpu`
    part = load_part(reference, what=what)
    factory: Any = None
    if isinstance(part.made, nn.Module):
        factory = own_network(part.made).factory
    elif callable(part.made):
        factory = part.made
    if factory is None:
        raise UserError(f"{what} {reference!r} must be a class or a function that makes a network")
    return OwnNetwork(reference.rpartition(":")[2], factory, part.digest, reference)


@functools.lru_cache(maxsize=64)
def check_takes(
    network: OwnNetwork, num_classes: int, image_size: int, *, features: bool = False, is_saved: bool = False
) -> None:
    """Raise UserError unless it gives logits of images of this side, and has weights.

    features: and gives those too. is_saved: and has a state of tensors, which is all that a checkpoint holds.
    """
    with torch.random.fork_rng(devices=[]):
        made = OwnClassifier(network, num_classes, mean=(0.5,) * 3, std=(0.25,) * 3)
        images = torch.rand(2, 3, image_size, image_size)
        try:
            with torch.no_grad():
                answers = {"training": made.train()(images), "eval": made.eval()(images)}
        except Exception as error:
            side = f"{image_size}x{image_size}"
            raise UserError(
                f"arch {network.name} cannot take images of {side} ({type(error).__name__}: {error}). Networks made "
                "for larger images shrink small ones to nothing, or take one size alone: take a network for small "
                "images (resnet18, wrn28-10), larger images (image_size, of an image_folder), or a function of your "
                "own that gives the network its options (arch FILE.py:NAME)"
            ) from error
        for mode, logits in answers.items():
            if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
                got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise UserError(
                    f"arch {network.name} must give logits [batch, {num_classes}], got {got} for 2 images in {mode} "
                    "mode: a function of your own (arch FILE.py:NAME) can make it without auxiliary heads"
                )
        if not any(weight.requires_grad for weight in made.parameters()):
            raise UserError(f"arch {network.name} has no weights to train")
        others = [name for name, part in made.state_dict().items() if not isinstance(part, Tensor)]
        if is_saved and others:
            raise UserError(
                f"arch {network.name} cannot be saved, since {others[0]} is no tensor: let get_extra_state give one, "
                "or keep what is to be saved in buffers"
            )
        if features:
            made(images, with_features=True)


def copy_of(network: nn.Module) -> nn.Module:
    """A copy on the CPU, where images are checked, and from where workers without a GPU can read it.

    Raises UserError if it cannot be copied.
    """
    try:
        return copy.deepcopy(network).cpu()
    except Exception as error:
        raise UserError(
            f"the network cannot be copied ({type(error).__name__}: {error}), and must not be changed itself: keep "
            "tensors of a forward pass with gradients, locks and files out of its attributes"
        ) from error


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


def _check_listed(library: str, name: str) -> None:
    """Raise UserError for a network that timm or torchvision does not list, or if the library is not installed."""
    try:
        if library == "timm":
            import timm

            names = timm.list_models()
        else:
            import torchvision.models

            names = torchvision.models.list_models(module=torchvision.models)
    except ImportError:
        raise UserError(f"arch {library}:{name} needs {library}: pip install {library}") from None
    if name.partition(".")[0] not in names:  # what follows the point says which weights, of which none are loaded
        raise UserError(f"{library} has no network {name!r}{nearest(name, names)}")


def _of_library(library: str, name: str, num_classes: int) -> nn.Module:
    """An untrained network of timm or torchvision."""
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, num_classes=num_classes)
    import torchvision.models

    return torchvision.models.get_model(name, weights=None, num_classes=num_classes)


def _check_can_be_drawn_anew(network: nn.Module) -> None:
    for name, module in network.named_modules():
        owns = any(True for _ in module.parameters(recurse=False))
        if owns and not callable(getattr(module, "reset_parameters", None)):
            raise UserError(
                f"the weights of {name or 'the network'}, a {type(module).__name__}, cannot be drawn anew: give it a "
                "reset_parameters, or give the class or a function that makes the network instead of a network"
            )


def _drawn_anew(network: nn.Module) -> nn.Module:
    """A copy with new weights and running statistics.  Raises UserError if a parameter would stay as it is."""
    made = copy.deepcopy(network)
    parameters = {name: p for name, p in made.named_parameters() if p.is_floating_point() and not is_lazy(p)}
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.fill_(torch.nan)  # what is still there afterwards was not drawn
    for module in made.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.reset_parameters()  # pyright: ignore[reportCallIssue]
        elif callable(reset := getattr(module, "reset_running_stats", None)):  # BatchNorm(affine=False)
            reset()
    for name, parameter in parameters.items():
        if parameter.isnan().any():
            raise UserError(
                f"{name} of the network cannot be drawn anew: reset_parameters leaves it as it is (spectral_norm and "
                "weight_norm have that effect). Give the class or a function that makes the network, or FILE.py:NAME "
                "of one, instead of a network"
            )
    return made


def _width(network: nn.Module, name: str) -> int:
    head = network.get_submodule(name)
    assert isinstance(head, nn.Linear)
    return head.out_features
