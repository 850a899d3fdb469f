"""Where bf16 is emulated the user is told; where it is not, or was not asked for, nobody is."""

import logging

import pytest
import torch

from bat_dist.training import precision
from bat_dist.training.precision import warn_if_emulated


@pytest.mark.parametrize(
    ("asked", "capability", "device", "warned"),
    [
        ("bf16", "AVX2", "cpu", True),
        ("bf16", "DEFAULT", "cpu", True),
        ("bf16", "AVX512", "cpu", False),
        ("bf16", "AVX2", "cuda", False),
        ("fp32", "AVX2", "cpu", False),
    ],
)
def test_emulated_bf16(asked, capability, device, warned, monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(precision, "default_device", lambda: torch.device(device))
    with caplog.at_level(logging.WARNING):
        warn_if_emulated(asked)
    assert ("--precision fp32" in caplog.text) == warned
