"""`ray start` is run again while Ray says that its processes were too late, and for no other reason."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bat_dist.workers.start_again import START_ATTEMPTS, TOO_LATE
from tests.helpers.waiting import PATIENCE, until

RAY = """#!/usr/bin/env bash
echo "ray $*" >> calls
case "$1 $2" in
  "start late") [ "$(grep -c "^ray start" calls)" -gt "$LATE" ] || { echo "Exception: $TOO_LATE. Perhaps" >&2; exit 1; }
    sleep 3 & echo up ;;
  "start refused") echo "wrong token" >&2; exit 3 ;;
  "start --block") trap "echo ended >> calls; exit 0" TERM; echo ready >> calls; while :; do sleep 0.05; done ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a `ray` that is late as often as LATE says, and leaves a process that keeps what it inherited."""
    (tmp_path / "ray").write_text(RAY)
    (tmp_path / "ray").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TOO_LATE", TOO_LATE)
    return tmp_path


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bat_dist.workers.start_again", "ray", "start", *words]
    with (folder / "said").open("w") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, text=True, cwd=folder, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


@pytest.mark.parametrize("late", [0, 2, START_ATTEMPTS])
def test_it_is_tried_again_while_ray_is_too_late(folder: Path, late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATE", str(late))
    code = start(folder, "late").wait(timeout=PATIENCE)
    assert code == (late == START_ATTEMPTS)
    both = ["ray start late", "ray stop --force"]
    assert calls(folder) == late * both + [both[0]] * (late < START_ATTEMPTS)
    said = (folder / "said").read_text()
    assert said.count(TOO_LATE) == said.count("bat_dist: Ray's processes did not start in time (start ") == late


def test_what_is_refused_is_not_tried_again(folder: Path) -> None:
    assert start(folder, "refused").wait(timeout=PATIENCE) == 3
    assert calls(folder) == ["ray start refused"]
    assert (folder / "said").read_text() == "wrong token\n"


def test_a_node_that_is_told_to_end_ends_cleanly(folder: Path) -> None:
    process = start(folder, "--block")
    until(lambda: "ready" in calls(folder), what="ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE) == 0
    assert calls(folder)[-1] == "ended"
