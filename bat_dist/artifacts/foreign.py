"""Networks that are not ours: a module from a user's file or an installed package, with weights as others save them."""

import logging
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bat_dist.artifacts.checkpoints import SUFFIX
from bat_dist.errors import UserError
from bat_dist.models.normalization import Normalize
from bat_dist.models.own import called
from bat_dist.parts import load_part
from bat_dist.storage.files import split_location

# Where others put their weights; averaged ones last, so that they are taken only where there are no others.
_NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_NESTS += ("ema", "ema_state_dict", "state_dict_ema", "model_ema")
_COUNTER = "num_batches_tracked"  # of BatchNorm; PyTorch before 0.4.1 saved none, and in eval mode nobody asks for it
_EXTRA_STATE = "_extra_state"  # of modules that have more than tensors to save
_BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of a torch file: a zip, or a pickle
_PREFIXES = ("module.", "model.", "net.", "_orig_mod.", "backbone.")  # DataParallel, Lightning, torch.compile, ...

log = logging.getLogger(__name__)


class Foreign(NamedTuple):
    """A network that takes images in [0, 1], and what made it."""

    network: nn.Module
    modules: tuple[ModuleType, ...]  # the user's own files, which other machines don't have
    source: str  # sha256 of these files' text


def load_foreign(
    model: str | None,
    weights: str | None,
    *,
    num_classes: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    weights_key: str | None = None,
    allow_pickle: bool = False,
) -> Foreign:
    """`model` is FILE.py:NAME or package.module:NAME; NAME() gives a network, NAME(num_classes=...) if it takes that.

    weights: a .safetensors file or a torch file; a state dict, also inside a dict under a usual name, also with a
    usual prefix. Without `model` the file must hold a whole module, which only `allow_pickle` reads.
    weights_key: under which name of the file the weights lie; None: the first that fits, which is logged.
    mean, std: of a network that wants normalized images; the normalization is put before it.
    allow_pickle: read files that may run any code while they are read. Never do that with a stranger's.
    Raises UserError.
    """
    foreign = Foreign(nn.Identity(), (), "") if model is None else _built(model, num_classes)
    found = None if weights is None else _read(weights, allow_pickle)
    if isinstance(found, Mapping) and weights_key is not None:
        if not isinstance(found.get(weights_key), Mapping | nn.Module):
            raise UserError(f"{weights} has no weights under {weights_key!r}: {_contents(found)}")
        found = found[weights_key]
    elif weights_key is not None:
        raise UserError(f"weights_key {weights_key!r} needs a file of several sets of weights, got {weights}")
    if isinstance(found, nn.Module):
        foreign = foreign._replace(network=found)
    elif model is None:
        raise UserError(
            f"{weights} holds weights without their network: say which with --model FILE.py:NAME or package.module:NAME"
        )
    elif found is not None:
        _load_weights(foreign.network, found, str(weights))
    if mean is not None and std is not None:
        try:
            foreign = foreign._replace(network=nn.Sequential(Normalize(mean, std), foreign.network))
        except ValueError as error:
            raise UserError(str(error)) from None
    return foreign._replace(network=foreign.network.float().cpu().eval())  # some make themselves on a GPU


def _built(reference: str, num_classes: int) -> Foreign:
    made, modules, source = load_part(reference, what="--model")
    if not isinstance(made, nn.Module):
        where, _, name = reference.rpartition(":")
        made = called(made, num_classes, name=f"{name}() of {where}")
    return Foreign(made, modules, source)


