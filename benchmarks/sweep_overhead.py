"""What a sweep costs over its bare trainings: the same runs by `bat-dist tune`, and by `bat-dist train` two at a time.

    python benchmarks/sweep_overhead.py [--epochs 12] [--num_points 4]

The rival is what one would do without a sweep: a shell loop over `bat-dist train`, each run a process of its own that
has to import torch and load the data anew.  Digits, one thread a run; the epochs' own seconds are given beside.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

BAT_DIST = str(Path(sys.executable).with_name("bat-dist"))
SLOTS = 2
BASE = {
    **{"method": "trades", "dataset": "digits", "arch": "resnet9-w8", "loader": "memory", "recipe": "fast"},
    **{"batch_size": 64, "num_steps": 10, "precision": "fp32"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--num_points", type=int, default=4)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "sweep.yaml"
        betas = [float(number + 1) for number in range(asked.num_points)]
        config.write_text(yaml.safe_dump({"base": {**BASE, "epochs": asked.epochs}, "space": {"beta": betas}}))
        start = time.monotonic()
        run([BAT_DIST, "tune", "--config", str(config), "--out", f"{place}/sweep", "--test_attacks", "none"])
        swept = time.monotonic() - start
        start = time.monotonic()
        with ThreadPoolExecutor(SLOTS) as pool:
            for file in sorted(Path(place).glob("sweep/runs/*/*/config.yaml")):
                words = ["--config", str(file), "--out", f"{place}/alone/{file.parents[1].name}"]
                pool.submit(run, [BAT_DIST, "train", *words])
        bare = time.monotonic() - start
        places = {"tune": "sweep/runs/*/*", "train": "alone/*"}
        epochs = {name: seconds(Path(place), pattern) / SLOTS for name, pattern in places.items()}
        slots_busy = span(Path(place))
    print(f"{asked.num_points} runs of {asked.epochs} epochs, {SLOTS} at a time")
    print(f"bat-dist tune:          {swept:6.1f} s in all; epochs {epochs['tune']:.1f} s a slot")
    print(f"bat-dist train, a loop: {bare:6.1f} s in all; epochs {epochs['train']:.1f} s a slot")
    print(f"in all, tune over train: {swept / bare - 1:+.1%}")
    over = slots_busy / epochs["tune"] - 1
    print(
        f"tune, from the first run's beginning to the last one's end: {slots_busy:.0f} s, {over:+.1%} over its epochs"
    )


def run(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True)


def seconds(place: Path, pattern: str) -> float:
    return sum(json.loads(file.read_text())["seconds"] for file in place.glob(f"{pattern}/run.json"))


def span(place: Path) -> float:
    """Seconds from the first begun to the last ended run of the sweep, to a second."""
    runs = [json.loads(file.read_text()) for file in place.glob("sweep/runs/*/*/run.json")]
    at = {
        key: [time.mktime(time.strptime(run[key][:19], "%Y-%m-%dT%H:%M:%S")) for run in runs]
        for key in ("begun", "ended")
    }
    return max(at["ended"]) - min(at["begun"])


if __name__ == "__main__":
    main()
