"""What a network is made of beside its weights: the same weights can be asked in many ways."""

import inspect
import secrets
from collections.abc import Mapping
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OF_EVERY_MODULE = {key for key in vars(nn.Module()) if key != "_buffers" and not key.endswith("_hooks")}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, torch.dtype, torch.device, torch.Size)


def anatomy(network: nn.Module) -> bytes:
    """A sha256 that is equal for equal networks, in whichever process, and differs where anything may.

    It is of the modules' names, classes and source files, and of all their attributes but parameters: constants,
    buffers outside the state dict, functions, hooks. A value that cannot be told to be the same differs each time.
    """
    digest = sha256()
    for name, module in network.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
        own |= {key: [*hooks.values()] for key, hooks in own.items() if key.endswith("_hooks")}  # not their numbers
        digest.update(_hash(name, type(module), own, seen=frozenset({id(module)})))
    return digest.digest()


def digest_of(value: Any) -> bytes:
    """A sha256 of a class, a function or a network, by the same rules: of its code, defaults and constants.

    A class without a file, as one of a notebook, is told by the code of its functions.
    """
    if isinstance(value, nn.Module):
        return anatomy(value)
    return _of(value, frozenset())


def _hash(*values: Any, seen: frozenset[int]) -> bytes:
    digest = sha256()
    for value in values:
        digest.update(_of(value, seen))
    return digest.digest()


def _of(value: Any, seen: frozenset[int]) -> bytes:
    """32 bytes.  seen: the objects that this one lies in, which it may point back to."""
    if id(value) in seen:
        return sha256(b"itself").digest()
    if not isinstance(value, _PLAIN):
        seen = seen | {id(value)}
    match value:
        case _ if isinstance(value, _PLAIN):
            return sha256(f"{type(value).__name__} {value!r}".encode()).digest()
        case Tensor():
            pixels = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            return sha256(f"{value.dtype} {tuple(value.shape)}".encode() + pixels).digest()
        case np.ndarray() if value.dtype != object:
            return sha256(f"{value.dtype} {value.shape}".encode() + value.tobytes()).digest()
        case Mapping():
            return _hash("mapping", *(part for item in value.items() for part in item), seen=seen)
        case list() | tuple():
            return _hash(type(value).__name__, *value, seen=seen)
        case set() | frozenset():
            return sha256(b"".join(sorted(_of(item, seen) for item in value))).digest()
        case type() if value.__module__ == "__main__" and not _source_of(value):
            return _hash(value.__qualname__, value.__bases__, _attributes(value), seen=seen)
        case type():
            return sha256(f"{value.__module__}.{value.__qualname__} {_source_of(value)}".encode()).digest()
        case property() | staticmethod() | classmethod():
            functions = (value.fget, value.fset) if isinstance(value, property) else (value.__func__,)
            return _hash(type(value).__name__, *functions, seen=seen)
        case nn.Module():  # it has a name of its own in the network, or is not asked by it
            return _of(type(value), seen)
        case FunctionType():
            closure = [cell.cell_contents for cell in value.__closure__ or ()]
            name = f"{value.__module__}.{value.__qualname__}"
            return _hash(name, value.__code__, value.__defaults__, value.__kwdefaults__, closure, seen=seen)
        case CodeType():
            return _hash(value.co_code, value.co_names, value.co_varnames, value.co_consts, seen=seen)
        case BuiltinFunctionType():
            owner = type(value.__self__) if value.__self__ is not None else None
            return sha256(f"{value.__module__} {owner} {value.__qualname__}".encode()).digest()
        case MethodType():
            return _hash("method", value.__func__, type(value.__self__), seen=seen)
        case partial():
            return _hash("partial", value.func, value.args, value.keywords, seen=seen)
        case ModuleType():
            return sha256(value.__name__.encode()).digest()
    if hasattr(value, "__dict__"):
        return _hash(type(value), vars(value), seen=seen)
    text = repr(value)
    return secrets.token_bytes(32) if " at 0x" in text else _hash(type(value), text, seen=seen)


def _attributes(kind: type) -> dict[str, Any]:
    """What a class statement says, without what Python adds to it."""
    added = ("__module__", "__dict__", "__weakref__", "__doc__", "__firstlineno__", "__static_attributes__")
    return {name: value for name, value in vars(kind).items() if name not in added}


@cache
def _source_of(kind: type) -> str:
    """The sha256 of the file that defines a class; of PyTorch's own its version."""
    if kind.__module__.partition(".")[0] == "torch":
        return torch.__version__
    try:
        return sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # a built-in one, or one that was made in memory
        return ""
