"""The program as people run it: its numbers against a run, its words, bad input."""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bat_dist.data.datasets import load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.memorize import main as memorize
from bat_dist.plan import main
from bat_dist.planning import stopwatch
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.training import trial
from bat_dist.training.threads import torch_threads

DIGITS = shlex.split("--dataset digits --arch tinynet --precision fp32")
QUICK = [*DIGITS, "--seconds", "3"]


def number(text: str) -> float:
    """Of `4,605.86`, as a slow machine may have it."""
    return float(text.replace(",", ""))


def line_of(name: str, text: str) -> list[str]:
    """The cells of a line of the table."""
    found = re.search(rf"^{name}  .*$", text, flags=re.MULTILINE)
    assert found, text
    return re.split(r"  +", found[0])


@pytest.fixture
def seconds_of_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan and a trial count the seconds that this process computed, whatever else the machine does."""
    for module in (stopwatch, trial):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=time.process_time))


def test_the_prediction_holds(seconds_of_computing: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Four hundred trials are predicted, two of them are run, one after the other, as the plan measured."""
    assert main([*QUICK, "--num_trials", "400", "--num_seeds", "0"]) == 0
    predicted = 3600 * number(line_of("trials", capsys.readouterr().out)[2])
    asked = MemorizeSettings(dataset="digits", out="unused")
    settings = trial.TrialSettings("tinynet", asked.training, "fp32", asked.subset_ratio, asked.mask_plan, asked.seed)
    digits = load_dataset("digits")
    loaders = {f"{name}_loader": dataset_loader("memory", digits, name) for name in ("train", "test")}
    with torch_threads(asked.cpus_per_trial):
        rows = [
            trial.run_trial(number, settings=settings, dataset=digits, **loaders, device=torch.device("cpu"))
            for number in range(2)
        ]
    seconds = min(row["metrics"][1] for row in rows)
    assert 1 / 2.5 < predicted / (400 * seconds) < 2.5


def test_the_predicted_disk_holds(tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*DIGITS, "--num_trials", "12"]
    assert main([*options, "--num_seeds", "0", "--trial_epochs", "1", "--seconds", "0.1"]) == 0
    megabytes = re.search(r"([\d.]+) MB on disk", capsys.readouterr().out)
    assert memorize([*options, "--epochs", "1", "--loader", "memory", "--out", str(tmp_path)]) == 0
    real = sum(-(-path.stat().st_size // 4096) * 4096 for path in tmp_path.rglob("*") if path.is_file())
    assert megabytes
    assert 1 / 2 < 1e6 * float(megabytes[1]) / real < 2


def test_all_jobs_have_a_line_and_money(capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--num_trials 300 --methods pgd_at trades --num_seeds 2 --attacks clean autoattack --price 100 --currency EUR"
    )
    assert main([*QUICK, *shlex.split(options), "--num_steps", "3", "--workers", "4", "--robust_share", "0.3"]) == 0
    text = capsys.readouterr().out
    assert line_of("job", text) == ["job", "jobs", "worker-hours", "wall-clock", "disk", "EUR"]
    lines = {name: line_of(name, text) for name in ("trials", "train pgd_at", "train trades", "evaluate", "total")}
    assert [cells[1] for cells in lines.values()] == ["300", "2", "2", "4", "308"]
    for cells in lines.values():
        assert number(cells[5]) == pytest.approx(100 * number(cells[2]), rel=0.02, abs=0.01)
    hours = [number(cells[2]) for cells in lines.values()]
    assert sum(hours[:-1]) == pytest.approx(hours[-1], rel=0.02)
    assert re.search(r"CPU-core-hours|GPU-hours", text)
    assert re.search(r"hours ± <?\d+%, \d+:\d\d:\d\d with 4 at a time", text)
    assert "robust_share 0.3" in text
    assert "says nothing about another" in text
    assert re.search(r"PGD training step, 3 steps +[\d.,]+ images/s ± <?\d+% \(\d+ batches of 128\)", text)


def test_without_trainings_only_trials_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DIGITS, "--seconds", "0.5", "--num_trials", "2", "--num_seeds", "0"]) == 0
    text = capsys.readouterr().out
    assert line_of("total", text)[1] == "2"
    assert not re.search("PGD training|^train |^evaluate|robust_share|USD", text, flags=re.MULTILINE)


def test_smaller_batches_than_real_ones_are_owned_up_to(
    seconds_of_computing: None, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*DIGITS, "--num_trials", "2", "--num_seeds", "0", "--seconds"]
    assert main([*options, "0.0001"]) == 0
    assert "probably too high" in capsys.readouterr().out
    assert main([*options, "4"]) == 0
    assert "probably too high" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--arch tinynet", "dataset is required"),
        ("--dataset cifer10 --arch tinynet", "did you mean 'cifar10'?"),
        ("--dataset digits --arch tinynet --methods pgd", "did you mean pgd_at?"),
        ("--table 9", "table must be one of 1, 2, 3, 4, 5, 6"),
        ("--table 1 --epochs 3", "unknown option --epochs"),
        ("--dataset digits --arch tinynet --num_trials 0 --num_seeds 0", "nothing to plan"),
        ("--dataset digits --arch tinynet --attacks pgd-100", "there is no attack 'pgd-100'"),
        ("--dataset digits --arch tinynet --robust_share 1.5", "robust_share must be a number in [0, 1], got 1.5"),
        ("--dataset digits --arch tinynet --num_val 2000", "num_val must be less than the 1297 training samples"),
        ("--dataset digits --arch tinynet --subset_ratio 0.9999", "leaves nobody out"),
        ("--dataset cifar10 --arch tinynet --num_train 60000", "the smallest class has 5000"),
        ("--dataset cifar10 --arch tinynet --num_test 15", "num_test must be divisible by the 10 classes, got 15"),
        ("--dataset cifar10 --arch tinynet --num_classes 20", "num_classes must be at most 10"),
        ("--dataset cifar10 --arch tinynet --num_classes 5 --num_seeds 1", "autoattack need at least 10 classes"),
        ("--dataset image_folder --arch tinynet --num_train 9", "give data_dir, or num_test, num_classes, image_size"),
        ("--dataset image_folder --arch tinynet --data_dir nowhere", "nowhere"),
    ],
)
def test_bad_input_is_one_clear_message(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(options)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("error: ") == 1
    assert not printed.out


def test_planning_loads_no_ray_and_help_no_torch() -> None:
    code = (
        "import sys; from bat_dist.plan import main\n"
        "main(['--help']); assert not {'torch', 'numpy', 'ray'} & set(sys.modules)\n"
        "main('--dataset digits --arch tinynet --num_seeds 0 --seconds 0.1 --precision fp32'.split())\n"
        "assert 'torch' in sys.modules and 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
