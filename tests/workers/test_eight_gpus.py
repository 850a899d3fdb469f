"""Quarters of a node's GPUs, in name only: four workers a GPU, each with its limit; a full GPU is not a broken one."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bat_dist.workers.gpu_share import OUTSIDE_ALLOCATOR
from bat_dist.workers.retry import MAX_ATTEMPTS
from tests.helpers.gpu_errors import FULL
from tests.helpers.waiting import PATIENCE
from tests.workers import eight_gpus as program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gpus") as place:  # a Ray of its own, which others do not see
        words, env = [sys.executable, program.__file__, f"{place}/seen"], {**os.environ, "RAY_TMPDIR": place}
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=env, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_four_workers_share_a_gpu_and_each_has_its_limit(seen: dict[str, Any]) -> None:
    guarded = seen["full"]["guarded"]
    assert {one["part"] for one in guarded} == {0.25 - OUTSIDE_ALLOCATOR / program.TOTAL}
    assert {one["device"] for one in guarded} == {0}
    assert Counter(one["gpu"] for one in guarded[: program.WORKERS]) == {"0": 4, "1": 4}


def test_a_full_gpu_costs_an_attempt_elsewhere_and_bans_nothing(seen: dict[str, Any]) -> None:
    full, last = seen["full"], program.UNITS - 1
    assert full["done"] == list(range(last))
    assert len(full["reasons"]) == len(FULL) + MAX_ATTEMPTS
    advice = "the GPU was full: let fewer workers share it (--gpus_per_trial or --gpus_per_worker; 1: a GPU of its own)"
    assert all(reason.startswith(advice) for reason in full["reasons"])
    [(unit, (reason, attempts))] = full["given_up"].items()
    assert (int(unit), attempts) == (last, MAX_ATTEMPTS)
    assert "CUDA error: out of memory" in reason
    assert not [text for text in full["warnings"] if "gets no work" in text or "does not answer" in text]
    assert len(full["guarded"]) >= program.WORKERS + 1  # processes that ended were replaced, with a limit too


def test_a_broken_gpu_is_given_up_with_all_its_quarters(seen: dict[str, Any]) -> None:
    broken = seen["broken"]
    assert broken["done"] == list(range(program.UNITS))
    assert not broken["end"]
    bans = [text for text in broken["warnings"] if "gets no work until the end of this run" in text]
    assert bans
    assert bans[0].startswith(f"GPU 0 of {socket.gethostname()} failed 3 processes in a row")
    assert {text.partition(" failed ")[0] for text in bans} == {f"GPU 0 of {socket.gethostname()}"}
    by_gpu = Counter(one["gpu"] for one in broken["guarded"])
    assert set(by_gpu) == {"0", "1"}
    assert by_gpu["1"] == 4
    assert 3 + 3 <= by_gpu["0"] <= 3 * 4  # three in a row, and those that were at work beside them


def test_where_no_gpu_works_the_run_ends(seen: dict[str, Any]) -> None:
    assert not seen["all broken"]["done"]
    assert seen["all broken"]["end"] == "no GPU that works is left: 3 processes in a row failed on each"
