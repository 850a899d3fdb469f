"""`memorize --keep probability`: what it adds to the trial store, and that it changes nothing else."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.artifacts.scores import TRIALS, Trials
from bat_dist.config import parse
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.jobs import memorize as job
from bat_dist.jobs.scores import leave_out_scores
from bat_dist.memorize import main
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.training.correctness import true_class_probability
from bat_dist.training.trial import TrialSettings, run_trial

ASKED = shlex.split(
    "--dataset digits --num_train 100 --num_test 50 --arch tinynet --epochs 2 --batch_size 20 --loader memory "
    "--precision fp32 --num_trials 3 --out"
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=100, num_test=50)


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> list[dict[str, np.ndarray]]:
    loaders = {f"{name}_loader": dataset_loader("memory", dataset, name) for name in ("train", "test")}
    settings = trial_settings()
    how = {"settings": settings, "dataset": dataset, "device": torch.device("cpu"), **loaders}
    return [run_trial(number, **how) for number in range(3)]


def trial_settings() -> TrialSettings:
    asked = parse(MemorizeSettings, [*ASKED, "x"], prog="")[0]
    return TrialSettings("tinynet", asked.training, "fp32", 0.7, "uniform", 0)


def filled(place: Path, dataset: Dataset, rows: list[dict[str, np.ndarray]], *, keep: bool, number: int = 3) -> Folder:
    """A folder of which `memorize` believes that it has run the trials itself; it is asked as a job asks."""
    folder = Folder(place)
    words = [*ASKED, str(place), *(["--keep", "probability"] if keep else [])]
    settings = parse(MemorizeSettings, words, prog="")[0]
    fields = {
        "mask": Field("bool", (100,)),
        "train_correct": Field("bool", (100,)),
        "train_predicted": Field("uint16", (100,)),
        "test_correct": Field("bool", (50,)),
        "metrics": Field("float64", (2,)),
        **job._probabilities(folder / TRIALS, settings, (100,), (50,)),
    }
    identity = job.identity_of_rows(trial_settings(), dataset)
    store = RowStore.open(folder / TRIALS, fields=fields, identity=identity, num_rows=number)
    for trial in range(number):
        store.write(trial, rows[trial])
    return folder


def read(folder: Folder) -> Trials:
    store = RowStore.existing(folder / TRIALS)
    assert store is not None
    return Trials.read(store)


def test_the_probability_is_that_of_the_own_class() -> None:
    softmax = np.array([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8], [np.nan, 0.5, 0.5]], np.float32)
    found = true_class_probability(softmax, np.array([0, 2, 0]))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([0.25, 0.8, np.nan], np.float16))


def test_a_trial_gives_it_beside_its_correctness(dataset: Dataset, rows: list[dict[str, np.ndarray]]) -> None:
    for row in rows:
        for split, number in (("train", 100), ("test", 50)):
            probability, correct = row[f"{split}_probability"], row[f"{split}_correct"]
            assert (probability.shape, probability.dtype) == ((number,), np.float16)
            assert correct[probability > 0.5].all()  # no other class can have more
            assert not correct[probability < 0.1].any()  # of ten classes one has at least a tenth
        assert row["train_probability"].std() > 0


def test_kept_or_not_all_else_is_the_same(dataset: Dataset, rows: list[dict[str, np.ndarray]], tmp_path: Path) -> None:
    kept = read(filled(tmp_path / "kept", dataset, rows, keep=True))
    usual = read(filled(tmp_path / "usual", dataset, rows, keep=False))
    assert usual.train_probability is usual.test_probability is None
    assert kept.train_probability is not None
    assert kept.test_probability is not None
    np.testing.assert_array_equal(kept.train_probability, [row["train_probability"] for row in rows])
    np.testing.assert_array_equal(kept.test_probability, [row["test_probability"] for row in rows])
    for name in ("mask", "train_correct", "test_correct", "train_predicted"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(usual, name))
    for place in ("kept", "usual"):
        settings = parse(MemorizeSettings, [*ASKED, str(tmp_path / place)], prog="")[0]
        leave_out_scores(Folder(tmp_path / place), dataset, settings)
    one, other = (Folder(tmp_path / place).read_npz("memorization.npz") for place in ("kept", "usual"))
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_finished_trials_cannot_be_given_it_later(
    dataset: Dataset, rows: list[dict[str, np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = filled(tmp_path, dataset, rows, keep=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([*ASKED, str(tmp_path), "--keep", "probability"]) == 2
    said = capsys.readouterr().err
    assert f"{folder / TRIALS} holds trials without probabilities" in said
    assert "leave keep out, or begin anew in another --out, or here with --fresh" in said
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_that_keeps_it_goes_on_so_without_being_told(
    dataset: Dataset, rows: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    filled(tmp_path, dataset, rows, keep=True, number=2)
    trials = read(filled(tmp_path, dataset, rows, keep=False))
    assert trials.train_probability is not None
    assert trials.train_probability.shape == (3, 100)


def test_a_store_without_a_row_may_get_it(dataset: Dataset, rows: list[dict[str, np.ndarray]], tmp_path: Path) -> None:
    filled(tmp_path, dataset, rows, keep=False, number=0)
    assert read(filled(tmp_path, dataset, rows, keep=True)).test_probability is not None


@pytest.mark.parametrize("other", ["--score disagreement", "--import_scores x.npz"])
def test_it_is_of_leave_out_trials(other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASKED, str(tmp_path / "x"), "--keep", "probability", *other.split()]) == 2
    assert "keep is of leave-out trials" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
