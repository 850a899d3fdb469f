"""On a real GPU: a worker's limit holds, and MPS, where it can be had, takes a process (not yet run on one)."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bat_dist.workers import mps

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")]

LIMITED = """
import torch
from bat_dist.errors import is_gpu_broken, is_gpu_full
from bat_dist.workers.gpu_share import keep_to_part
keep_to_part(0.25)
total = torch.cuda.get_device_properties(0).total_memory
torch.empty(int(0.15 * total), dtype=torch.uint8, device="cuda")
torch.cuda.empty_cache()
try:
    torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda")
except Exception as error:
    print(is_gpu_full(error), is_gpu_broken(error), float(torch.ones(8, device="cuda").sum()))
"""
JOINED = """
import os, torch
from bat_dist.workers import mps
mps.join()
print(mps.PIPES in os.environ, float(torch.ones(8, device="cuda").sum()))
"""


def said(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_what_is_beyond_a_workers_part_is_refused_and_it_goes_on() -> None:
    assert said(LIMITED) == "True False 8.0"


def test_a_process_computes_through_mps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(mps.SWITCH, str(tmp_path / "mps"))
    with caplog.at_level(logging.INFO):
        started = mps.start()
    if not started:
        pytest.skip(f"no MPS here: {caplog.text.strip() or os.environ.get(mps.PIPES, 'its programs are missing')}")
    try:
        assert said(JOINED) == "True 8.0"
    finally:
        mps.stop()
