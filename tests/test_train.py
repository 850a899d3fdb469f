"""The training program: in this process and on Ray, killed and resumed, and what it says to bad input."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from bat_dist.artifacts.checkpoints import load_checkpoint, load_model
from bat_dist.data.datasets import load_dataset
from bat_dist.storage.provenance import cpu_name
from bat_dist.train import main
from tests.helpers.options import last_ones
from tests.helpers.waiting import PATIENCE, until

SMALL = ["--dataset", "digits", "--num_train", "300", "--num_test", "100", "--arch", "tinynet", "--loader", "memory"]
QUICK = [*SMALL, "--recipe", "fast", "--epochs", "2", "--batch_size", "32", "--num_steps", "2", "--precision", "fp32"]


def run(out: Path, *options: str, method: str = "pgd_at") -> int:
    return main(last_ones([*QUICK, "--method", method, "--out", str(out), *options]))


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of the 300 digits, as `bat-dist memorize` writes them (made up, with two undefined)."""
    dataset = load_dataset("digits", num_train=300, num_test=100)
    mem = np.random.default_rng(0).random(300) * 0.4
    mem[:2] = np.nan
    path = tmp_path_factory.mktemp("scores") / "memorization.npz"
    np.savez(path, mem=mem, fingerprint=np.array(dataset.fingerprint))
    return path


def test_what_lies_in_the_folder_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: Path) -> None:
    assert run(tmp_path, "--scores", str(scores), "--alpha", "2", "--hyper", "tau=0.5", method="bat") == 0
    printed = capsys.readouterr().out
    assert "best by val_pgd" in printed
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        "last.safetensors",
        "best.safetensors",
        "history.csv",
        "config.yaml",
        "progress.json",
        "run.json",
        "curves.png",
        "curves.svg",
    }
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["finished"] is True
    assert told["identity"]["method_settings.tau"] == 0.5
    assert told["identity"]["method_settings.alpha"] == 2
    assert {"torch", "ray", "numpy"} <= told["versions"].keys()
    assert told["computed_on"] == [{"cpu": cpu_name(), "threads": 1}]
    header, *rows = (tmp_path / "history.csv").read_text().splitlines()
    assert "val_pgd_atypical" in header.split(",")
    assert len(rows) == 2
    model = load_model(str(tmp_path))
    assert not model.training
    images = torch.rand(3, 3, 8, 8)
    assert model(images).shape == (3, 10)
    assert load_checkpoint(str(tmp_path), "last").facts["epoch"] == 2
    # The same settings from the file it left give the same run again, to the last bit.
    again = tmp_path / "again"
    assert main(["--config", str(tmp_path / "config.yaml"), "--out", str(again)]) == 0
    assert (again / "last.safetensors").read_bytes() == (tmp_path / "last.safetensors").read_bytes()


def test_a_finished_run_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    first, before = capsys.readouterr().out, (tmp_path / "last.safetensors").stat().st_mtime_ns
    assert run(tmp_path) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "last.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "patt"], "there is no method 'patt'"),
        (["--method", "pgdat"], "did you mean pgd_at?"),
        (["--method", "bat"], "method bat needs --scores"),
        (["--method", "pgd_at", "--beta", "1"], "pgd_at has no hyper-parameter 'beta': it has none"),
        (["--method", "trades", "--hyper", "gamma=1"], "its hyper-parameters are beta"),
        (["--method", "trades", "--hyper", "beta"], "hyper wants NAME=VALUE"),
        (["--method", "trades", "--beta", "-1"], "beta must be a number >= 0"),
        (["--method", "gairat", "--hyper", "function=tan"], "function of gairat, got 'tan'"),
        (["--method", "pgd_at", "--epsilon", "8"], "epsilon: must be a number in (0, 1), got 8; did you mean 8/255?"),
        (["--method", "pgd_at", "--num_workers", "3"], "batch_size must be divisible by num_workers, got 32 for 3"),
        (
            ["--method", "pgd_at", "--num_workers", "2", "--gpus_per_worker", "0.5"],
            "gpus_per_worker must be 1 (or 0: CPUs) with num_workers, got 0.5: NCCL, which brings their",
        ),
        (
            ["--method", "pgd_at", "--num_workers", "2", "--gpus_per_worker", "2"],
            "gpus_per_worker must be a number in [0, 1]",
        ),
        (["--method", "pgd_at", "--num_val", "300"], "num_val must be in [1, 299], got 300"),
        (["--method", "pgd_at", "--scores", "nowhere.npz"], "nowhere.npz does not exist"),
        (["--method", "pgd_at", "--sigma", "0.2"], "give --scores too"),
        (["--method", "pgd_at", "--arch", "resnet33"], "did you mean 'resnet32'?"),
        (["--method", "pgd_at", "--best_by", "val_pgd", "--val_steps", "0"], "best_by val_pgd needs val_steps"),
        (["--method", "gairat", "--num_steps", "1"], "num_steps must be at least 2 for gairat, got 1"),
        (["--method", "erm", "--hyper", "label_smoothing=nan"], "label_smoothing must be in [0, 1), got nan"),
        (["--method", "erm", "--crop_padding", "8"], "crop_padding must be less than the 8 pixels of an image"),
        (["--method", "erm", "--crop_padding", "1", "--crop_scale", "0.1"], "crop_scale 0.1 crops without zeros"),
        (["--method", "erm", "--crop_size", "6"], "crop_size 6 is the size of random-resized crops: give crop_scale"),
        (
            ["--method", "erm", "--crop_scale", "0.5", "--crop_size", "4", "--arch", "resnet9-w8"],
            "arch resnet9-w8 does not fit images of 4x4",
        ),
        (["--method", "erm", "--crop_scale", "0"], "crop_scale must be a number in (0, 1] or none, got 0"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(last_ones([*QUICK, "--out", str(out), *options])) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not out.exists()


def test_a_full_gpu_ends_the_run_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def does_not_fit(*args: object, **kwargs: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr("bat_dist.jobs.train.run.train", does_not_fit)
    assert run(tmp_path) == 1
    errors = capsys.readouterr().err
    assert "the GPU was full: end what else uses it, or lower the batch size (RuntimeError: CUDA error: CUB" in errors
    assert "Traceback" not in errors


def test_a_batch_too_small_for_the_method(tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: Path) -> None:
    options = ["--scores", str(scores), "--batch_size", "2"]
    assert run(tmp_path / "out", *options, method="bat") == 2
    assert "batch_size must be at least 3 for the discrimination loss, got 2" in capsys.readouterr().err
    assert run(tmp_path / "few", "--scores", str(scores), "--batch_size", "4", "--epochs", "1", method="bat") == 0
    assert "% of the typical samples will find another of their class in their batch" in capsys.readouterr().err


def test_more_workers_than_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--num_train", "20", "--num_val", "10", "--num_workers", "8"]
    assert run(tmp_path / "out", *options) == 2
    assert "10 training samples are too few for 8 workers" in capsys.readouterr().err


def test_undefined_scores_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: Path) -> None:
    assert run(tmp_path / "a", "--scores", str(scores), "--epochs", "1", method="bat") == 0
    assert "2 of 300 are undefined and count as neutral" in capsys.readouterr().err
    assert run(tmp_path / "b", "--scores", str(scores), "--epochs", "1", "--undefined", "typical", method="bat") == 0
    assert "2 of 300 are undefined and count as typical" in capsys.readouterr().err
    identities = [json.loads((tmp_path / name / "run.json").read_text())["identity"]["scores"] for name in "ab"]
    assert identities[0] != identities[1]


def test_scores_of_other_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: Path) -> None:
    assert run(tmp_path / "out", "--num_train", "200", "--scores", str(scores)) == 2
    assert "of other data than the dataset" in capsys.readouterr().err


