"""The golden numbers with every tensor on the GPU: losses, attacks, whole steps; fp64, and losses in fp32 too."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")]
ROOT = Path(__file__).parents[2]
GOLDEN = [
    "tests/methods/test_golden_losses.py",
    "tests/methods/test_golden_gairat.py",
    "tests/methods/test_golden_bat.py",
    "tests/methods/test_golden_train_steps.py",
    "tests/attacks/test_golden_attacks.py",
]
PROGRAM = """
import sys, pytest, torch
torch.set_default_device(sys.argv[1])  # before the modules are loaded, which hold tensors
sys.exit(pytest.main([*sys.argv[2:], "-q", "--noconftest", "-p", "no:cacheprovider"]))
"""


def run(device: str, *files: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, device, *files], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


def test_golden_numbers() -> None:
    found = run("cuda", *GOLDEN)
    assert found.returncode == 0, found.stdout[-5000:]
