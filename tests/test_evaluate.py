"""The evaluation program: flags by image that depend on nothing but the image, resumed, and bad input."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from pyautoattack import AutoAttack

from bat_dist.artifacts.checkpoints import load_checkpoint, load_model, save_model
from bat_dist.attacks.pgd import fgsm
from bat_dist.data.datasets import load_dataset
from bat_dist.evaluate import main
from bat_dist.jobs import evaluate as evaluation
from bat_dist.results.evaluation_file import read_evaluation
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import cpu_name
from bat_dist.storage.rows import RowStore
from bat_dist.train import main as train
from tests.helpers.options import last_ones
from tests.helpers.waiting import until

DATA = ["--dataset", "digits", "--num_train", "300", "--num_test", "60", "--loader", "memory"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for a few seconds against PGD."""
    out = tmp_path_factory.mktemp("network")
    recipe = ["--recipe", "fast", "--epochs", "12", "--batch_size", "32", "--num_steps", "3", "--precision", "fp32"]
    assert train([*DATA, *recipe, "--method", "pgd_at", "--arch", "tinynet", "--out", str(out)]) == 0
    return out


def run(out: Path, network: Path | None, *options: str) -> int:
    checkpoint = [] if network is None else ["--checkpoint", str(network)]
    return main(last_ones([*DATA, *checkpoint, "--out", out, *options]))


def flags(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "flags.npz", allow_pickle=False) as file:
        return dict(zip(file["attacks"].tolist(), file["flags"], strict=True))


def rows(out: Path) -> dict[str, dict]:
    return {row["attack"]: row for row in result(out)["rows"]}


def result(out: Path) -> dict:
    return json.loads((out / "evaluation.json").read_text())


NO_CHECKS = ["--check_images", "0"]
FEW = ["--attacks", "clean", "fgsm", "pgd3", "pgd20", "cw20", "autoattack_fast", "--batch_size", "13", *NO_CHECKS]


