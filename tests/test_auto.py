"""`auto`: what the data, the workers' hardware or the folder decide, printed and recorded, in every program.

And `tf32`, which hardware has or has not.
"""

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import zarr

from bat_dist.config import parse
from bat_dist.data.datasets import load_dataset
from bat_dist.errors import UserError
from bat_dist.jobs.memorize import build_work
from bat_dist.memorize import main as memorize
from bat_dist.models.names import suited_arch
from bat_dist.plan import main as plan
from bat_dist.reproduce import main as reproduce
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.provenance import cpu_name
from bat_dist.study import main as study
from bat_dist.train import main as train
from bat_dist.training import precision
from bat_dist.training.precision import Hardware, this_hardware
from bat_dist.training.recipe import RECIPES
from bat_dist.training.trial import TrialSettings, run_trial
from bat_dist.tune import main as tune
from bat_dist.workers import hardware
from bat_dist.workers.hardware import hardware_of_workers
from bat_dist.workers.resources import Resources
from tests.helpers.options import last_ones

DATA = ["--dataset", "digits", "--num_train", "60", "--num_test", "20"]
QUICK = ["--epochs", "1", "--batch_size", "32", "--loader", "memory"]
FAST = [*QUICK, "--recipe", "fast", "--num_steps", "1"]
SUITED = "tinynet (for 8x8 images)"


@pytest.fixture(scope="module")
def truth() -> Hardware:
    return this_hardware()


@pytest.fixture
def chosen(truth: Hardware) -> str:
    return "bf16" if truth.has_bf16 else "fp32"


@pytest.fixture
def other_driver(monkeypatch: pytest.MonkeyPatch, truth: Hardware) -> None:
    """A driver on another machine than the workers', whose hardware is not theirs."""
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: not truth.has_bf16)
    monkeypatch.setattr(hardware, "driver_node", lambda: "another")


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("on_own_node", [True, False])
def test_the_driver_answers_for_its_own_node(
    on_own_node: bool, monkeypatch: pytest.MonkeyPatch, truth: Hardware
) -> None:
    """Only where the workers are on another node is one of them asked."""
    asked_here = []

    def asked(device: torch.device | None = None) -> Hardware:
        asked_here.append(device)
        return truth

    monkeypatch.setattr(hardware, "this_hardware", asked)
    if not on_own_node:
        monkeypatch.setattr(hardware, "driver_node", lambda: "another")
    assert hardware_of_workers(Resources()) == [truth]
    assert asked_here == [torch.device("cpu")] * on_own_node


@pytest.mark.parametrize(("side", "arch"), [(8, "tinynet"), (16, "tinynet"), (17, "usual"), (32, "usual")])
def test_the_network_suits_the_side_of_the_images(side: int, arch: str) -> None:
    assert suited_arch(side, "usual") == arch


def test_auto_is_the_default() -> None:
    for kind, words in ((MemorizeSettings, []), (TrainSettings, ["--method", "erm"])):
        settings, _ = parse(kind, [*words, "--dataset", "digits", "--out", "x"], prog="x")
        assert (settings.arch, settings.precision, settings.loader) == ("auto", "auto", "auto")
    settings, _ = parse(
        TuneSettings, ["--base", "method=erm", "dataset=digits", "--space", "lr=[0.1]", "--out", "x"], prog="x"
    )
    assert (settings.example.arch, settings.example.precision) == ("auto", "auto")


@pytest.mark.usefixtures("ray_cluster", "other_driver")
def test_trials_are_recorded_with_what_their_workers_chose(
    tmp_path: Path, chosen: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "bat_dist"):
        assert memorize([*DATA, *QUICK, "--num_trials", "2", "--out", str(tmp_path)]) == 0
    assert any(f"arch {SUITED}, precision {chosen} (" in message for message in caplog.messages)
    asked = json.loads((tmp_path / "summary.json").read_text())["settings"]
    assert (asked["arch"], asked["precision"]) == ("tinynet", chosen)
    attributes = cast(dict[str, Any], zarr.open_group(tmp_path / "trials", mode="r").attrs.asdict())
    assert (attributes["identity"]["arch"], attributes["identity"]["precision"]) == ("tinynet", chosen)
    assert attributes["about"]["chosen"]["arch"] == SUITED


@pytest.mark.usefixtures("ray_cluster")
def test_auto_is_what_the_folders_trials_have(tmp_path: Path, truth: Hardware) -> None:
    """On whatever machine they go on: auto never ends in a folder of other settings."""
    other = "fp32" if truth.has_bf16 else "bf16"
    words = [*DATA, *QUICK, "--out", str(tmp_path)]
    assert memorize([*words, "--num_trials", "2", "--arch", "resnet9-w4", "--precision", other]) == 0
    (tmp_path / "config.yaml").unlink()  # of an older version
    assert memorize([*words, "--num_trials", "3"]) == 0
    asked = json.loads((tmp_path / "summary.json").read_text())["settings"]
    assert (asked["arch"], asked["precision"], asked["num_trials"]) == ("resnet9-w4", other, 3)


@pytest.mark.usefixtures("ray_cluster", "other_driver")
def test_data_parallel_training_asks_its_workers(tmp_path: Path, chosen: str) -> None:
    words = ["--num_workers", "1", "--cpus_per_worker", "2", "--out", str(tmp_path)]
    assert train([*DATA, *FAST, "--method", "pgd_at", *words]) == 0
    told = _check_run(tmp_path, chosen)
    assert told["computed_on"] == [{"cpu": cpu_name(), "threads": 2}]  # the worker's: the driver has another number


