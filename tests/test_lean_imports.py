"""Loading a network, attacking, training on one machine and evaluating need no library of the cluster or of reports.

And no process pays for libraries that it does not use: torch's compiler, SciPy's statistics and the like take seconds
of CPU time in every worker.
"""

import subprocess
import sys
from pathlib import Path

from tests.helpers.waiting import PATIENCE

LEAN = """
import importlib, sys
for name in ("ray", "ffcv", "zarr", "numcodecs", "optuna", "plotly", "pandas", "matplotlib"):
    sys.modules[name] = None  # any import of it raises ModuleNotFoundError
for room in ("attacks", "models", "methods", "data", "storage", "training", "evaluation", "api"):
    for file in sorted(__import__("pathlib").Path("bat_dist", room).glob("*.py")):
        importlib.import_module(f"bat_dist.{room}.{file.stem}")
"""

EXPENSIVE = ["torch._dynamo", "sympy", "torchvision", "sklearn", "scipy.stats", "pandas", "pyarrow", "ffcv", "ray"]
DATA = "--dataset digits --num_train 200 --num_test 100 --arch tinynet --precision fp32"
WORK = f"""
import sys
import torch
from bat_dist.data.datasets import load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.train import main
from bat_dist.training.recipe import RECIPES
from bat_dist.training.trial import TrialSettings, run_trial
words = "--method trades {DATA} --recipe fast --epochs 1 --num_steps 2 --ema 0.9"
assert main([*words.split(), "--out", sys.argv[1]]) == 0
settings = TrialSettings("tinynet", RECIPES["fast"], "fp32", 0.7, "uniform", 0)
data = load_dataset("digits", num_train=100, num_test=50)
loaders = {{f"{{name}}_loader": dataset_loader("auto", data, name) for name in ("train", "test")}}
run_trial(0, settings=settings, dataset=data, device=torch.device("cpu"), **loaders)
print([name for name in {EXPENSIVE} if name in sys.modules])
"""


def test_rooms_of_the_core_import_without_the_packages_of_extras():
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", LEAN], cwd=root, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_training_and_a_trial_import_nothing_expensive(tmp_path):
    done = subprocess.run([sys.executable, "-c", WORK, tmp_path], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr[-2000:]