def test_damaged_scores_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "memorization.npz").write_bytes(b"PK\x03\x04 not a zip")
    assert run(tmp_path / "out", "--scores", str(tmp_path / "memorization.npz")) == 2
    assert "cannot be read as npz" in capsys.readouterr().err


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    assert run(tmp_path, "--epsilon", "0.05", "--seed", "7") == 2
    errors = capsys.readouterr().err
    assert "seed: 0 in the store, 7 now" in errors
    assert "epsilon: " in errors


def test_more_workers_than_room(tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None) -> None:
    assert run(tmp_path / "out", "--num_workers", "16") == 2
    assert "no room for 16 workers with 1 CPU each: the cluster has 1 node, 2 CPUs, no GPU;" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_loss_that_is_not_finite(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None
) -> None:
    assert run(tmp_path, "--lr", "1e18", "--num_workers", workers) == 1
    errors = capsys.readouterr().err
    assert "try a lower lr" in errors
    assert "Traceback" not in errors
    told = json.loads((tmp_path / "non_finite.json").read_text())
    assert 4 <= len(set(told["indices"])) == len(told["indices"]) <= 32  # the whole batch's, of all ranks


# -------------------------------------------------------------------------------------------------- kill -9


def program(out: Path, *options: str) -> subprocess.Popen:
    """As a user gives it: with a relative name, which is not that of a worker's own folder."""
    words = last_ones([*QUICK, "--method", "pgd_at", "--out", out.name, *options])
    command = [sys.executable, "-m", "bat_dist.train", *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=out.parent, start_new_session=True
    )


def wait_for_epochs(out: Path, count: int, driver: subprocess.Popen) -> None:
    history = out / "history.csv"

    def enough() -> bool:
        assert driver.poll() is None, driver.stderr.read().decode()  # pyright: ignore[reportOptionalMemberAccess]
        return history.exists() and len(history.read_text().splitlines()) > count

    until(enough, what=f"{count} epochs")


LONG = ["--epochs", "24", "--num_steps", "10"]  # far from their end when they are hurt, on any machine


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_end(tmp_path: Path) -> None:
    undisturbed = program(tmp_path / "undisturbed", *LONG)  # a process of its own too: as many threads
    _, errors = undisturbed.communicate(timeout=PATIENCE)
    assert undisturbed.returncode == 0, errors.decode()[-3000:]
    for epochs in (2, 5):
        driver = program(tmp_path / "killed", *LONG)
        wait_for_epochs(tmp_path / "killed", epochs, driver)
        driver.kill()
        driver.communicate()
    _, errors = program(tmp_path / "killed", *LONG).communicate(timeout=PATIENCE)
    assert b"going on after epoch" in errors
    files = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("undisturbed", "killed")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_killed_worker_costs_the_epoch_it_was_in(tmp_path: Path, ray_cluster: None) -> None:
    """The undisturbed run has the other loader, if that is installed: both train the same on two workers."""
    options = [*LONG, "--epochs", "12", "--num_workers", "2"]  # slower than one process
    loader = "ffcv" if importlib.util.find_spec("ffcv") else "memory"
    assert run(tmp_path / "undisturbed", *options, "--loader", loader) == 0
    driver = program(tmp_path / "killed", *options, "--ray_address", "local")
    wait_for_epochs(tmp_path / "killed", 2, driver)
    workers = [
        process.pid
        for process in psutil.Process(driver.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(process.cmdline())
    ]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, errors = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, errors.decode()[-3000:]
    assert "workers failed (rank " in errors.decode()
    files = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("undisturbed", "killed")]
    assert files[0] == files[1]
