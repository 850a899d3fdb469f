"""`memorize --merge` and `--first_trial`: the trials of several clusters are those of one, or are refused."""

import itertools
import logging
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.artifacts.scores import Trials
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.errors import UserError
from bat_dist.jobs import fill_rows as filling
from bat_dist.jobs.call import settings_of_call
from bat_dist.jobs.merge import merge_folders
from bat_dist.jobs.scores import ensemble_scores, leave_out_scores
from bat_dist.memorize import main
from bat_dist.settings.known import of_merge
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage import compaction, status
from bat_dist.storage.computed_on import HardwareLog, read_hardware
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import ComputedOn
from bat_dist.storage.rows import RowStore
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.resources import Resources
from tests.helpers.made_trials import (
    ASKED,
    FIELDS,
    NUM_TRAIN,
    OF_MEMBERS,
    PROBABILITIES,
    made_row,
    made_trials,
    settings_for,
)

SCORES = ("memorization.npz", "influence.npz", "typicality.npz", "feldman_zhang.npz")
MET_BY_TEN = ("--num_trials", "auto", "--stop_when", "width", "--precision_target", "1.9")
HERE: ComputedOn = {"cpu": "EPYC", "threads": 1}
THERE: ComputedOn = {"cpu": "Xeon", "threads": 4, "gpu": "NVIDIA H100"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=NUM_TRAIN, num_test=50)


@pytest.fixture
def made(tmp_path: Path, dataset: Dataset) -> Any:
    return lambda name, *args, **named: made_trials(str(tmp_path / name), dataset, *args, **named)


def merged(dataset: Dataset, out: Path | str, *sources: Folder | str, words: tuple[str, ...] = ()) -> MemorizeSettings:
    """Merge, and nothing else."""
    settings = settings_for(str(out), *words, "--merge", *map(str, sources))
    return merge_folders(Folder(out), dataset, settings, settings.merge or ())


def trials_in(place: Path | str) -> Trials:
    store = RowStore.existing(Folder(place) / "trials")
    assert store is not None
    return Trials.read(store)


def assert_are(trials: Trials, numbers: list[int], dataset: Dataset) -> None:
    assert trials.numbers.tolist() == numbers
    for name in ("mask", "train_correct", "train_predicted", "test_correct"):
        expected = [made_row(number, dataset.train.labels)[name] for number in numbers]
        np.testing.assert_array_equal(getattr(trials, name), expected)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != ".driver.lock"}


# --------------------------------------------------------------------------------------------------- what it makes


