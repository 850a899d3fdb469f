"""Workers that share a GPU keep to their part of its memory, which leaves room for what torch does not count."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bat_dist.workers import gpu_share
from bat_dist.workers.gpu_share import OUTSIDE_ALLOCATOR, allocator_part, gpu_full, keep_to_part, part_of_gpu

GIB = 2**30


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """What torch was told of its part, on a GPU of 80 GiB that is not there; MPS must have been joined before."""
    told: list[tuple[float, int]] = []
    joined: list[bool] = []

    def limit(part: float, device: int) -> None:
        assert joined
        told.append((part, device))

    monkeypatch.setattr(gpu_share.mps, "join", lambda: joined.append(True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(joined) or pytest.fail("CUDA was used before MPS"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limit)
    return told


def test_a_quarter_of_80_gib_is_20_less_the_room_for_a_context(limits: list[tuple[float, int]]) -> None:
    keep_to_part(0.25)
    [(part, device)] = limits
    assert part * 80 * GIB == pytest.approx(20 * GIB - OUTSIDE_ALLOCATOR)
    assert device == 0


@pytest.mark.parametrize("gpus", [0.0, 1.0, 2.0])
def test_a_gpu_of_ones_own_has_no_limit(limits: list[tuple[float, int]], gpus: float) -> None:
    keep_to_part(gpus)
    assert limits == []


@pytest.mark.parametrize("total", [4 * GIB, 15 * GIB, 80 * GIB])
@pytest.mark.parametrize("workers", [2, 3, 4, 8, 10])
def test_all_parts_fit_together_and_none_is_nothing(workers: int, total: int) -> None:
    part = allocator_part(1 / workers, total)
    assert 0.5 / workers <= part < 1 / workers
    room = (1 / workers - part) * total  # of each worker, for its context
    assert room == pytest.approx(min(OUTSIDE_ALLOCATOR, total / workers / 2))


def test_a_machine_that_lost_its_gpu_is_not_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_share.mps, "join", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    keep_to_part(0.5)


def test_what_is_said_of_a_full_gpu_leads_on() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    shared, own = gpu_full(error, 0.25), gpu_full(error, 1)
    assert shared == (
        "the GPU was full: let fewer workers share it (--gpus_per_trial or --gpus_per_worker; 1: a GPU of its own), or "
        "lower the batch size (OutOfMemoryError: CUDA out of memory)"
    )
    assert own == (
        "the GPU was full: end what else uses it, or lower the batch size (OutOfMemoryError: CUDA out of memory)"
    )
    assert gpu_full(RuntimeError(shared), 1) == shared


# --- what part of a GPU a process was given


def a_ray(monkeypatch: pytest.MonkeyPatch, assigned: dict[str, float], *, mode: int = 1, up: bool = True) -> None:
    context = SimpleNamespace(worker=SimpleNamespace(mode=mode), get_assigned_resources=lambda: assigned)
    ray: Any = SimpleNamespace(WORKER_MODE=1, is_initialized=lambda: up, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)


@pytest.mark.parametrize(
    ("assigned", "share"), [({"CPU": 1.0, "GPU": 0.25}, 0.25), ({"GPU": 1.0}, 1.0), ({"GPU": 2.0}, 1.0), ({}, 1.0)]
)
def test_a_worker_of_ray_has_what_it_was_given(
    assigned: dict[str, float], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_ray(monkeypatch, assigned)
    assert part_of_gpu() == share


def test_elsewhere_a_process_has_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    a_ray(monkeypatch, {"GPU": 0.25}, mode=0)
    assert part_of_gpu() == 1
    a_ray(monkeypatch, {"GPU": 0.25}, up=False)
    assert part_of_gpu() == 1
    monkeypatch.delitem(sys.modules, "ray")
    assert part_of_gpu() == 1
