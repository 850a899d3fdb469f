"""A GPU that fails three processes in a row gets no more work; its last process is held, and so is the GPU."""

import logging

import pytest

from bat_dist.workers.quarantine import GpuQuarantine
from bat_dist.workers.running import WorkerPlace, WorkerSlot


def slot(pid: int = 1, *, node: str = "node", host: str = "here", gpus: str = "0") -> WorkerSlot:
    return WorkerSlot(f"actor {pid}", None, WorkerPlace(node, host, pid, gpus))


def test_the_third_process_in_a_row_is_held(caplog: pytest.LogCaptureFixture) -> None:
    quarantine = GpuQuarantine()
    with caplog.at_level(logging.WARNING):
        assert [quarantine.failed(slot(pid)) for pid in (1, 2, 3)] == [False, False, True]
    assert [held.place.pid for held in quarantine.held] == [3]
    assert caplog.messages[0] == "process 1 on here ends: its GPU does not answer it any more"
    text = "GPU 0 of here failed 3 processes in a row: it gets no work until the end of this run"
    assert caplog.messages[2:] == [text]


def test_failures_with_work_done_between_them_are_not_in_a_row() -> None:
    quarantine = GpuQuarantine()
    for pid in range(10):
        assert not quarantine.failed(slot(pid))
        assert not quarantine.failed(slot(pid))
        quarantine.works(slot().place)
    assert quarantine.held == []


def test_each_gpu_of_each_host_counts_for_itself() -> None:
    quarantine = GpuQuarantine()
    others = [slot(host="there"), slot(gpus="1"), slot(gpus="0,1")]
    for other in (*others, *others):
        assert not quarantine.failed(other)
        quarantine.failed(slot())
    quarantine.works(slot(gpus="2").place)
    assert [held.place.gpus for held in quarantine.held] == 4 * ["0"]  # from its third failure on


def test_processes_that_shared_a_gpu_when_it_failed_count_once() -> None:
    """Under MPS the fault of one process ends all on its GPU; a GPU that is broken fails those that come after, too."""
    quarantine = GpuQuarantine()
    for generation in (1, 2):
        for sharing in [slot(4 * generation + pid) for pid in range(4)]:
            assert not quarantine.failed(sharing), generation
    last = [slot(12 + pid) for pid in range(4)]
    assert [quarantine.failed(sharing) for sharing in last] == 4 * [True]  # all of its parts are out of use
    assert [held.place.pid for held in quarantine.held] == [12, 13, 14, 15]


def test_what_went_with_its_machine_is_held_no_longer() -> None:
    quarantine = GpuQuarantine()
    for node in ("gone", "alive"):
        for _ in range(3):
            quarantine.failed(slot(node=node, host=node))
    quarantine.keep({"alive", "another"})
    assert [held.place.host for held in quarantine.held] == ["alive"]
