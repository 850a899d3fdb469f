"""What part of a GPU a process takes for its own."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bat_dist.workers.share import gpu_share


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
    assert gpu_share() == share


def test_elsewhere_a_process_has_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    a_ray(monkeypatch, {"GPU": 0.25}, mode=0)
    assert gpu_share() == 1
    a_ray(monkeypatch, {"GPU": 0.25}, up=False)
    assert gpu_share() == 1
    monkeypatch.delitem(sys.modules, "ray")
    assert gpu_share() == 1
