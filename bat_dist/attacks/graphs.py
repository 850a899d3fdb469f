"""CUDA graphs: what a GPU is asked over and over is recorded once and then replayed, as one launch instead of hundreds.

A pass through ResNet-18 and back launches some 170 kernels, which a host needs more time for than the GPU does. A
recording knows tensors by their addresses: inputs are copied to where they lay when it was made, and outputs are copied
away. It is made when a call of the same kind comes for the third time, and used if it gives what the call itself gave;
a call that cannot be recorded (it waits for the GPU, say) is done as before, and the log says so once. On CPUs, and
with the environment variable BAT_DIST_CUDA_GRAPHS=0, every call is simply done.
"""

import logging
import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

SWITCH = "BAT_DIST_CUDA_GRAPHS"
CALLS_BEFORE = 2  # of a kind, before one is recorded: libraries load and choose their kernels in them
MOST = 64  # recordings of one network; each holds some megabytes
TOLERANCE = 1e-3  # between a recording's outputs and those of the call: kernels may be others, results may not

Tensors = tuple[Tensor, ...]
Replay = Callable[[], object]

log = logging.getLogger(__name__)


class Recordings:
    """The recordings of calls that belong together: of one network, or of one training.

    state: the tensors that a call changes, for recordings of calls that do more than return something.
    """

    def __init__(self, state: Callable[[], Sequence[Tensor]] = lambda: ()) -> None:
        self._state = state
        self._calls: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recording] = {}
        self._refused = False

    def __call__(self, kind: Hashable, function: Callable[..., Tensors], *inputs: Tensor) -> Tensors:
        """`function(*inputs)`, recorded or not; the outputs are the caller's own.

        kind: all that decides what the function does, its precision too, beside its inputs and the tensors that it
        reads or changes, which must stay where they are in memory.
        """
        if self._refused or not is_worthwhile(inputs):
            return function(*inputs)
        kind = (kind, *((tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs))
        if recorded := self._recorded.get(kind):
            return recorded(inputs)
        self._calls[kind] = self._calls.get(kind, 0) + 1
        if self._calls[kind] <= CALLS_BEFORE or len(self._recorded) == MOST:
            return function(*inputs)
        return self._record(kind, function, inputs)

    def _record(self, kind: Hashable, function: Callable[..., Tensors], inputs: Tensors) -> Tensors:
        state = self._state()
        before = _copies(state)
        outputs = function(*inputs)
        after = _copies(state)
        try:
            recording = _Recording(function, inputs)
            _put(before, state)
            found = recording(inputs)
            if not _agree((*found, *state), (*outputs, *after)):
                raise RuntimeError("replayed, it gave something else")
            self._recorded[kind] = recording
        except Exception as error:  # whatever a driver, a library or a network of others has against it
            self._refused = True
            self._recorded.clear()
            log.warning("no CUDA graphs here, which costs speed alone: %s", str(error).partition("\n")[0])
        _put(after, state)
        return outputs


class _Recording:
    """One recorded call."""

    def __init__(self, function: Callable[..., Tensors], inputs: Tensors) -> None:
        self._inputs = tuple(tensor.detach().clone() for tensor in inputs)
        self._replay, self._outputs = record(function, self._inputs)

    def __call__(self, inputs: Tensors) -> Tensors:
        _put(inputs, self._inputs)
        self._replay()
        return tuple(output.clone() for output in self._outputs)


_OF_NETWORKS: "WeakKeyDictionary[nn.Module, Recordings]" = WeakKeyDictionary()


def record_calls_of(network: nn.Module) -> nn.Module:
    """Allow recordings of what the network says in eval mode, and return it.

    For networks that say the same when asked again: a recording would repeat what another network draws or counts.
    """
    _OF_NETWORKS.setdefault(network, Recordings())
    return network


def recordings_of(network: nn.Module) -> Recordings | None:
    """The recordings of calls of a network, which go when it goes; None if they are not allowed."""
    return _OF_NETWORKS.get(network)


def addresses(network: nn.Module) -> Hashable:
    """Where the network's weights and buffers lie: part of a kind, since a recording reads them there."""
    return tuple(tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers()))


def padded_size(size: int) -> int:
    """The next size of a batch of which recordings are made: eight for each doubling, so that few do for all."""
    step = max(1, 1 << max(0, (size - 1).bit_length() - 4))
    return -(-size // step) * step


def padded(tensor: Tensor, size: int) -> Tensor:
    """The tensor with rows of zeros behind its own, `size` in all."""
    if len(tensor) == size:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(size - len(tensor), *tensor.shape[1:])])


def is_worthwhile(inputs: Tensors) -> bool:
    """Are these tensors of a GPU, on which calls may be recorded?"""
    on_gpu = bool(inputs) and inputs[0].is_cuda
    return on_gpu and os.environ.get(SWITCH) != "0" and not torch.cuda.is_current_stream_capturing()


def record(function: Callable[..., Tensors], inputs: Tensors) -> tuple[Replay, Tensors]:
    """Record the call without doing it; what replays it, and the tensors in which its outputs are then."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):  # other threads may use the GPU
        outputs = function(*inputs)
    return graph.replay, outputs


@cache
def _pool() -> Any:
    """The memory of all recordings of this process: none of them needs what another has left there."""
    return torch.cuda.graph_pool_handle()


def _copies(tensors: Sequence[Tensor]) -> Tensors:
    return tuple(tensor.detach().clone() for tensor in tensors)


@torch.no_grad()
def _put(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    for value, tensor in zip(values, into, strict=True):
        tensor.copy_(value)


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(
        torch.allclose(a.double(), b.double(), rtol=TOLERANCE, atol=TOLERANCE * float(b.abs().max()), equal_nan=True)
        for a, b in zip(found, expected, strict=True)
    )
