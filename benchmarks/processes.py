"""Whole programs: how long they take to start, and what a sweep costs over a loop of trainings."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measurement import Context, Quantities, Sides
from benchmarks.start_time import STARTS, cpu_seconds

ROOT = Path(__file__).parents[1]
BAT_DIST = str(Path(sys.executable).with_name("bat-dist"))
SLOTS = 2
BASE = {
    **{"method": "trades", "dataset": "digits", "arch": "resnet9-w8", "loader": "memory", "recipe": "fast"},
    **{"batch_size": 64, "num_steps": 10, "precision": "fp32"},
}


@contextmanager
def starts(context: Context) -> Iterator[Sides]:
    """CPU seconds of new processes beyond those of a bare Python."""
    names = ["import torch", "import bat_dist", "bat-dist memorize --help", "bat-dist train --help"]

    def side(name: str, number: int) -> Quantities:
        both = [cpu_seconds(code, ROOT, times=1) for code in ("pass", STARTS[name])]
        bare, own = (seconds if seconds is not None else float("nan") for seconds in both)
        return {"seconds": max(own - bare, 1e-3)}  # the clock's step is 10 ms

    yield {name: partial(side, name) for name in names}


@contextmanager
def sweep(context: Context) -> Iterator[Sides]:
    """Four trainings, two at a time, one thread each: by `bat-dist tune`, and each by `bat-dist train`."""
    epochs, points = context.pick(12, 2, 1), context.pick(4, 2, 2)
    os.environ["OMP_NUM_THREADS"] = "1"

    def tune(place: str) -> float:
        """Seconds of the sweep."""
        config = Path(place) / "sweep.yaml"
        space = {"beta": [float(number + 1) for number in range(points)]}
        config.write_text(yaml.safe_dump({"base": {**BASE, "epochs": epochs}, "space": space}))
        start = time.monotonic()
        bat_dist(["tune", "--config", str(config), "--out", f"{place}/sweep", "--test_attacks", "none"])
        return time.monotonic() - start

    def swept(number: int) -> Quantities:
        with tempfile.TemporaryDirectory() as place:
            whole = tune(place)
            runs = [json.loads(file.read_text())["seconds"] for file in Path(place).glob("sweep/runs/*/*/run.json")]
        return {"seconds": whole, "epochs": sum(runs) / SLOTS}

    def in_a_loop(number: int) -> None:
        with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(SLOTS) as pool:
            betas = range(1, points + 1)
            settings = [word for name, value in BASE.items() for word in (f"--{name}", str(value))]
            words = ["train", *settings, "--epochs", str(epochs)]
            list(pool.map(bat_dist, [[*words, "--beta", str(beta), "--out", f"{place}/{beta}"] for beta in betas]))

    yield {"bat-dist tune": swept, "bat-dist train": in_a_loop}


def bat_dist(words: list[str]) -> None:
    subprocess.run([BAT_DIST, *words], check=True, capture_output=True)
