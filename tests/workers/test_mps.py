"""NVIDIA's MPS is started where it can be, joined by workers that share a GPU, and stopped by whoever started it.

nvidia-smi and nvidia-cuda-mps-control are scripts here, which say what those on a machine with GPUs say, and note how
they were called.  No real daemon was ever started by these tests.
"""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bat_dist.workers import mps
from bat_dist.workers.resources import Resources, worker_resources

SMI = """#!/bin/sh
[ "$*" = "--query-gpu=compute_mode,mig.mode.current --format=csv,noheader" ] || exit 6
cat "$FAKE/modes"
"""
CONTROL = """#!/bin/sh
pipes=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -d ]; then
  echo "start $pipes logs $CUDA_MPS_LOG_DIRECTORY gpus ${CUDA_VISIBLE_DEVICES-all}" >> "$FAKE/calls"
  [ ! -e "$FAKE/fails" ] || exit 1
  touch "$pipes/control"
else
  read -r word
  echo "$word $pipes" >> "$FAKE/calls"
  [ -e "$pipes/control" ] || exit 1
  [ "$word" != quit ] || rm "$pipes/control"
fi
"""


class FakeMachine:
    """A machine of GPUs in these modes (compute mode, MIG), as `nvidia-smi` prints them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pipes = folder, folder / "pipes"

    def modes(self, *lines: str) -> None:
        (self.folder / "modes").write_text("".join(f"{line}\n" for line in lines))

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().replace(str(self.folder), "").splitlines() if file.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """Two GPUs, NVIDIA's programs, and no daemon yet; a context can be made through one that runs."""
    machine = FakeMachine(tmp_path)
    machine.modes("Default, Disabled", "Default, [N/A]")
    for name, script in (("nvidia-smi", SMI), (mps.CONTROL, CONTROL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in (mps.SWITCH, mps.PIPES, mps.LOGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(mps, "DEFAULT_PIPES", str(tmp_path / "default"))
    monkeypatch.setattr(mps, "pipes", lambda: machine.pipes)
    monkeypatch.setattr(mps, "_works", lambda folder: (folder / "control").exists())
    monkeypatch.setattr(mps.time, "sleep", lambda seconds: None)
    return machine


def test_it_is_started_with_all_gpus_and_stopped_once(machine: FakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert mps.start()
    assert machine.calls == ["start /pipes logs /pipes gpus all"]
    assert machine.pipes.stat().st_mode & 0o777 == 0o700
    assert caplog.messages == ["started MPS: workers that share a GPU run side by side (BAT_DIST_MPS=0: by turns)"]
    mps.stop()
    mps.stop()
    assert machine.calls[1:] == ["quit /pipes"]


def test_one_that_runs_is_left_alone_and_not_stopped(machine: FakeMachine) -> None:
    for place in (machine.pipes, machine.folder / "default"):
        place.mkdir()
        (place / "control").touch()
        assert not mps.start()
        mps.stop()
        (place / "control").unlink()
    assert {line.partition(" ")[0] for line in machine.calls} == {mps.SERVERS}
    assert mps.start()  # what is left of it is no obstacle
    mps.stop()


@pytest.mark.parametrize(
    ("modes", "why"),
    [
        (["Default, Disabled", "Prohibited, Disabled"], "the compute mode of a GPU is Prohibited"),
        (["Default, Enabled"], r"a GPU is partitioned (MIG)"),
        ([], "nvidia-smi shows no GPU (0)"),
    ],
)
def test_where_it_must_not_be_a_line_says_why(
    machine: FakeMachine, caplog: pytest.LogCaptureFixture, modes: list[str], why: str
) -> None:
    machine.modes(*modes)
    with caplog.at_level(logging.INFO):
        assert not mps.start()
    assert caplog.messages == [f"GPUs are shared without MPS: {why}"]
    assert machine.calls == []


def test_exclusive_processes_share_a_gpu_through_it(machine: FakeMachine) -> None:
    machine.modes("Exclusive_Process, Disabled")
    assert mps.start()
    mps.stop()


def test_one_that_does_not_start_fails_nothing(machine: FakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    (machine.folder / "fails").touch()
    with caplog.at_level(logging.INFO):
        assert not mps.start()
    [message] = caplog.messages
    assert message.startswith("GPUs are shared without MPS: nvidia-cuda-mps-control -d ended with exit code 1; its log")


def test_one_that_takes_nobody_is_stopped_at_once(
    machine: FakeMachine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mps, "_works", lambda folder: False)
    with caplog.at_level(logging.INFO):
        assert not mps.start()
    assert "no context could be made through it" in caplog.text
    assert [line.split()[0] for line in machine.calls] == ["start", "quit"]


@pytest.mark.parametrize("missing", ["nvidia-smi", mps.CONTROL, mps.SWITCH, mps.PIPES])
def test_it_is_left_out_in_silence(
    machine: FakeMachine, missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if missing in (mps.SWITCH, mps.PIPES):  # not wanted, or there is one of the user's own
        monkeypatch.setenv(missing, "0")
    else:
        (machine.folder / "bin" / missing).unlink()
        monkeypatch.setenv("PATH", str(machine.folder / "bin"))
    with caplog.at_level(logging.INFO):
        assert not mps.start()
    assert (caplog.messages, machine.calls) == ([], [])


def test_a_worker_joins_the_daemon_of_its_machine_and_only_if_it_answers(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mps.join()  # there is none
    assert mps.PIPES not in os.environ
    assert mps.start()
    answers = iter([False, False, True])
    monkeypatch.setattr(mps, "_works", lambda folder: next(answers))
    monkeypatch.setenv(mps.SWITCH, "0")
    mps.join()
    assert mps.PIPES not in os.environ
    monkeypatch.setenv(mps.SWITCH, "1")
    mps.join()
    assert os.environ[mps.PIPES] == str(machine.pipes)
    monkeypatch.delenv(mps.PIPES)
    monkeypatch.setattr(mps, "_works", lambda folder: False)
    mps.join()
    assert mps.PIPES not in os.environ
    assert "does not take this process: it shares its GPU by turns" in caplog.text
    mps.stop()


def test_a_folder_of_somebody_else_is_not_taken(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.pipes.mkdir()
    monkeypatch.setattr(mps.os, "getuid", lambda: machine.pipes.stat().st_uid + 1)
    assert not mps.start()
    assert machine.calls == []
    (machine.pipes / "control").touch()
    mps.join()
    assert mps.PIPES not in os.environ


def test_each_user_has_a_folder_with_a_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for switch in ("", "1"):
        monkeypatch.setenv(mps.SWITCH, switch)
        assert mps.pipes() == Path(f"/tmp/bat-dist-mps-{os.getuid()}")
    monkeypatch.setenv(mps.SWITCH, "/elsewhere")
    assert mps.pipes() == Path("/elsewhere")


@pytest.mark.parametrize(("gpus", "wait", "started"), [(0.25, None, 1), (1.0, None, 0), (0.0, None, 0), (0.25, 1.0, 0)])
def test_a_private_ray_starts_it_where_workers_share_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: float, wait: float | None, started: int
) -> None:
    """On a cluster its nodes have it from the cluster's files."""
    from bat_dist.workers import resources

    starts: list[bool] = []
    monkeypatch.setattr(resources, "present_nodes", lambda: [{"CPU": 8.0, "GPU": 2.0}])
    monkeypatch.setattr(mps, "start", lambda: starts.append(True))
    assert worker_resources(1, gpus, of="trial", wait_minutes=wait) == Resources(1, gpus)
    assert len(starts) == started


def test_a_nodes_command_follows_it(machine: FakeMachine) -> None:
    """As the files of cluster/ call it."""
    machine.modes("Prohibited, Disabled")
    words = [sys.executable, "-m", "bat_dist.workers.mps", "echo", "ray", "start"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ray start\n")
    assert done.stderr == "bat_dist: GPUs are shared without MPS: the compute mode of a GPU is Prohibited\n"


CUDA = """
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return flags || strcmp(getenv("CUDA_MPS_PIPE_DIRECTORY"), "/takes/all"); }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return device != 7; }
"""


def test_a_context_is_tried_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a driver that refuses whoever comes through another folder."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler here")
    (tmp_path / "cuda.c").write_text(CUDA)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "cuda.c"], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert mps._works(Path("/takes/all"))
    assert not mps._works(Path("/takes/nobody"))
