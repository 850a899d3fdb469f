"""Loading a network, attacking, training on one machine and evaluating need no library of the cluster or of reports."""

import subprocess
import sys
from pathlib import Path

LEAN = """
import importlib, sys
for name in ("ray", "ffcv", "zarr", "numcodecs", "optuna", "plotly"):
    sys.modules[name] = None  # any import of it raises ModuleNotFoundError
for room in ("attacks", "models", "methods", "data", "storage", "training", "evaluation"):
    for file in sorted(__import__("pathlib").Path("bat_dist", room).glob("*.py")):
        importlib.import_module(f"bat_dist.{room}.{file.stem}")
"""


def test_rooms_below_the_sweep_import_without_ray_ffcv_zarr_optuna_and_plotly():
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", LEAN], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
