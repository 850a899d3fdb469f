"""Memory that is freed and kept: the kernel is asked for fewer pages, and results are the same."""

import json
import os
import subprocess
import sys

import pytest

from bat_dist.training.freed_memory import SWITCH

# Blocks of 40 MB, as activations of a batch are, a pass of a network, and one block that is not to be kept.
WORK = """
import json, resource
import torch
from bat_dist.models.build import build
from bat_dist.training.freed_memory import keep_freed_memory

keep_freed_memory()
torch.set_num_threads(1)

def faults_of(number):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(number):
        torch.ones(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

torch.manual_seed(0)
logits = build("resnet9-w4", 10, mean=(0.5,) * 3, std=(0.25,) * 3)(torch.rand(8, 3, 32, 32))
faults_of(3)
faults = faults_of(5)
low, large = resident(), torch.ones(100 * 2**20)
high = resident()
del large
print(json.dumps({"faults": faults, "sum": logits.sum().item(), "taken": high - low, "returned": high - resident()}))
"""


def run(**environment: str) -> dict[str, float]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", WORK]
    done = subprocess.run(command, env={**given, **environment}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_blocks_are_kept_but_large_ones_and_results_are_the_same() -> None:
    kept, as_usual = run(), run(**{SWITCH: "0"})
    assert kept["faults"] < as_usual["faults"] / 10
    assert kept["sum"] == as_usual["sum"]
    assert kept["returned"] > 0.9 * kept["taken"] > 300e6
    users_own = run(MALLOC_MMAP_THRESHOLD_="65536")
    assert users_own["faults"] > as_usual["faults"] / 2
