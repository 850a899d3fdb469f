"""A folder of other results: what holds none is replaced, what holds some is refused, and `--fresh` replaces it."""

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bat_dist.errors import UserError
from bat_dist.evaluate import main as evaluate
from bat_dist.memorize import main as memorize
from bat_dist.reproduce import main as reproduce
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.train import main as train
from bat_dist.tune import main as tune
from tests.helpers.options import last_ones

DATA = ["--dataset", "digits", "--num_train", "60", "--num_test", "20", "--precision", "fp32"]
TRIALS = [*DATA, "--epochs", "1", "--batch_size", "32", "--loader", "memory", "--num_trials", "2"]
TRAINING = shlex.split(
    f"{shlex.join(DATA)} --method pgd_at --recipe fast --epochs 1 --batch_size 32 --num_steps 1 --loader memory"
)
ATTACKS = ["--attacks", "clean", "fgsm", "--check_images", "0"]
BASE = shlex.split(
    "method=erm dataset=digits num_train=60 num_test=20 epochs=1 batch_size=32 recipe=fast precision=fp32"
)
SWEEP = ["--base", *BASE, "--space", "lr=[0.1]", "--seeds", "0", "--test_attacks", "clean"]
PARTS = ["--memorize", "num_trials=8", "epochs=1", "--train", "num_val=20", "num_steps=1", "epochs=1"]
EXPERIMENT = shlex.split("--table 1 --scale small --num_train 60 --num_test 20 --methods erm --seeds 0 --attacks clean")
OWN = "notes of the user's own.txt"
ADVICE = "use another --out, or --fresh to replace it"


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


@contextmanager
def no_cluster(*_: object, **__: object) -> Iterator[None]:
    """In the place of `job_session`."""
    raise UserError("no Ray cluster answers")
    yield


def nothing_is_removed(verb: Callable[[list[str]], int], words: list[str], module: str, place: Path) -> bool:
    """For a job that will not start."""
    before = files(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"bat_dist.jobs.{module}.job_session", no_cluster)
        assert verb([*words, "--fresh"]) == 2
    return files(place) == before


@pytest.mark.usefixtures("ray_cluster")
def test_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert memorize([*TRIALS, "--out", str(tmp_path)]) == 0
    assert memorize([*TRIALS, "--score", "confidence", "--num_members", "2", "--out", str(tmp_path)]) == 0
    (tmp_path / OWN).touch()
    before = files(tmp_path)
    other = ["--seed", "1", "--out", str(tmp_path)]
    assert memorize([*TRIALS, *other]) == 2
    assert ADVICE in capsys.readouterr().err
    assert files(tmp_path) == before
    assert nothing_is_removed(memorize, [*TRIALS, *other], "memorize", tmp_path)
    assert memorize([*TRIALS, *other, "--fresh"]) == 0
    assert (tmp_path / OWN).exists()
    assert {name for name in files(tmp_path) if "ensemble" in name} == set()
    assert json.loads((tmp_path / "summary.json").read_text())["settings"]["seed"] == 1


@pytest.mark.usefixtures("ray_cluster")
def test_trials_of_other_settings_of_which_none_is_finished_are_replaced(tmp_path: Path) -> None:
    place = Folder(tmp_path) / "trials"
    RowStore.open(place, fields={"mask": Field("bool", (7,))}, identity={"precision": "bf16"}, num_rows=12)
    assert memorize([*TRIALS, "--out", str(tmp_path)]) == 0
    store = RowStore.existing(place)
    assert store is not None
    assert store.identity["precision"] == "fp32"


def test_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train([*TRAINING, "--out", str(tmp_path)]) == 0
    (tmp_path / OWN).touch()
    before = files(tmp_path)
    assert train([*TRAINING, "--seed", "1", "--out", str(tmp_path)]) == 2
    assert ADVICE in capsys.readouterr().err
    assert files(tmp_path) == before
    assert train([*TRAINING, "--seed", "1", "--out", str(tmp_path), "--fresh"]) == 0
    assert files(tmp_path) == before
    assert train([*TRAINING, "--seed", "1", "--out", str(tmp_path / "alone")]) == 0
    name = "last.safetensors"
    assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert train(["--out", str(tmp_path)]) == 0  # of what the new one noted, without fresh


@pytest.mark.usefixtures("ray_cluster")
def test_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("0", "1"):
        assert train([*TRAINING, "--seed", seed, "--out", str(tmp_path / seed)]) == 0
    out = tmp_path / "out"
    assert (
        evaluate(
            [
                "--attacks",
                "clean",
                "pgd2",
                "--check_images",
                "0",
                "--checkpoint",
                str(tmp_path / "0"),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    (out / OWN).touch()
    before = files(out)
    words = [*ATTACKS, "--checkpoint", str(tmp_path / "1"), "--out", str(out)]
    assert evaluate(words) == 2
    assert ADVICE in capsys.readouterr().err
    assert files(out) == before
    assert nothing_is_removed(evaluate, words, "evaluate", out)
    assert evaluate([*words, "--fresh"]) == 0
    assert (out / OWN).exists()
    found = json.loads((out / "evaluation.json").read_text())
    assert {row["attack"] for row in found["rows"]} == {"clean", "fgsm"}  # pgd2 was the other network's


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune([*SWEEP, "--out", str(tmp_path)]) == 0
    (tmp_path / OWN).touch()
    before = files(tmp_path)
    other = ["--base", *BASE, "num_val=30", *SWEEP[len(BASE) + 1 :], "--out", str(tmp_path)]
    assert tune(other) == 2
    assert ADVICE in capsys.readouterr().err
    assert files(tmp_path) == before
    assert nothing_is_removed(tune, other, "tune", tmp_path)
    assert tune(last_ones([*other, "--test_attacks", "none", "--fresh"])) == 0
    assert files(tmp_path) == {name for name in before if not name.startswith("test/")}
    (run,) = tmp_path.glob("runs/*/*/run.json")
    assert json.loads(run.read_text())["identity"]["num_val"] == 30


@pytest.mark.usefixtures("ray_cluster")
def test_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*EXPERIMENT, *PARTS, "--out", str(tmp_path)]
    assert reproduce(words) == 0
    (tmp_path / OWN).touch()
    before = files(tmp_path)
    other = ["num_val=30" if word == "num_val=20" else word for word in words]
    assert reproduce(other) == 2
    assert ADVICE in capsys.readouterr().err
    assert files(tmp_path) == before
    assert nothing_is_removed(reproduce, other, "reproduce", tmp_path)
    assert reproduce([*other, "--fresh"]) == 0
    assert files(tmp_path) == before
    (run,) = tmp_path.glob("runs/*/*/run.json")
    assert json.loads(run.read_text())["identity"]["num_val"] == 30


def test_what_another_program_left_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train([*TRAINING, "--out", str(tmp_path)]) == 0
    shutil.copy(tmp_path / "run.json", tmp_path / "evaluation.json")
    before = files(tmp_path)
    assert train([*TRAINING, "--out", str(tmp_path), "--fresh"]) == 2
    assert "holds results of bat-dist evaluate too, which fresh is not to touch" in capsys.readouterr().err
    assert files(tmp_path) == before
