"""An exception of a GPU that is full is told from one of a GPU that is broken, whoever raised it."""

import ctypes
from importlib.util import find_spec
from pathlib import Path

import pytest
import ray.exceptions as rx
import torch
import torch.distributed as dist

from bat_dist.errors import RunError, is_gpu_broken, is_gpu_full
from tests.helpers.gpu_errors import BROKEN, FULL, NEITHER

CLASSES = {
    **{cls.__name__: cls for cls in (RuntimeError, ValueError, MemoryError, dist.DistBackendError)},
    **{cls.__name__: cls for cls in (torch.OutOfMemoryError, torch.AcceleratorError)},
}


def caught(kind: str, message: str) -> Exception:
    return CLASSES[kind](message)


def after(first: Exception, second: Exception, *, cause: bool) -> Exception:
    """The second error, raised from the first or while it was handled."""
    second.__cause__, second.__context__ = (first if cause else None), first
    return second


@pytest.mark.parametrize(("kind", "message"), FULL)
def test_a_full_gpu_by_whoever_asked_for_memory(kind: str, message: str) -> None:
    error = caught(kind, message)
    assert is_gpu_full(error)
    assert not is_gpu_broken(error)
    for cause in (True, False):
        assert is_gpu_full(after(error, RunError("trial failed"), cause=cause))


@pytest.mark.parametrize(("kind", "message"), BROKEN)
def test_a_broken_gpu(kind: str, message: str) -> None:
    for error in (caught(kind, message), after(caught(kind, message), RunError("trial failed"), cause=True)):
        assert is_gpu_broken(error)
        assert not is_gpu_full(error)


@pytest.mark.parametrize(("kind", "message"), NEITHER)
def test_what_says_nothing_of_the_gpus_memory(kind: str, message: str) -> None:
    error = caught(kind, message)
    assert not is_gpu_full(error)
    assert not is_gpu_broken(error)


def test_a_machine_without_memory_is_no_full_gpu() -> None:
    assert not is_gpu_full(rx.OutOfMemoryError("Task was killed due to the node running low on memory"))


def test_a_gpu_that_broke_is_broken_even_if_it_was_full_too() -> None:
    full, broken = caught(*FULL[2]), caught(*BROKEN[0])
    for error in (after(full, broken, cause=True), after(broken, full, cause=False)):
        assert is_gpu_broken(error)
        assert not is_gpu_full(error)


def text_of(library: str, function: str, status: int) -> str:
    """What a library of CUDA calls a status; skips the test without it, as on Macs."""
    spec = find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(path for folder in folders for path in Path(folder).glob(f"*/lib/lib{library}.so.*"))
    if not found:
        pytest.skip(f"no {library} here")
    ask = getattr(ctypes.CDLL(str(found[0])), function)
    ask.restype = ctypes.c_char_p
    return ask(status).decode()


@pytest.mark.parametrize(
    ("library", "function", "status", "is_full"),
    [
        ("cudart", "cudaGetErrorString", 2, True),  # cudaErrorMemoryAllocation
        ("cudart", "cudaGetErrorString", 214, False),  # cudaErrorECCUncorrectable
        ("cudart", "cudaGetErrorString", 700, False),  # cudaErrorIllegalAddress
        ("cudnn", "cudnnGetErrorString", 4004, True),
        ("cudnn", "cudnnGetErrorString", 4000, False),  # any internal error
    ],
)
def test_the_libraries_themselves_say_what_is_looked_for(
    library: str, function: str, status: int, is_full: bool
) -> None:
    assert is_gpu_full(RuntimeError(f"CUDA error: {text_of(library, function, status)}")) == is_full