def test_two_clusters_are_one(
    made: Any,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told nothing but the folders; the result is a folder as any other, which the same command goes on with."""
    monkeypatch.setattr("bat_dist.reporting.memorization._leave_out_figures", lambda *_: {})  # seconds of drawing
    one, other, whole = made("a", range(6)), made("b", range(4, 10)), made("whole", range(10))
    for folder, hardware in ((one, HERE), (other, THERE)):
        HardwareLog(folder, "trials").add([hardware])
        folder.write("logs/trials-4.jsonl", b'{"event": "done"}\n')
    other.write("logs/trials-7.jsonl", b'{"event": "started"}\n')
    before, out = files(tmp_path), tmp_path / "out"
    with caplog.at_level(logging.INFO):
        assert main(["--merge", str(one), str(other), "--out", str(out)]) == 0
    assert f"{one}: 6 trials" in caplog.text
    assert f"{other}: 4 trials, and 2 more that are in folders before it, with equal values" in caplog.text
    assert "10 complete, 0 failed" in capsys.readouterr().out
    assert {name: content for name, content in files(tmp_path).items() if not name.startswith("out/")} == before
    assert_are(trials_in(out), list(range(10)), dataset)
    leave_out_scores(whole, dataset, settings_for(str(whole), "--num_trials", "10"))
    for name in SCORES:
        found, expected = Folder(out).read_npz(name), whole.read_npz(name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=f"{name}: {key}")
    assert read_hardware(Folder(out), "trials") == [HERE, THERE]
    assert Folder(out).names("logs/*.jsonl") == ["trials-4.jsonl", "trials-7.jsonl"]

    again, _ = settings_of_call("memorize", MemorizeSettings, ["--out", str(out)], "", "")
    assert (again.first_trial, again.num_trials, again.merge, again.arch) == (0, 10, None, "tinynet")
    _, filled = leave_out_scores(Folder(out), dataset, again)
    assert (filled.kept, filled.computed, filled.failed) == (10, 0, {})


def test_a_rule_is_asked_of_what_was_merged_by_a_later_call(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    """The merge itself takes all trials, also those of a folder whose rule needed fewer."""
    one, other, out = made("a", range(7), words=MET_BY_TEN), made("b", range(5, 12)), tmp_path / "out"
    asked, _ = settings_of_call(
        "memorize", MemorizeSettings, ["--merge", str(one), str(other), "--out", str(out)], "", "", data=of_merge
    )
    assert (asked.num_trials, asked.stop_when, asked.precision_target, asked.epochs) == (1000, None, None, 2)
    scores, filled = leave_out_scores(
        Folder(out), dataset, merge_folders(Folder(out), dataset, asked, asked.merge or ())
    )
    assert scores.trials is not None
    assert (scores.enough, scores.trials.numbers.tolist()) == (None, list(range(12)))
    for words, found in ((MET_BY_TEN, list(range(10))), (("--num_trials", "12"), list(range(12)))):
        again, _ = settings_of_call("memorize", MemorizeSettings, ["--out", str(out), *words], "", "")
        assert again.first_trial == 0
        scores, filled = leave_out_scores(Folder(out), dataset, again)
        assert scores.trials is not None
        assert (scores.trials.numbers.tolist(), filled.computed) == (found, 0)
        assert (out / "sequential.json").exists() == (words == MET_BY_TEN)


def test_trials_that_a_rule_has_ended_are_compact_and_others_can_be_added(
    made: Any, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BLOCK", 8)
    folder = made("a", range(10))
    asked = settings_for(str(folder), *MET_BY_TEN)
    scores, _ = leave_out_scores(folder, dataset, asked)
    assert scores.enough is not None
    store = RowStore.existing(folder / "trials")
    assert store is not None
    assert store.arrays["mask"].shards is not None
    for number in (10, 11):
        store.write(number, made_row(number, dataset.train.labels))
    assert_are(trials_in(str(folder)), list(range(12)), dataset)


def test_numbers_may_begin_anywhere_and_have_gaps(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    one, other = made("a", [7, 8]), made("b", [11, 12])
    settings = merged(dataset, tmp_path / "out", other, one)
    assert_are(trials_in(tmp_path / "out"), [7, 8, 11, 12], dataset)
    assert (settings.first_trial, settings.num_trials) == (7, 6)
    scores, filled = leave_out_scores(Folder(tmp_path / "out"), dataset, settings)
    assert (filled.kept, filled.computed) == (4, 0), "what lacks is for the command without merge"
    assert scores.trials is not None
    assert scores.trials.numbers.tolist() == [7, 8, 11, 12]


def test_folders_may_be_anywhere_and_auto_is_what_they_have(dataset: Dataset) -> None:
    places = [f"memory://{uuid.uuid4().hex}" for _ in range(3)]
    for place, numbers in zip(places, (range(3), range(3, 5)), strict=False):
        made_trials(place, dataset, numbers)
    settings = MemorizeSettings(dataset="digits", num_train=100, num_test=50, epochs=2, batch_size=20, out="x")
    assert (settings.arch, settings.precision) == ("auto", "auto")
    found = merge_folders(Folder(places[2]), dataset, settings, places[:2])
    assert (found.arch, found.precision) == ("tinynet", "fp32")
    assert_are(trials_in(places[2]), list(range(5)), dataset)


def test_a_folder_with_trials_gets_the_others(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    out, other = made("out", range(3)), made("b", range(2, 6))
    before = files(tmp_path / "out")
    assert merged(dataset, str(out), other).num_trials == 6
    assert_are(trials_in(str(out)), list(range(6)), dataset)
    now = files(tmp_path / "out")
    assert [name for name in before if now[name] != before[name] and name.startswith("trials/mask/c.")] == []


def test_fresh_begins_anew(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    out, other = made("out", range(3)), made("b", [5, 6])
    merged(dataset, str(out), other, words=("--fresh",))
    assert_are(trials_in(str(out)), [5, 6], dataset)


def test_a_kill_in_the_middle_is_completed_by_the_next_call(
    made: Any, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, write = made("a", range(4)), made("b", range(4, 8)), RowStore.write
    turns = itertools.count()

    def killed(self: RowStore, row: int, values: Any) -> None:
        if next(turns) == 5:
            raise KeyboardInterrupt
        write(self, row, values)

    monkeypatch.setattr(RowStore, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        merged(dataset, tmp_path / "out", one, other)
    monkeypatch.undo()
    assert_are(trials_in(tmp_path / "out"), list(range(5)), dataset)
    merged(dataset, tmp_path / "out", one, other)
    assert_are(trials_in(tmp_path / "out"), list(range(8)), dataset)


def test_damaged_rows_are_not_taken_and_are_named(
    made: Any, dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that another folder has are taken from there."""
    one, other = made("a", range(5)), made("b", range(3, 8))
    for name, number in (("a", 1), ("a", 4), ("b", 6)):
        (tmp_path / name / f"trials/mask/c.{number}.0").unlink()
    with caplog.at_level(logging.INFO):
        merged(dataset, tmp_path / "out", one, other)
    assert f"{one}: damaged, and not taken: trials 1, 4" in caplog.text
    assert f"{other}: damaged, and not taken: trial 6" in caplog.text
    assert_are(trials_in(tmp_path / "out"), [0, 2, 3, 4, 5, 7], dataset)


def test_fields_that_not_all_have_are_left_out(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    without = {name: one for name, one in FIELDS.items() if name != "train_predicted"}
    kept = made("a", range(3), fields={**FIELDS, **PROBABILITIES})
    usual, old = made("b", range(2, 5)), made("c", range(4, 6), fields=without)
    settings = merged(dataset, tmp_path / "out", kept, usual, words=("--keep", "probability"))
    assert settings.keep is None
    assert trials_in(tmp_path / "out").train_probability is None
    assert_are(trials_in(tmp_path / "out"), list(range(5)), dataset)
    merged(dataset, tmp_path / "oldest", kept, usual, old)
    assert trials_in(tmp_path / "oldest").train_predicted is None
    assert trials_in(tmp_path / "oldest").numbers.tolist() == list(range(6))
    with pytest.raises(UserError, match="has train_predicted of its trials, and not all of those to merge have"):
        merged(dataset, tmp_path / "out", old)


def test_members_are_merged_too(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    one, other, whole = (made(n, r, fields=OF_MEMBERS) for n, r in (("a", range(3)), ("b", range(5)), ("c", range(5))))
    words = ("--score", "disagreement")
    settings = merged(dataset, tmp_path / "out", one, other, words=words)
    assert settings.num_members == 5
    found, filled = ensemble_scores(Folder(tmp_path / "out"), dataset, settings)
    assert (filled.kept, filled.computed) == (5, 0)
    expected, _ = ensemble_scores(whole, dataset, settings_for(str(whole), *words, "--num_members", "5"))
    for name, values in expected.scores.items():
        np.testing.assert_array_equal(found.scores[name], values)


# ------------------------------------------------------------------------------------------------ what it refuses


def test_rows_that_disagree_are_refused_with_their_numbers_and_hardware(
    made: Any, dataset: Dataset, tmp_path: Path
) -> None:
    flipped = {
        number: {name: ~made_row(number, dataset.train.labels)[name] for name in names}
        for number, names in ((3, ["test_correct"]), (5, ["test_correct", "train_correct"]))
    }
    one, other = made("a", range(7)), made("b", range(2, 9), changed=flipped)
    HardwareLog(one, "trials").add([HERE])
    HardwareLog(other, "trials").add([THERE])
    with pytest.raises(UserError) as caught:
        merged(dataset, tmp_path / "out", one, other)
    assert str(caught.value).startswith(
        f"{one} and {other} disagree on trials 3, 5, in test_correct, train_correct: the first was computed on cpu "
        "EPYC threads 1, the second on cpu Xeon threads 4 gpu NVIDIA H100. "
    )
    assert not (tmp_path / "out").exists()
    out = made("out", [5])
    with pytest.raises(UserError, match=rf"{out} and {other} disagree on trial 5, in .*hardware that is not recorded"):
        merged(dataset, str(out), other)
    assert_are(trials_in(str(out)), [5], dataset)


def test_trials_of_other_settings_are_refused_by_name(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    one = made("a", range(2))
    other = made_trials(
        str(tmp_path / "b"), load_dataset("digits", num_train=100, num_test=50, num_classes=5), [2], fields=FIELDS
    )
    with pytest.raises(
        UserError, match=f"{other} holds trials of other settings or data.*data_fingerprint: "
    ) as caught:
        merged(dataset, tmp_path / "out", one, other)
    assert "arch" not in str(caught.value)
    assert "fresh" not in str(caught.value), "which would remove the results of another cluster"
    with pytest.raises(UserError, match=r"seed: 0 in the store, 7 now"):
        merged(dataset, tmp_path / "out", one, words=("--seed", "7"))
    assert not (tmp_path / "out").exists()


def test_what_is_no_folder_of_trials(made: Any, dataset: Dataset, tmp_path: Path) -> None:
    one, empty = made("a", range(2)), made("empty", [])
    for sources, message in (
        ((one, tmp_path / "a" / ".." / "a"), "is given twice"),
        ((one, tmp_path / "out"), "is the result folder itself"),
        ((one, tmp_path / "none"), "none holds no finished trials: name folders of bat-dist memorize"),
        ((one, empty), "empty holds no finished trials"),
    ):
        with pytest.raises(UserError, match=message):
            merged(dataset, tmp_path / "out", *map(str, sources))
    Folder(tmp_path / "out").write_npz("memorization.npz", mem=np.zeros(3))
    with pytest.raises(UserError, match="holds scores without trials, which were imported"):
        merged(dataset, tmp_path / "out", one)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--merge a --import_scores x.npz", "give one of them"),
        ("--first_trial 3 --score disagreement", "first_trial is of leave-out trials"),
        ("--first_trial -1", "first_trial"),
        ("--merge nowhere", "dataset is required"),
        (
            "--num_trials auto --first_trial 500",
            "num_trials auto counts the trials from number 0 on, and first_trial is 500: give a number for num_trials, "
            "or first_trial 0",
        ),
        ("--num_trials auto --merge a", "leave num_trials out, and give auto to a later call with the same out"),
    ],
)
def test_bad_input(words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [] if "nowhere" in words else ASKED
    assert main([*given, *words.split(), "--out", str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# -------------------------------------------------------------------------------------------------- first_trial


def test_only_trials_from_the_first_on_are_run(
    made: Any, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, asked = made("a", [2, 6]), []

    def none_run(units: list[int], *_: Any, **__: Any) -> Iterator[Any]:
        asked.extend(units)
        return iter(())

    monkeypatch.setattr(filling, "run_units", none_run)
    store = RowStore.existing(folder / "trials")
    assert store is not None
    store = RowStore.open(folder / "trials", fields=store.fields, identity=store.identity, num_rows=9)
    fill = partial(
        filling.fill_rows, store, folder, 4, lambda: lambda unit: {}, [], what="trials", resources=Resources(1, 0)
    )
    with Heartbeat(folder, "trials", total=4, first=5) as heart:
        filled = fill(num_workers=1, give_up_on=(), heart=heart, first=5)
    assert asked == [5, 7, 8]
    assert filled.kept == 1
    assert folder.read_json("progress.json")["first"] == 5


def test_a_share_is_complete_when_its_numbers_are_there(made: Any, dataset: Dataset) -> None:
    folder = made("a", range(5, 9), words=["--first_trial", "5", "--num_trials", "4"])
    again, _ = settings_of_call("memorize", MemorizeSettings, ["--out", str(folder)], "", "")
    assert (again.first_trial, again.num_trials) == (5, 4)
    scores, filled = leave_out_scores(folder, dataset, again)
    assert (filled.kept, filled.computed) == (4, 0)
    assert scores.trials is not None
    assert scores.trials.numbers.tolist() == [5, 6, 7, 8]
    with Heartbeat(folder, "trials", total=4, first=5) as heart:
        heart.begin(4)
    said = status.describe(folder)
    assert f"{folder}/trials: 4 trials complete, of numbers 5 to 8" in said
    assert "all 4 trials done" in said