def _read(location: str, allow_pickle: bool) -> Mapping[str, Any] | nn.Module:
    """Read a state dict or something around it; a whole module if pickle is allowed."""
    folder, name = split_location(location)
    try:
        data = folder.read(name)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"{location} does not exist, or is no file") from None
    if not name.endswith(SUFFIX) and not data.startswith(_BEGINNINGS):
        raise UserError(f"{location} is no torch file: it begins with {data[:24]!r}; fetch it again")
    with suppress(zipfile.BadZipFile):  # a TorchScript archive holds the constants of a program
        if any(Path(inside).name == "constants.pkl" for inside in zipfile.ZipFile(BytesIO(data)).namelist()):
            raise UserError(
                f"{location} is a TorchScript archive, whose network cannot be sent to workers: give the class with "
                "--model FILE.py:NAME, and its weights as torch.save(network.state_dict(), ...) writes them"
            )
    try:
        if name.endswith(SUFFIX):
            return safetensors.torch.load(data)
        found = torch.load(BytesIO(data), map_location="cpu", weights_only=not allow_pickle)
    except SafetensorError as error:
        raise UserError(f"{location} cannot be read as safetensors ({error})") from None
    except pickle.UnpicklingError as error:
        if not allow_pickle and ("GLOBAL" in str(error) or "Unsupported" in str(error)):
            raise UserError(
                f"{location} holds more than tensors: reading it can run any code that its author put there. Refused. "
                "Ask for a file of weights only, or give --allow_pickle if you trust the author as yourself"
            ) from None
        raise UserError(f"{location} cannot be read: it is damaged or no torch file") from None
    except Exception as error:  # torch and pickle have many of their own for what is no file of theirs
        raise UserError(f"{location} cannot be read ({type(error).__name__}: {error}): is it a torch file?") from None
    if not isinstance(found, Mapping | nn.Module):
        raise UserError(f"{location} holds a {type(found).__name__}, not weights by name")
    return found


def _load_weights(network: nn.Module, found: Mapping[str, Any], location: str) -> None:
    """Load weights in the first of the ways to nest and prefix them that fits.  Raises UserError if none does."""
    nests = {"": found, **{name: found[name] for name in _NESTS if isinstance(found.get(name), Mapping)}}
    own = network.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith(_COUNTER)}
    for name, nest in nests.items():
        for candidate in _without_prefixes(_weights_of(nest)):
            whole = {**counters, **candidate} if not any(key.endswith(_COUNTER) for key in candidate) else candidate
            if set(whole) == set(own):
                try:
                    network.load_state_dict(whole)
                except Exception as error:  # a `set_extra_state` of the user's own may raise anything
                    raise UserError(f"{location} does not fit the network: {error}") from None
                others = [other for other in nests if other not in ("", name)]
                if name and (others or "ema" in name):
                    left = f", not those under {' or '.join(others)}" if others else ""
                    log.info("%s: the weights under %s are taken%s", location, name, left)
                return
    fullest = max(nests.values(), key=lambda nest: sum(isinstance(value, Tensor) for value in nest.values()))
    closest = max(
        _without_prefixes(_weights_of(fullest)),
        key=lambda candidate: len(set(own) & set(candidate)),
    )
    missing, strange = sorted(set(own) - set(closest)), sorted(set(closest) - set(own))
    faults = [f"it lacks {_some(missing)}"] * bool(missing) + [f"the network knows no {_some(strange)}"] * bool(strange)
    raise UserError(f"{location} does not fit the network: {', and '.join(faults)} ({_contents(found)})")


def _contents(found: Mapping[str, Any]) -> str:
    """What lies directly in a file, in words."""
    sets = [str(key) for key, value in found.items() if isinstance(value, Mapping | nn.Module)]
    tensors = sum(isinstance(value, Tensor) for value in found.values())
    others = [str(key) for key, value in found.items() if not isinstance(value, Mapping | nn.Module | Tensor)]
    parts = [f"sets of weights ({', '.join(sets)})"] * bool(sets) + [f"{tensors} tensors"] * bool(tensors)
    parts += [f"other entries ({_some(others)})"] * bool(others)
    return f"it holds {' and '.join(parts)}" if parts else "it is empty"


def _weights_of(nest: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors, and what modules with a `get_extra_state` have saved, which may be anything."""
    return {key: value for key, value in nest.items() if isinstance(value, Tensor) or key.endswith(_EXTRA_STATE)}


def _without_prefixes(weights: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the weights as they are, then with the prefix that all share taken off, again and again."""
    candidate = dict(weights)
    yield candidate
    while prefix := next((p for p in _PREFIXES if candidate and all(key.startswith(p) for key in candidate)), None):
        candidate = {key.removeprefix(prefix): value for key, value in candidate.items()}
        yield candidate


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return shown or "nothing"
