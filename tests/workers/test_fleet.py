"""Many small nodes, of which one dies every few seconds: all is done once, and the driver does not grow."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.waiting import PATIENCE

FLEET = Path(__file__).with_name("fleet.py")


@pytest.mark.slow
def test_many_trials_on_a_fleet_that_loses_a_node_every_few_seconds() -> None:
    """docs/reliability.md has the numbers of a thousand trials, by the same program."""
    words = [sys.executable, FLEET, "120", "4", "5", "--least_deaths", "3"]
    with tempfile.TemporaryDirectory(
        prefix="fleet"
    ) as place:  # or other programs would take it for the cluster at hand
        env = {**os.environ, "RAY_TMPDIR": place}
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["once"]
    assert seen["wrong"] == []
    assert seen["deaths"] >= 3
    memory, handles, threads = zip(*seen["samples"], strict=True)
    quarter = len(memory) // 4  # until then workers start and libraries load
    assert max(memory[quarter:]) - memory[quarter] < 30 * 2**20
    assert max(handles[quarter:]) - handles[quarter] < 30
    assert max(threads[quarter:]) - threads[quarter] < 10
    print({key: value for key, value in seen.items() if key != "samples"}, seen["samples"][:: max(1, quarter)])
