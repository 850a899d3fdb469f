"""The file of the hardware: each kind once, over all runs of a folder; and who asks the driver of a GPU."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from bat_dist.storage.computed_on import HardwareLog, hardware_name, read_hardware
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import ComputedOn, cpu_name, driver_version, provenance
from bat_dist.training import precision
from bat_dist.training.precision import computed_on

CPU: ComputedOn = {"cpu": "a processor", "threads": 2}
GPU: ComputedOn = {**CPU, "gpu": "NVIDIA H100", "driver": "580.1", "cuda": "13.0", "cudnn": "9.19.0"}


@pytest.fixture(autouse=True)
def _ask_anew() -> None:
    driver_version.cache_clear()


def test_each_kind_stands_there_once_over_all_runs(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert read_hardware(folder, "trials") == []
    first = HardwareLog(folder, "trials")
    first.note([{"event": "started"}, {"event": "failed"}])
    assert not folder.exists(hardware_name("trials"))
    for one in (CPU, GPU, CPU):
        first.note([{"event": "started"}, {"event": "done", "computed_on": one}])
    HardwareLog(folder, "trials").add([GPU, {**GPU, "driver": "590"}])
    assert read_hardware(folder, "trials") == [CPU, GPU, {**GPU, "driver": "590"}]
    assert read_hardware(folder, "members") == []


def test_provenance_has_it_where_it_is_known() -> None:
    assert "computed_on" not in provenance()
    assert provenance([CPU, GPU]).get("computed_on") == [CPU, GPU]


def test_a_process_with_a_gpu_tells_all_of_it_but_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(words: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append((words[0], how["timeout"] <= 10))
        return subprocess.CompletedProcess(words, 0, b"580.159.04\n580.159.04\n")

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(precision, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    for _ in range(2):
        assert computed_on() == {
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "gpu": "NVIDIA H100 80GB HBM3",
            "driver": "580.159.04",
            "cuda": "13.0",
            "cudnn": "9.19.0",
        }
    assert asked == [("nvidia-smi", True)]  # once a process


def test_a_process_without_one_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "default_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(subprocess, "run", lambda *words, **how: pytest.fail("asked"))
    assert computed_on() == {"cpu": cpu_name(), "threads": torch.get_num_threads()}


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 10), subprocess.CalledProcessError(9, "")]
)
def test_a_driver_that_nobody_tells_is_left_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: Any, **how: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert driver_version() is None


@pytest.mark.parametrize("told", [b"", b"No devices were found\n", b"\xff\xfe"])
def test_what_is_no_version_is_left_out(told: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda words, **how: subprocess.CompletedProcess(words, 0, told))
    assert driver_version() is None
