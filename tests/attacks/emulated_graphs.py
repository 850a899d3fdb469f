"""CUDA graphs on a CPU: the kernels of a call, in order, on the very memory that they had when they were recorded.

As with a real graph nothing of Python runs in a replay: what the host knew when it recorded is what it always knows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from bat_dist.attacks import graphs

WAITS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero")


class Recorder(TorchDispatchMode):
    """Notes each operation with its arguments and outputs, and can do them all again."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.partition(".")[0] in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, out in self.done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


@contextmanager
def emulated_graphs() -> Iterator[list[Recorder]]:
    """Inside, calls are recorded as on a GPU; yields what was recorded."""
    recorders: list[Recorder] = []

    def record(function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> Any:
        recorder = Recorder()
        with recorder:
            outputs = function(*inputs)
        recorders.append(recorder)
        return recorder.replay, outputs

    with (
        mock.patch.object(graphs, "is_worthwhile", return_value=True),
        mock.patch("bat_dist.attacks.frozen.is_worthwhile", return_value=True),
        mock.patch.object(graphs, "record", record),
    ):
        yield recorders