def test_training_in_this_process_asks_itself(tmp_path: Path, chosen: str) -> None:
    assert train([*DATA, *FAST, "--method", "pgd_at", "--cpus_per_worker", "2", "--out", str(tmp_path)]) == 0
    told = _check_run(tmp_path, chosen)
    assert told["threads"] == 2
    assert told["computed_on"] == [{"cpu": cpu_name(), "threads": 2}]


def _check_run(place: Path, chosen: str) -> dict[str, Any]:
    told = json.loads((place / "run.json").read_text())
    identity = told["identity"]
    assert (identity["arch"], identity["precision"], identity["attack_precision"]) == ("tinynet", chosen, chosen)
    assert told["chosen"]["arch"] == SUITED
    assert told["chosen"]["precision"].startswith(f"{chosen} (this CPU has")
    return told


@pytest.mark.usefixtures("ray_cluster", "other_driver")
def test_all_runs_of_a_sweep_have_what_its_workers_chose(tmp_path: Path, chosen: str) -> None:
    base = ["method=erm", "dataset=digits", "num_train=60", "num_test=20", "epochs=1", "batch_size=32", "recipe=fast"]
    words = ["--space", "lr=[0.1]", "--seeds", "0", "--test_attacks", "none", "--out", str(tmp_path)]
    assert tune(["--base", *base, *words]) == 0
    told = json.loads((tmp_path / "sweep.json").read_text())
    assert (told["identity"]["arch"], told["identity"]["precision"]) == ("tinynet", chosen)
    assert told["chosen"]["arch"] == SUITED
    (run,) = tmp_path.glob("runs/*/seed0/run.json")
    identity = json.loads(run.read_text())["identity"]
    assert (identity["arch"], identity["precision"]) == ("tinynet", chosen)


@pytest.mark.usefixtures("ray_cluster", "other_driver")
def test_all_parts_of_an_experiment_have_what_its_workers_chose(tmp_path: Path, chosen: str) -> None:
    part = ["epochs=1", "precision=auto"]
    words = [*DATA[2:], "--memorize", "num_trials=8", *part, "--train", "num_val=20", "num_steps=1", *part]
    table = ["--table", "1", "--scale", "small", "--methods", "bat_alpha1_beta0.2", "--seeds", "0", "--attacks"]
    assert reproduce([*table, "clean", *words, "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "experiment.json").read_text())
    identity = told["identity"]
    assert [identity[f"{name}.precision"] for name in ("memorize", "train")] == [chosen, chosen]
    assert told["chosen"]["train's precision"].startswith(f"{chosen} (")
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["settings"]["precision"] == chosen


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process says that it has TF32; it computes on its CPU all the same."""
    told = Hardware("here", "NVIDIA A100", has_bf16=True, has_tf32=True)
    monkeypatch.setattr("bat_dist.jobs.train.this_hardware", lambda: told)


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize("name", ["precision", "attack_precision"])
def test_a_folder_is_of_tf32_or_of_fp32(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DATA, *FAST, "--method", "pgd_at", "--num_val", "10", "--precision", "fp32", "--out", str(tmp_path)]
    assert train(last_ones([*words, f"--{name}", "tf32"])) == 0
    identity = json.loads((tmp_path / "run.json").read_text())["identity"]
    assert identity[name] == identity["attack_precision"] == "tf32"
    assert train(words) == 2
    assert f"{name}: tf32" in capsys.readouterr().err
    assert train(["--out", str(tmp_path)]) == 0  # it knows its settings


@pytest.mark.parametrize("words", [["--precision", "tf32"], ["--precision", "fp32", "--attack_precision", "tf32"]])
def test_a_training_in_tf32_is_refused_where_there_is_none(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*DATA, *FAST, "--method", "pgd_at", "--out", str(tmp_path), *words]) == 2
    assert "precision tf32: this CPU has no TF32" in capsys.readouterr().err
    assert not {"run.json", "config.yaml"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.usefixtures("ray_cluster")
def test_trials_in_tf32_are_refused_where_a_worker_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert memorize([*DATA, *QUICK, "--num_trials", "2", "--precision", "tf32", "--out", str(tmp_path)]) == 2
    assert "precision tf32: this CPU has no TF32" in capsys.readouterr().err
    assert not {"trials", "config.yaml"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.usefixtures("ray_cluster")
def test_a_study_in_tf32_is_refused_before_its_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["typical", "--scale", "small", "--num_train", "100", "--num_test", "40", "--train", "precision=tf32"]
    assert study([*words, "--out", str(tmp_path)]) == 2
    assert "precision tf32: this CPU has no TF32" in capsys.readouterr().err
    assert not list(tmp_path.rglob("trials"))


def test_a_worker_that_joins_late_looks_for_tf32_itself() -> None:
    settings = TrialSettings("tinynet", RECIPES["fast"], "tf32", 0.7, "uniform", 0)
    with pytest.raises(UserError, match="has no TF32"):
        build_work(load_dataset("digits", num_train=60, num_test=20), "memory", run_trial, settings, "trials")


def test_a_plan_in_tf32_is_measured_where_there_is_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(["--dataset", "digits", "--num_seeds", "0", "--precision", "tf32"]) == 2
    assert "precision tf32: this CPU has no TF32" in capsys.readouterr().err
