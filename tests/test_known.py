"""What folders know need not be said: settings of an earlier call, data of a checkpoint or of scores."""

import dataclasses
import json
import logging
import uuid
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from bat_dist.config import Given, Group, Help, dump_yaml, parse, status_asked
from bat_dist.errors import ConfigError, UserError
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.known import of_checkpoint, of_scores, of_scores_in_base, resumed
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings, find_config, scores_beside
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings

TRAINED = {"method": "pgd_at", "dataset": "digits", "num_train": 300, "num_test": 100, "num_workers": 4}


@pytest.fixture(autouse=True)
def _memory_outlives_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it does: this process is the program."""
    monkeypatch.setattr("bat_dist.storage.places._LOST", frozenset())


@pytest.fixture
def place() -> Folder:
    return Folder(f"memory://{uuid.uuid4().hex}")


DATA = {"evaluate": of_checkpoint, "train": of_scores, "tune": of_scores_in_base}


def read(kind: Any, *words: str) -> Any:
    verb = kind.__name__.removesuffix("Settings").lower()
    known = resumed(verb, kind, DATA[verb]) if verb in DATA else resumed(verb, kind)
    return parse(kind, words, prog=verb, known=known)


# --- the mechanism


@dataclasses.dataclass(frozen=True)
class Toy:
    out: Annotated[str, Help("folder", "DIR")]
    rows: Annotated[int, Ge(1), Help("rows")]
    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    cores: Annotated[int, Help("cores"), Group("Ray")] = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows == self.seed:
            raise ValueError("rows and seed must differ")


def toy(found: dict[str, Any], *words: str) -> Toy:
    return parse(Toy, words, prog="toy", known=lambda _: {n: Given(v, "d/x.yaml") for n, v in found.items()})[0]


def test_given_over_known_over_defaults(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bat_dist")
    known = {"rows": 7, "seed": 0, "base": {"a": 1, "b": 2}, "of_a_newer_version": 5}
    assert toy(known, "--out", "o", "--base", "b=3") == Toy("o", 7, {"a": 1, "b": 3}, 1, 0)
    assert toy(known, "--out", "o", "--rows", "9") == Toy("o", 9, {"a": 1, "b": 2}, 1, 0)
    assert caplog.messages == ["from d/x.yaml: rows 7, base a=1", "from d/x.yaml: base a=1 b=2"]


def test_what_a_folder_knows_is_checked_as_what_is_given() -> None:
    with pytest.raises(ConfigError) as refused:
        toy({"rows": 0}, "--seed", "x")
    assert refused.value.errors == [
        "out is required: --out DIR",
        "rows must be a whole number >= 1, got 0 (d/x.yaml): give --rows",
        "seed must be a whole number, got x (command line)",
    ]
    with pytest.raises(ConfigError) as refused:
        toy({"rows": 5}, "--out", "o", "--seed", "5")
    assert refused.value.errors == ["rows and seed must differ", "from d/x.yaml: rows 5"]


def test_status_needs_the_folder_alone() -> None:
    about = {"prog": "bat-dist train"}
    assert status_asked(TrainSettings, ["--out", "o"], **about) is None
    given = status_asked(TrainSettings, ["--status", "--out", "o", "--seed", "3"], **about)
    assert given
    assert {name: one.value for name, one in given.items()} == {"status": True, "out": "o", "seed": 3}
    with pytest.raises(ConfigError, match=r"^out is required: --out DIR$"):
        status_asked(TrainSettings, ["--status"], **about)


# --- a folder's own settings


def test_a_run_goes_on_by_its_folder_alone(place: Folder) -> None:
    words = ["--dataset", "digits", "--num_trials", "2000", "--out", place.location, "--cpus_per_trial", "2"]
    first, _ = read(MemorizeSettings, *words)
    note_settings(place, "memorize", first)
    again, sources = read(MemorizeSettings, "--out", place.location)
    assert again == dataclasses.replace(first, cpus_per_trial=1)  # where it runs is not taken
    assert sources["num_trials"] == f"{place}/config.yaml"
    more, _ = read(MemorizeSettings, "--out", place.location, "--num_trials", "3000")
    assert (more.num_trials, more.dataset) == (3000, "digits")


def test_a_complete_call_means_the_same_whatever_its_folder_holds(place: Folder) -> None:
    words = ["--dataset", "digits", "--out", place.location]
    note_settings(place, "memorize", read(MemorizeSettings, *words, "--score", "confidence", "--epochs", "5")[0])
    assert read(MemorizeSettings, *words)[0] == MemorizeSettings(dataset="digits", out=place.location)
    assert read(MemorizeSettings, "--out", place.location)[0].score == "confidence"


def test_the_file_of_a_run_is_one_for_config(place: Folder, tmp_path: Path) -> None:
    first, _ = read(MemorizeSettings, "--dataset", "digits", "--out", place.location)
    note_settings(place, "memorize", first)
    (tmp_path / "x.yaml").write_bytes(place.read("config.yaml"))
    assert parse(MemorizeSettings, ["--config", str(tmp_path / "x.yaml")], prog="memorize")[0] == first


def test_two_programs_in_one_folder_do_not_take_each_others_settings(place: Folder) -> None:
    trained = TrainSettings(**TRAINED, out=place.location, batch_size=32)
    note_settings(place, "train", trained)
    words = ["--checkpoint", place.location, "--out", place.location]
    judged, _ = read(EvaluateSettings, *words)
    assert (judged.batch_size, judged.num_train) == (None, 300)
    note_settings(place, "evaluate", dataclasses.replace(judged, batch_size=16))
    assert read(EvaluateSettings, "--out", place.location)[0].batch_size == 16
    assert read(TrainSettings, "--out", place.location)[0].batch_size == 32


def test_a_folder_of_an_older_version(place: Folder) -> None:
    with pytest.raises(ConfigError, match=r"^dataset is required: --dataset NAME$"):
        read(MemorizeSettings, "--out", place.location)
    old = TrainSettings(**TRAINED, out=place.location)
    place.write("config.yaml", (dump_yaml(old) + "gone: 1\n").replace("val_seed: 0\n", "").encode())
    assert read(TrainSettings, "--out", place.location)[0] == old  # the number of workers too, which decides the result
    with pytest.raises(ConfigError, match="dataset is required"):
        read(MemorizeSettings, "--out", place.location)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"dataset: [", b"# settings of bat-dist memorize\n- a\n"])
def test_a_damaged_file_is_one_clear_message(place: Folder, content: bytes) -> None:
    place.write("config.yaml", content)
    for kind in (MemorizeSettings, TrainSettings):
        with pytest.raises(ConfigError) as refused:
            read(kind, "--out", place.location)
        (line,) = refused.value.errors
        assert line.startswith(f"{place}/config.yaml is damaged: remove it, and give all settings again (")


def test_no_password_is_written_or_taken(place: Folder) -> None:
    given = TrainSettings(**TRAINED, out="s3://me:secret@b/run", scores="s3://me:secret@b/memorization.npz")
    note_settings(place, "train", given)
    assert b"secret" not in place.read("config.yaml")
    assert read(TrainSettings, "--out", place.location)[0].scores is None


def test_a_block_in_a_file_is_whole_and_one_on_the_command_line_is_not(place: Folder, tmp_path: Path) -> None:
    first, _ = read(
        TuneSettings, "--base", "method=pgd_at", "dataset=digits", "epochs=3", "--space", "lr=[0.1]", "--out", "x"
    )
    note_settings(place, "tune", first)
    typed, _ = read(TuneSettings, "--out", place.location, "--base", "epochs=5")
    assert typed.base == {"method": "pgd_at", "dataset": "digits", "epochs": 5}
    (tmp_path / "x.yaml").write_text("base: {method: pgd_at, dataset: digits}")
    words = ["--config", str(tmp_path / "x.yaml"), "--out", place.location]
    assert "epochs" not in read(TuneSettings, *words)[0].base


# --- the data of what a program starts from


@pytest.fixture
def trained(place: Folder) -> Folder:
    note_settings(place / "run", "train", TrainSettings(**TRAINED, out="x"))
    return place / "run"


def evaluate(*words: str) -> EvaluateSettings:
    return read(EvaluateSettings, "--out", "memory://nothing/there", *words)[0]


def test_an_evaluation_takes_the_data_of_the_training(trained: Folder) -> None:
    found = evaluate("--checkpoint", trained.location)
    assert (found.dataset, found.num_train, found.num_test, found.epsilon) == ("digits", 300, 100, None)
    assert evaluate("--checkpoint", f"{trained.location}/last.safetensors").num_train == 300
    assert evaluate("--checkpoint", trained.location, "--num_test", "50").num_test == 50
    assert evaluate("--checkpoint", trained.location, "--dataset", "digits").num_train == 300
    other = evaluate("--checkpoint", trained.location, "--dataset", "cifar10")
    assert (other.dataset, other.num_train) == ("cifar10", None)  # the network will be refused by its classes
    assert evaluate("--checkpoint", trained.location, "--model", "x.py:Net").num_train == 300  # of the user's own
    with pytest.raises(ConfigError, match="dataset is required"):
        evaluate("--checkpoint", f"{trained.location}/others.safetensors", "--model", "x.py:Net")


def test_an_evaluation_takes_the_epsilon_that_was_chosen_in_training(trained: Folder) -> None:
    note_settings(trained, "train", TrainSettings(**TRAINED, out="x", epsilon=0.1))
    assert evaluate("--checkpoint", trained.location).epsilon == 0.1
    assert evaluate("--checkpoint", trained.location, "--epsilon", "8/255").epsilon == 8 / 255


def test_an_exported_folder_knows_its_data(place: Folder) -> None:
    config = {"library_name": "bat_dist", "training": {"dataset": "digits", "epsilon": 16 / 255}}
    place.write_json("config.json", config)
    assert (evaluate("--checkpoint", place.location).dataset, evaluate("--checkpoint", place.location).epsilon) == (
        "digits",
        None,
    )
    config["data"] = {"dataset": "digits", "num_train": 300}
    config["training"]["epsilon"] = 0.1
    place.write_json("config.json", config)
    found = evaluate("--checkpoint", place.location)
    assert (found.num_train, found.epsilon) == (300, 0.1)
    place.write("config.json", json.dumps({"library_name": "others", "data": {"dataset": "cifar10"}}).encode())
    with pytest.raises(ConfigError, match="dataset is required"):
        evaluate("--checkpoint", place.location)


def test_data_that_are_not_there_any_more(trained: Folder, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    note_settings(trained, "train", TrainSettings(**{**TRAINED, "dataset": "cifar10"}, out="x", data_dir=gone))
    with pytest.raises(UserError) as refused:
        evaluate("--checkpoint", trained.location)
    wanted = f"data_dir {gone}, which {trained}/config.yaml names, is not there: give --data_dir DIR"
    assert str(refused.value) == wanted
    assert evaluate("--checkpoint", trained.location, "--data_dir", "elsewhere").data_dir == "elsewhere"


@pytest.mark.parametrize("older", [False, True])
def test_a_training_takes_the_data_of_its_scores(place: Folder, older: bool) -> None:
    asked = MemorizeSettings(dataset="digits", num_train=300, num_test=100, out="x")
    if older:
        place.write_json("summary.json", {"settings": dataclasses.asdict(asked)})
    else:
        note_settings(place, "memorize", asked)
    words = ["--method", "bat", "--scores", f"{place.location}/memorization.npz", "--out", "memory://nothing/there"]
    found, _ = read(TrainSettings, *words)
    assert (found.dataset, found.num_train, found.num_test) == ("digits", 300, 100)
    assert read(TrainSettings, *words, "--dataset", "cifar10")[0].num_train is None


def test_a_sweep_takes_the_data_of_its_scores(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    note_settings(place, "memorize", MemorizeSettings(dataset="digits", num_train=300, out="x"))
    place.write("memorization.npz", b"")
    words = ["--space", "alpha=[0, 1]", "--base", "method=bat", f"scores={tmp_path}/memorization.npz", "--out", "x"]
    found, _ = read(TuneSettings, *words)
    assert (found.base["dataset"], found.base["num_train"]) == ("digits", 300)
    (tmp_path / "x.yaml").write_text("base: {method: bat, scores: memorization.npz}\nspace: {alpha: [0, 1]}\n")
    words = ["--config", str(tmp_path / "x.yaml"), "--base", "epochs=3", "--out", "x"]
    found = scores_beside(*read(TuneSettings, *find_config(words)))
    assert found.base == {
        **{"method": "bat", "scores": f"{tmp_path}/memorization.npz"},
        **{"dataset": "digits", "num_train": 300, "epochs": 3},
    }
