"""A network and a method of the user's own through the jobs: trained, resumed, evaluated, swept and told apart."""

import dataclasses
import importlib
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bat_dist.artifacts.checkpoints import load_checkpoint, load_model
from bat_dist.artifacts.export import read_trained
from bat_dist.config import from_dict
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.errors import ConfigError, UserError
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.auto import without_auto
from bat_dist.jobs.own_parts import network_of
from bat_dist.jobs.train import carry_out
from bat_dist.jobs.training_plan import TrainingPlan, make_plan
from bat_dist.jobs.tune_plan import plan_sweep
from bat_dist.models.own import OwnClassifier, OwnNetwork
from bat_dist.planning.plan import plan as plan_cost
from bat_dist.results.labels import label_of
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.fields import ARCH_OF_TRIALS
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.plan import PlanSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.training.trial import TrialSettings, run_trial
from tests.helpers.own_parts import write_parts

DATA: dict[str, Any] = {"dataset": "digits", "num_train": 100, "num_test": 40}
QUICK: dict[str, Any] = {**DATA, "recipe": "fast", "epochs": 2, "batch_size": 32, "num_steps": 1, "precision": "fp32"}
ADAM: dict[str, Any] = {"optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 0.5}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(**{"name" if key == "dataset" else key: value for key, value in DATA.items()})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("parts"), "width_of_jobs")


@pytest.fixture(scope="module")
def finished(dataset: Dataset, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of both that is done."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    carry_out(planned(dataset, file, out, **ADAM))
    return out


def planned(dataset: Dataset, file: Path, out: Path, **asked: Any) -> TrainingPlan:
    named = {"arch": f"{file}:Net", "method": f"{file}:Pairing", "hyper": ["weight=0.1"], "alpha": 2.0}
    return make_plan(dataset, from_dict(TrainSettings, {**QUICK, **named, "out": str(out), **asked}, "test"))


def subject_of(dataset: Dataset, checkpoint: Path, **asked: Any) -> Any:
    settings = {**DATA, "checkpoint": str(checkpoint), "out": "x", "attacks": ["clean"], **asked}
    return load_subject(dataset, from_dict(EvaluateSettings, settings, "test"))


def test_identity_and_files_tell_names_and_digests_not_places(finished: Path, file: Path) -> None:
    identity = json.loads((finished / "run.json").read_text())["identity"]
    net = network_of(f"{file}:Net")
    assert identity["arch"] == str(net)
    assert identity["method"] == str(net).replace("Net", "Logit pairing")
    assert (identity["method_settings.weight"], identity["method_settings.alpha"]) == (0.1, 2.0)
    assert (identity["recipe.optimizer"], identity["recipe.schedule"]) == ("adamw", "cosine")
    assert str(file.parent) not in json.dumps(identity)
    assert f"arch: {file}:Net" in (finished / "config.yaml").read_text()  # what a later call takes up
    found = load_checkpoint(str(finished), "last")
    assert found.spec.arch == found.facts["arch"] == str(net)
    assert str(file.parent) not in json.dumps(found.facts)


@pytest.mark.parametrize("asked", [ADAM, {}])
def test_a_run_that_is_resumed_is_one_that_was_not(
    asked: dict[str, Any], dataset: Dataset, file: Path, tmp_path: Path
) -> None:
    """Though the network draws random numbers and has a buffer."""

    class Killed(Exception):
        pass

    def die(row: Any) -> None:
        raise Killed

    for name, ends in (("whole", ()), ("killed", (die,))):
        for end in ends:
            with pytest.raises(Killed):
                carry_out(planned(dataset, file, tmp_path / name, **asked), on_epoch=end)
        carry_out(planned(dataset, file, tmp_path / name, **asked))
    whole, killed = (load_checkpoint(str(tmp_path / name), "last").model.state_dict() for name in ("whole", "killed"))
    assert whole["network.steps"] == 2 * (3 + 3)  # batches of two epochs, natural and adversarial images
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_source_that_was_changed_is_another_network(
    finished: Path, dataset: Dataset, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(file.parent, tmp_path / "copy")
    copy = tmp_path / "copy/mine.py"
    carry_out(planned(dataset, copy, finished, **ADAM))  # another place is nothing else
    (tmp_path / "copy/width_of_jobs.py").write_text("WIDTH = 4  # as before\n")
    with pytest.raises(UserError, match=r"finished holds another run.*\n.*method: Logit pairing .*\narch: Net "):
        carry_out(planned(dataset, copy, finished, **ADAM))
    was = subject_of(dataset, finished)
    text = file.read_text()
    file.write_text(f"raise SystemExit\n{text}")  # which is not run
    try:
        with pytest.raises(UserError, match=r"was trained with Net .*, and .*mine.py:Net is another now"):
            subject_of(dataset, finished)
    finally:
        file.write_text(text)
    with caplog.at_level(logging.WARNING):
        now = subject_of(dataset, finished, model=f"{copy}:Net")
    assert "its weights are taken for Net" in caplog.text
    assert was.digest != now.digest
    assert was.digest == subject_of(dataset, finished, model=f"{file}:Net").digest


def test_no_code_that_comes_with_a_checkpoint_is_run(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is looked for where it was, not beside the checkpoint, nor where the user is."""
    (tmp_path / "at").mkdir()
    file = write_parts(tmp_path / "at", "width_of_moved")
    monkeypatch.chdir(tmp_path / "at")
    carry_out(planned(dataset, Path("mine.py"), tmp_path / "run", **{"method": "erm", "hyper": [], "alpha": None}))
    x = torch.rand(2, 3, 8, 8)
    logits = load_model(str(tmp_path / "run"))(x)
    (tmp_path / "at").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "run", dirs_exist_ok=True)
    with pytest.raises(UserError, match=rf"your own network Net .{{12}}, imported from {file}:Net, and no code: name"):
        load_model(str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"--model FILE.py:NAME"):
        subject_of(dataset, tmp_path / "run")
    model = f"{tmp_path}/moved/mine.py:Net"
    assert torch.equal(load_model(str(tmp_path / "run"), model=model)(x), logits)
    assert isinstance(load_model(str(tmp_path / "run"), model=network_of(model)), OwnClassifier)
    trained = read_trained(str(tmp_path / "run"), model=model)
    assert trained.spec.reference == ""  # an exported folder names no place of this machine


def test_a_checkpoint_cannot_name_what_is_installed(finished: Path, tmp_path: Path) -> None:
    """`os.py` is where strangers know it to be."""
    found = load_checkpoint(str(finished), "last")
    from bat_dist.artifacts.checkpoints import save_model

    for reference in (f"{np.__file__}:array", "os:abort", "mine.py:Net"):
        spec = dataclasses.replace(found.spec, reference=reference)
        save_model(Folder(str(tmp_path)), "best", found.model.state_dict(), spec, found.facts)
        with pytest.raises(UserError, match="and no code: name the network with --model"):
            load_model(str(tmp_path))


def test_a_trial_is_a_pure_function_though_its_network_draws(dataset: Dataset, file: Path) -> None:
    asked = from_dict(MemorizeSettings, {**DATA, "out": "x", "arch": f"{file}:Net", "epochs": 1, **ADAM}, "test")
    settled, _ = without_auto(asked, dict, dataset, ARCH_OF_TRIALS)
    settings = TrialSettings(settled.arch, settled.training, "fp32", 0.7, "uniform", 0)
    assert isinstance(settings.arch, OwnNetwork)
    loader, test = (dataset_loader("memory", dataset, split) for split in ("train", "test"))
    device = torch.device("cpu")

    def trial(number: int) -> dict[str, np.ndarray]:
        return run_trial(
            number, settings=settings, dataset=dataset, train_loader=loader, test_loader=test, device=device
        )

    first, _, again = trial(0), trial(1), trial(0)
    assert first["metrics"][0] == again["metrics"][0]
    assert np.array_equal(first["train_predicted"], again["train_predicted"])


def test_a_sweep_of_both(dataset: Dataset, file: Path, tmp_path: Path) -> None:
    base = {**QUICK, "arch": f"{file}:Net", "method": f"{file}:Pairing"}
    asked = {"base": base, "space": {"alpha": [1, 2], "hyper": [["weight=0"], ["weight=1"]]}, "out": str(tmp_path)}
    sweep = plan_sweep(Folder(str(tmp_path)), dataset, from_dict(TuneSettings, asked, "test"))
    assert len(sweep.runs()) == 4
    assert sweep.about["arch"] == str(network_of(f"{file}:Net"))
    # Workers make the settings of each run of what travels, where there is no such file.
    file.rename(file.with_suffix(".gone"))
    try:
        method = sweep.settings.of_run({"alpha": 2.0}, seed=0, out="x").method
    finally:
        file.with_suffix(".gone").rename(file)
    assert str(method).startswith("Logit pairing ")
    with pytest.raises(ConfigError, match="arch cannot be in space with one of your own: give arch in base"):
        from_dict(TuneSettings, {**asked, "base": QUICK, "space": {"arch": [f"{file}:Net"]}}, "test")


def test_a_plan_measures_it(file: Path) -> None:
    settings = PlanSettings(dataset="digits", arch=f"{file}:Net", num_trials=2, num_seeds=0, seconds=0.1)
    assert plan_cost(settings).arch == str(network_of(f"{file}:Net"))


CALLS = {
    "train": ["--method", "erm", "--arch", "{file}:Nett"],
    "memorize": ["--arch", "{file}:Nett"],
    "reproduce": ["--table", "2", "--arch", "{file}:Nett"],
    "study": ["typical", "--arch", "{file}:Nett"],
    "tune": ["--base", "dataset=digits", "method={file}:Pairin", "--space", "alpha=[1.0]"],
    "evaluate": ["--model", "{file}:Nett", "--checkpoint", "{file}"],
}


@pytest.mark.parametrize("verb", CALLS)
def test_a_misspelt_name_is_said_before_the_data_is_read(
    verb: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the data is read")

    monkeypatch.setattr("bat_dist.data.datasets.load_dataset", slow)
    words = [*CALLS[verb], *([] if verb == "tune" else ["--dataset", "digits"]), "--out", str(tmp_path / "out")]
    program = importlib.import_module(f"bat_dist.{verb}")
    assert program.main([word.replace("{file}", str(file)) for word in words]) == 2
    said = capsys.readouterr().err
    assert re.search(r"has no '(Nett|Pairin)'; did you mean '?(Net|Pairing)\b", said), said


def test_a_plan_names_it_before_it_looks_at_the_data(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bat_dist.planning.plan.look_at", lambda settings: pytest.fail("the data is read"))
    with pytest.raises(UserError, match=r"has no 'Nett'; did you mean Net\?"):
        plan_cost(PlanSettings(dataset="digits", arch=f"{file}:Nett", num_trials=2, num_seeds=0, seconds=0.1))


BAD = {
    "NotFrozen": ("@dataclass\nclass NotFrozen:\n    def loss(self, batch): ...", "must be frozen"),
    "Plain": ("class Plain:\n    def loss(self, batch): ...", "must be a dataclass of its hyper-parameters"),
    "Lossless": ("@dataclass(frozen=True)\nclass Lossless:\n    a: float = 1.0", "has no `loss\\(self, batch\\)`"),
    "Odd": (
        "@dataclass(frozen=True)\nclass Odd:\n    a: tuple = (1,)\n    def loss(self, batch): ...",
        "parameter a must",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_methods_that_are_none(name: str, dataset: Dataset, tmp_path: Path) -> None:
    source, message = BAD[name]
    (tmp_path / "bad.py").write_text(f"from dataclasses import dataclass\n{source}\n")
    with pytest.raises(UserError, match=message):
        planned(dataset, tmp_path / "bad.py", tmp_path, arch="tinynet", method=f"{tmp_path}/bad.py:{name}")


def test_hyper_parameters_that_it_does_not_take(dataset: Dataset, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no hyper-parameter 'beta': its hyper-parameters are weight, alpha"):
        planned(dataset, file, tmp_path, beta=1.0)
    with pytest.raises(UserError, match=r"there is no file nowhere.py to import the method from"):
        planned(dataset, file, tmp_path, method="nowhere.py:Pairing")


def test_what_tables_call_it() -> None:
    method, own = "Logit pairing 0123456789ab", {"method_settings.weight": 0.1}
    assert label_of(method, own, [own]) == "Logit pairing"
    assert label_of(method, own, [own, {"method_settings.weight": 1.0}]) == "Logit pairing (weight = 0.1)"