@pytest.fixture(scope="module")
def evaluated(network: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    assert run(out, network, *FEW) == 0
    return out


def test_it_says_what_its_workers_computed_on(evaluated: Path) -> None:
    assert result(evaluated)["computed_on"] == [{"cpu": cpu_name(), "threads": 1}]
    assert read_evaluation(Folder(evaluated)).document.origin["computed_on"][0]["threads"] == 1


def test_flags_are_those_of_the_network(evaluated: Path, network: Path) -> None:
    """Clean and FGSM have no random start: computed here on the whole test set at once."""
    found, test = flags(evaluated), load_dataset("digits", num_train=300, num_test=60).test
    model = load_model(str(network))
    x, y = torch.from_numpy(test.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(test.labels)
    np.testing.assert_array_equal(found["clean"], (model(x).argmax(1) == y).numpy())
    attacked = fgsm(model, x, y, epsilon=16 / 255)
    np.testing.assert_array_equal(found["fgsm"], found["clean"] & (model(attacked).argmax(1) == y).numpy())


def test_the_validation_split_is_what_training_held_out(network: Path, tmp_path: Path, ray_cluster: None) -> None:
    """Its clean accuracy is the one that training measured."""
    assert run(tmp_path, network, "--split", "validation", "--attacks", "clean", *NO_CHECKS) == 0
    best = json.loads((network / "run.json").read_text())["best"]
    assert rows(tmp_path)["clean"]["accuracy"] == pytest.approx(best["val_clean"], abs=1e-12)
    assert rows(tmp_path)["clean"]["n"] == 30
    assert run(tmp_path, network, "--split", "train", "--attacks", "clean", *NO_CHECKS) == 2


def test_the_first_images_of_a_split_and_their_subsets(
    evaluated: Path, network: Path, tmp_path: Path, ray_cluster: None
) -> None:
    dataset = load_dataset("digits", num_train=300, num_test=60)
    subsets = {"typical": np.arange(300) % 3 == 0, "atypical": np.arange(300) % 3 == 1}
    of_both = {
        f"{split}_{name}": members[:number]
        for split, number in (("train", 300), ("test", 60))
        for name, members in subsets.items()
    }
    np.savez(tmp_path / "typicality.npz", **of_both, fingerprint=np.array(dataset.fingerprint))
    words = ["--first", "20", "--attacks", "clean", *NO_CHECKS, "--scores", str(tmp_path / "typicality.npz")]
    assert run(tmp_path / "test", network, *words) == 0
    np.testing.assert_array_equal(flags(tmp_path / "test")["clean"], flags(evaluated)["clean"][:20])
    assert rows(tmp_path / "test")["clean"]["typical"]["n"] == 7
    assert run(tmp_path / "train", network, "--split", "train", *words) == 0
    model, train = load_model(str(network)), dataset.train
    x = torch.from_numpy(train.images[:20]).permute(0, 3, 1, 2) / 255
    right = (model(x).argmax(1) == torch.from_numpy(train.labels[:20])).numpy()
    np.testing.assert_array_equal(flags(tmp_path / "train")["clean"], right)
    assert rows(tmp_path / "train")["clean"]["atypical"]["accuracy"] == pytest.approx(right[1::3].mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--first", "61"], "first must be at most 60, the test images, got 61"),
        (["--split", "validation", "--num_train", "200"], "split validation needs the data that the checkpoint was"),
    ],
)
def test_images_that_there_are_not(
    network: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", network, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_stronger_attacks_leave_less(evaluated: Path) -> None:
    found = {name: row.mean() for name, row in flags(evaluated).items()}
    assert 1 > found["clean"] > 0.5
    assert found["clean"] > found["pgd3"] >= found["pgd20"]  # steps of 4/255, a ball of 16/255
    assert found["fgsm"] >= found["pgd20"]
    told = rows(evaluated)["pgd20"]
    assert told["accuracy"] == (p := found["pgd20"])
    assert told["standard_error"] == pytest.approx((p * (1 - p) / 60) ** 0.5)
    assert 0.9 * 16 / 255 < told["max_delta"] < 16 / 255 + 1e-6
    assert told["seconds"] > 0
    worst = [flags(evaluated)[name] for name in ("fgsm", "pgd3", "pgd20", "cw20", "autoattack_fast")]
    np.testing.assert_array_equal(flags(evaluated)["worst_case"], np.all(worst, axis=0))


def test_every_class_has_its_accuracy(evaluated: Path) -> None:
    labels, found = load_dataset("digits", num_train=300, num_test=60).test.labels, result(evaluated)["by_class"]
    assert found["classes"] == [str(digit) for digit in range(10)]
    assert found["num_images"] == [6] * 10
    for name, robust in flags(evaluated).items():
        assert found["accuracy"][name] == [robust[labels == digit].mean() for digit in range(10)]


def test_workers_change_nothing(evaluated: Path, network: Path, tmp_path: Path, ray_cluster: None) -> None:
    """One does here what two did there."""
    assert run(tmp_path, network, *FEW, "--num_workers", "1") == 0
    np.testing.assert_equal(flags(tmp_path), flags(evaluated))


def test_another_batch_size_changes_nothing(evaluated: Path, network: Path, tmp_path: Path, ray_cluster: None) -> None:
    assert run(tmp_path, network, *FEW, "--batch_size", "50") == 0
    np.testing.assert_equal(flags(tmp_path), flags(evaluated))


def chunks(out: Path, stage: str) -> list[Path]:
    return sorted(path for path in (out / "units" / stage / "robust").iterdir() if path.name.startswith("c"))


@pytest.fixture
def copy(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "copy"))


def test_a_truncated_unit_is_computed_again(copy: Path, network: Path, ray_cluster: None) -> None:
    before = flags(copy)
    for stage in ("clean", "apgd-ce@0"):
        chunk = chunks(copy, stage)[-1]
        chunk.write_bytes(chunk.read_bytes()[:-3])
    (copy / "flags.npz").unlink()
    assert run(copy, network, *FEW) == 0
    np.testing.assert_equal(flags(copy), before)


def test_nothing_is_run_that_is_there(copy: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(*_, **__):
        raise AssertionError("Ray was started")

    before = flags(copy)
    monkeypatch.setattr(evaluation, "job_session", no_ray)
    assert run(copy, network, *FEW) == 0
    np.testing.assert_equal(flags(copy), before)


def test_attacks_can_be_added(copy: Path, network: Path, ray_cluster: None) -> None:
    before, old = flags(copy), {path: path.stat().st_mtime_ns for path in chunks(copy, "pgd20@0")}
    attacks = ["--attacks", "clean", "pgd20", "pgd7", "--batch_size", "13", *NO_CHECKS]
    assert run(copy, network, *attacks) == 0
    asked, kept = ["clean", "pgd20", "pgd7"], ["fgsm", "pgd3", "cw20"]
    parts = [f"autoattack_fast:{part}" for part in ("apgd-ce", "apgd-t")]
    assert list(flags(copy)) == [*asked, *kept, *parts, "autoattack_fast", "worst_case"]
    np.testing.assert_array_equal(flags(copy)["pgd20"], before["pgd20"])
    assert {path: path.stat().st_mtime_ns for path in chunks(copy, "pgd20@0")} == old


def test_nothing_is_replaced_by_less(
    copy: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer attacks, no checks, no subsets: what is there stays.  Other seeds do not go with it, and are refused."""
    monkeypatch.setattr(evaluation, "job_session", lambda *_, **__: pytest.fail("Ray was started"))
    before = flags(copy)
    document = result(copy)
    document["settings"]["scores"] = str(copy / "typicality.npz")
    (copy / "evaluation.json").write_text(json.dumps(document))
    fingerprint = np.array(load_dataset("digits", num_train=300, num_test=60).fingerprint)
    subsets: dict[str, Any] = {"test_typical": np.arange(60) < 40, "test_atypical": np.arange(60) >= 40}
    np.savez(copy / "typicality.npz", **subsets, fingerprint=fingerprint)
    assert run(copy, network, "--attacks", "clean", "--batch_size", "13", *NO_CHECKS) == 0
    found = flags(copy)
    assert {name: found[name].tolist() for name in before} == {name: before[name].tolist() for name in before}
    assert rows(copy)["pgd20"]["typical"]["n"] == 40
    assert run(copy, network, "--attacks", "clean", "pgd20", "--seeds", "1", "--batch_size", "13", *NO_CHECKS) == 2
    said = capsys.readouterr().err
    assert "with seeds 0, which those of other seeds would replace" in said
    assert "--attacks clean fgsm pgd3 pgd20 cw20 autoattack_fast --seeds 0 1" in said
    np.testing.assert_equal(flags(copy), found)


def test_units_of_other_images_are_computed_again(copy: Path, network: Path, ray_cluster: None) -> None:
    """As if the stage before had ended otherwise, on other hardware: what is there is of other images."""
    before = flags(copy)
    store = RowStore.existing(Folder(copy / "units" / "clean"))
    assert store is not None
    rows = [{name: store.read(name, np.array([n]))[0] for name in store.fields} for n in range(store.num_rows)]
    for number, row in enumerate(rows):  # nothing stood after the clean stage
        store.write(number, row | {"robust": np.zeros_like(row["robust"])})
    assert run(copy, network, *FEW) == 0
    assert not flags(copy)["pgd20"].any()
    some = rows[0] | {"robust": rows[0]["robust"] & (np.arange(len(rows[0]["robust"])) % 2 == 0)}
    store.write(0, some)  # fewer stood: units of the same numbers, of other images
    store.write(1, rows[1])
    assert run(copy, network, *FEW) == 0
    stood = np.zeros(60, bool)
    for row in (some, rows[1]):
        stood[row["images"][row["images"] >= 0]] = row["robust"][row["images"] >= 0]
    np.testing.assert_array_equal(flags(copy)["pgd20"], before["pgd20"] & stood)
    store.write(0, rows[0])
    assert run(copy, network, *FEW) == 0
    np.testing.assert_equal(flags(copy), before)


def test_subsets_have_rows_of_their_own(network: Path, tmp_path: Path, ray_cluster: None) -> None:
    dataset = load_dataset("digits", num_train=300, num_test=60)
    typical = np.arange(60) < 40
    names = {"test_typical": typical, "test_atypical": ~typical, "fingerprint": np.array(dataset.fingerprint)}
    np.savez(tmp_path / "typicality.npz", **names)
    scores = ["--scores", str(tmp_path / "typicality.npz")]
    assert run(tmp_path / "out", network, "--attacks", "clean", *NO_CHECKS, *scores) == 0
    (row,) = result(tmp_path / "out")["rows"]
    clean = flags(tmp_path / "out")["clean"]
    assert row["typical"]["accuracy"] == clean[:40].mean()
    assert row["atypical"] == {
        "accuracy": clean[40:].mean(),
        "standard_error": pytest.approx((clean[40:].mean() * (1 - clean[40:].mean()) / 20) ** 0.5),
        "n": 20,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attacks", "pdg20"], "did you mean pgd20?"),
        (["--epsilon", "0"], "epsilon must be a number in (0, 1)"),
        (["--epsilon", "0/255"], "epsilon must be a number in (0, 1)"),
        (["--seeds", "1", "1"], "seeds must differ, got 1 1"),
        (["--checkpoint", "nowhere"], "nowhere/best.safetensors does not exist"),
        (["--scores", "nowhere.npz"], "nowhere.npz does not exist"),
        (["--num_classes", "5"], "knows 10 classes, 0, 1, 2, ..., the data has 5"),
    ],
)
def test_bad_input_is_one_message(
    options: list[str], message: str, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", network, *options) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_another_evaluation_in_the_same_folder_is_refused(
    evaluated: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(evaluated, network, *FEW, "--epsilon", "0.1") == 2
    assert "epsilon: 0.06" in capsys.readouterr().err
    model, spec, facts = load_checkpoint(str(network))
    weights = {name: tensor + 0.01 if "weight" in name else tensor for name, tensor in model.state_dict().items()}
    save_model(Folder(tmp_path), "best", weights, spec, facts)
    assert run(evaluated, tmp_path, *FEW) == 2
    assert "network: " in capsys.readouterr().err


def test_seeds_and_restarts(evaluated: Path, network: Path, tmp_path: Path, ray_cluster: None) -> None:
    attacks = ["--attacks", "fgsm", "pgd3", "--seeds", "0", "1", "2", *NO_CHECKS, "--batch_size", "13"]
    assert run(tmp_path, network, *attacks) == 0
    found = flags(tmp_path)
    assert list(found) == ["fgsm", "pgd3@0", "pgd3@1", "pgd3@2", "pgd3@worst", "worst_case"]
    np.testing.assert_array_equal(found["pgd3@0"], flags(evaluated)["pgd3"])
    np.testing.assert_array_equal(found["pgd3@worst"], found["pgd3@0"] & found["pgd3@1"] & found["pgd3@2"])


def test_the_images_that_fooled_the_network_are_evidence(network: Path, tmp_path: Path, ray_cluster: None) -> None:
    """Anyone can check them without an attack: outside of this program, with the network alone."""
    assert run(tmp_path, network, "--attacks", "clean", "pgd20", "--keep_adversarial", *NO_CHECKS) == 0
    test, model = load_dataset("digits", num_train=300, num_test=60).test, load_model(str(network))
    store = RowStore.existing(Folder(tmp_path / "units" / "pgd20@0"))
    assert store is not None
    numbers = np.arange(store.num_rows)
    listed, x_adv = store.read("images", numbers).ravel(), store.read("adversarial", numbers).reshape(-1, 8, 8, 3)
    at, x_adv = listed[listed >= 0], torch.from_numpy(x_adv[listed >= 0])
    robust = (model(x_adv.permute(0, 3, 1, 2)).argmax(1) == torch.from_numpy(test.labels[at])).numpy()
    np.testing.assert_array_equal(robust, flags(tmp_path)["pgd20"][at])
    assert 0 < robust.sum() < len(robust)
    assert np.abs(x_adv.numpy() - test.images[at] / 255).max() <= 16 / 255 + 1e-6


def test_an_undefended_network_ends_at_nothing(tmp_path: Path, ray_cluster: None, capsys) -> None:
    recipe = ["--recipe", "fast", "--epochs", "12", "--batch_size", "32", "--precision", "fp32"]
    assert train([*DATA, *recipe, "--method", "erm", "--arch", "tinynet", "--out", str(tmp_path / "erm")]) == 0
    large = ["--attacks", "clean", "autoattack", "--epsilon", "48/255", "--check_images", "20"]
    assert run(tmp_path / "out", tmp_path / "erm", *large) == 0
    found = flags(tmp_path / "out")
    assert found["clean"].mean() > 0.6
    assert not found["autoattack"].any()
    assert result(tmp_path / "out")["settings"]["epsilon"] == 48 / 255
    assert "passed on 20 images" in capsys.readouterr().out


OWN = """
import os
import threading
import time
import torch
from bat_dist.artifacts.checkpoints import load_checkpoint, load_model, save_model

class Loud(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, x):
        return 1e4 * self.model(x)

def honest():
    return load_model({path!r})

def loud():
    return Loud(load_model({path!r}))

class Slow(Loud):
    def forward(self, x):
        time.sleep(float(os.environ.get("NAP", "0")))
        return self.model(x)

def slow():
    return Slow(load_model({path!r}))

def zero():
    network = load_model({path!r})
    network.register_forward_hook(lambda module, args, logits: 0 * logits)
    return network

class Locked(Loud):
    def __init__(self):
        super().__init__(load_model({path!r}))
        self.lock = threading.Lock()

class Squeezed(Loud):
    def __init__(self):
        super().__init__(load_model({path!r}))

    def forward(self, x):
        return self.model(x).squeeze()

def five():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))

class Stone(torch.nn.Module):
    def forward(self, x):
        return x.detach().flatten(1)[:, :10]
"""


@pytest.fixture
def own(network: Path, tmp_path: Path) -> Path:
    file = tmp_path / "own_networks.py"
    file.write_text(OWN.format(path=str(network)))
    return file


def test_a_network_of_ones_own_has_the_same_flags(
    own: Path, evaluated: Path, tmp_path: Path, ray_cluster: None
) -> None:
    assert run(tmp_path / "out", None, "--model", f"{own}:honest", *FEW) == 0
    np.testing.assert_equal(flags(tmp_path / "out"), flags(evaluated))


def test_the_same_weights_in_another_network_are_another_evaluation(
    own: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--attacks", "clean", *NO_CHECKS, "--model"]
    assert run(tmp_path / "out", None, *words, f"{own}:honest") == 0
    before = result(tmp_path / "out")
    assert run(tmp_path / "out", None, *words, f"{own}:zero") == 2
    assert "network: " in capsys.readouterr().err
    assert result(tmp_path / "out") == before
    assert run(tmp_path / "out", None, *words, f"{own}:honest") == 0


def test_a_masked_gradient_is_told_in_the_rows(own: Path, tmp_path: Path, ray_cluster: None, capsys) -> None:
    attacks = ["--attacks", "clean", "pgd20", "--check_images", "60"]
    assert run(tmp_path / "out", None, "--model", f"{own}:loud", *attacks) == 0
    assert "logit_scale" in rows(tmp_path / "out")["pgd20"]["warnings"]
    assert "their size hides the gradient" in capsys.readouterr().out
    failed = [check["name"] for check in result(tmp_path / "out")["checks"] if not check["passed"]]
    assert {"logit_scale", "zero_gradients"} <= set(failed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "{own}:five"], "the network knows 5 classes, the data has 10"),
        (["--model", "{own}:Stone"], "cannot be differentiated with respect to its images, which fgsm, pgd20"),
        (["--model", "{own}:honset"], "did you mean honest"),
        (["--model", "{own}:honest", "--mean", "0", "0", "0"], "mean and std belong together"),
        (["--model", "{own}:Locked"], "the network cannot be sent to workers (TypeError: cannot pickle '_thread.lock'"),
        (["--model", "{own}:Squeezed"], "the network must give logits [batch, classes], got [10] for 1 image"),
        (["--model", "{own}:honest", "--which", "best"], "which says best or last of a run's folder"),
        (["--checkpoint", "{own}.pt"], "own_networks.py.pt does not exist"),
        ([], "what is to be evaluated? Give --checkpoint DIR, or --model FILE.py:NAME"),
    ],
)
def test_a_network_of_ones_own_that_does_not_fit(
    options: list[str], message: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", None, *(option.format(own=own) for option in options)) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_autoattack_wants_ten_classes(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--num_classes", "5", "--model", f"{own}:five", "--attacks", "clean", "autoattack"]
    assert run(tmp_path / "out", None, *options) == 2
    said = capsys.readouterr().err
    assert "autoattack need at least 10 classes, the data has 5" in said
    assert "evaluate it with autoattack_t4, which aims at the 4 wrong classes that there are" in said


def test_autoattack_with_fewer_targets_is_pyautoattacks_with_fewer(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """On five classes of digits; under a name of its own."""
    five = ["--num_classes", "5", "--num_test", "40", "--num_train", "150"]
    recipe = ["--recipe", "fast", "--epochs", "12", "--batch_size", "32", "--num_steps", "3", "--precision", "fp32"]
    words = [*DATA, *five, *recipe, "--method", "pgd_at", "--arch", "tinynet", "--out", str(tmp_path / "network")]
    assert train(last_ones(words)) == 0
    words = [*five, "--attacks", "autoattack_t4", "--epsilon", "0.08"]
    assert run(tmp_path / "out", tmp_path / "network", *words, *NO_CHECKS) == 0
    found = flags(tmp_path / "out")
    parts = ["apgd-ce", "apgd-t4", "fab-t4", "square"]
    assert list(found) == [*(f"autoattack_t4:{part}" for part in parts), "autoattack_t4"]
    test = load_dataset("digits", num_train=150, num_test=40, num_classes=5).test
    x, y = torch.from_numpy(test.images).permute(0, 3, 1, 2).contiguous() / 255, torch.from_numpy(test.labels)
    model = load_model(str(tmp_path / "network")).requires_grad_(False)
    rival = AutoAttack(model, eps=0.08, seed=0, version="standard", device="cpu")
    rival.apgd_targeted.n_target_classes = rival.fab.n_target_classes = 4
    theirs = (model(rival.run_standard_evaluation(x, y, batch_size=40)[0]).argmax(1) == y).numpy()
    assert 5 < theirs.sum() < 35
    assert (found["autoattack_t4"] != theirs).sum() <= 1


# -------------------------------------------------------------------------------------------------- kill -9

DRILL = ["--attacks", "clean", "pgd20", "cw20", "apgd-ce", "--batch_size", "4", *NO_CHECKS]
NAP = "0.04"  # seconds before each pass through the network: one for a unit of twenty steps, of which there are many


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_driver_change_nothing(
    network: Path, own: Path, tmp_path: Path, ray_cluster: None
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run(undisturbed, network, *DRILL) == 0
    slow = ["--model", f"{own}:slow", *DRILL]
    command = [sys.executable, "-m", "bat_dist.evaluate", *DATA, *slow, "--out", str(killed)]
    with subprocess.Popen(
        [*command, "--ray_address", "local", "--num_workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "NAP": NAP},
    ) as driver:
        wait_for_more_units(killed, 0, driver)
        kill_a_worker(driver)
        wait_for_more_units(killed, num_units(killed), driver)
        assert driver.poll() is None, "it ended before it was killed"
        driver.kill()
    done = num_units(killed)
    assert run(killed, None, *slow) == 0
    assert num_units(killed) > done
    np.testing.assert_equal(flags(killed), flags(undisturbed))


def num_units(out: Path) -> int:
    return len(list(out.glob("units/*/digest/c*")))


def wait_for_more_units(out: Path, before: int, driver: subprocess.Popen) -> None:
    def more() -> bool:
        assert driver.poll() is None, "it ended by itself"
        return num_units(out) > before

    until(more, what=f"more than {before} units")


def kill_a_worker(driver: subprocess.Popen) -> None:
    """kill -9 of one of this driver's workers."""

    def killed() -> bool:
        for process in psutil.process_iter(["cmdline"]):
            if "ray::Worker.run" in " ".join(process.info["cmdline"] or []) and descends(process, driver.pid):
                process.kill()
                return True
        return False

    until(killed, what="worker to be killed")


def descends(process: psutil.Process, pid: int) -> bool:
    return pid in [parent.pid for parent in process.parents()]
