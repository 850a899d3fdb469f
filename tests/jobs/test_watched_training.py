"""`bat-dist train --watch` and `--train_subset`: which accuracies a history tells, and which samples are trained on."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bat_dist.artifacts.checkpoints import load_model
from bat_dist.artifacts.scores import write_indices
from bat_dist.data.datasets import Dataset, Split, fingerprint, load_dataset
from bat_dist.errors import UserError
from bat_dist.jobs.train import carry_out
from bat_dist.jobs.training_plan import make_plan
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder
from bat_dist.training.files import STATE, finished, read_history
from bat_dist.training.step import batch_sizes

ASKED: dict[str, Any] = {
    **{"dataset": "digits", "num_train": 100, "num_test": 40, "method": "pgd_at", "num_val": 20, "num_steps": 1},
    **{"arch": "tinynet", "recipe": "fast", "epochs": 3, "batch_size": 40, "precision": "fp32", "loader": "memory"},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=100, num_test=40)


@pytest.fixture
def sets(dataset: Dataset, tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    drawn = {f"{split}_{name}": random.random(n) < 0.4 for split, n in (("train", 100), ("test", 40)) for name in KINDS}
    Folder(str(tmp_path)).write_npz("sets.npz", **drawn, fingerprint=np.array(dataset.fingerprint))
    return str(tmp_path / "sets.npz")


KINDS = ("typical", "atypical")


def trained(dataset: Dataset, out: Path, **asked: Any) -> dict[str, torch.Tensor]:
    carry_out(make_plan(dataset, TrainSettings(**{**ASKED, **asked}, out=str(out))))
    return load_model(str(out), "last").state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_watching_tells_accuracies_of_the_network_and_leaves_the_training_as_it_is(
    dataset: Dataset, sets: str, tmp_path: Path
) -> None:
    weights = trained(dataset, tmp_path / "watched", watch=sets, watch_steps=2, watch_every=2)
    assert equal(weights, trained(dataset, tmp_path / "plain"))
    rows = list(csv.DictReader((tmp_path / "watched/history.csv").read_text().splitlines()))
    names = ("train_atypical", "test_atypical", "test_typical")
    columns = [f"{kind}_{name}" for name in names for kind in ("clean", "pgd")]
    assert [name for name in rows[0] if name.split("_")[0] in ("clean", "pgd")] == columns
    assert [all(row[name] for name in columns) for row in rows] == [
        False,
        True,
        True,
    ]  # every second epoch, and the last
    assert not any(rows[0][name] for name in columns)
    network, members = load_model(str(tmp_path / "watched"), "last"), dict(np.load(sets))
    held = make_plan(dataset, TrainSettings(**ASKED, out="x")).held
    members["train_atypical"][held.validation] = False  # which are not trained on
    for name in names:
        split: Split = getattr(dataset, name.split("_")[0])
        chosen = members[name]
        with torch.no_grad():
            images = torch.from_numpy(split.images[chosen]).permute(0, 3, 1, 2) / 255
            right = network(images).argmax(1).numpy() == split.labels[chosen]
        assert float(rows[2][f"clean_{name}"]) == right.mean()
        assert float(rows[2][f"pgd_{name}"]) <= right.mean()


def test_a_run_that_is_resumed_has_the_history_of_one_that_was_not(dataset: Dataset, sets: str, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die(row: Any) -> None:
        if row["epoch"] == 2:
            raise Killed

    asked = {**ASKED, "watch": sets, "watch_steps": 2}
    with pytest.raises(Killed):
        carry_out(make_plan(dataset, TrainSettings(**asked, out=str(tmp_path / "killed"))), on_epoch=die)
    weights = trained(dataset, tmp_path / "killed", watch=sets, watch_steps=2)
    assert equal(weights, trained(dataset, tmp_path / "whole", watch=sets, watch_steps=2))
    one, other = (read_history(Folder(str(tmp_path / name))) for name in ("killed", "whole"))
    assert [{k: v for k, v in row.items() if "seconds" not in k} for row in one] == [
        {k: v for k, v in row.items() if "seconds" not in k} for row in other
    ]


def test_killed_before_the_state_of_a_finished_run_is_removed_another_call_removes_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def dying(self: Folder, name: str) -> None:
        if name == STATE:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", dying)
        with pytest.raises(Killed):
            trained(dataset, tmp_path)
    place = Folder(tmp_path)
    before = finished(place)
    assert before
    assert place.exists(STATE)
    trained(dataset, tmp_path)
    assert not place.exists(STATE)
    assert finished(place) == before


def test_watching_clean_accuracy_alone(dataset: Dataset, sets: str, tmp_path: Path) -> None:
    trained(dataset, tmp_path / "run", watch=sets, watch_steps=0, epochs=1)
    (row,) = read_history(Folder(str(tmp_path / "run")))
    assert [name for name in row if name.startswith(("clean_", "pgd_"))] == [
        *("clean_train_atypical", "clean_test_atypical", "clean_test_typical")
    ]


def test_a_subset_is_all_that_is_trained_on(dataset: Dataset, tmp_path: Path) -> None:
    """Other pixels in the samples that are left out, but not in the validation split, change nothing."""
    kept = np.sort(np.random.default_rng(1).choice(100, 60, replace=False))
    plan = make_plan(dataset, TrainSettings(**ASKED, out=str(tmp_path / "all")))
    images = dataset.train.images.copy()
    left_out = np.setdiff1d(np.arange(100), np.union1d(kept, plan.held.validation))
    assert len(left_out) > 10
    images[left_out] = 255 - images[left_out]
    train = replace(dataset.train, images=images)
    other = replace(dataset, train=train, fingerprint=fingerprint(train, dataset.test))
    found = []
    for name, data in (("one", dataset), ("other", other)):
        write_indices(Folder(str(tmp_path)), f"{name}.npz", kept, data.fingerprint)
        found.append(trained(data, tmp_path / name, train_subset=str(tmp_path / f"{name}.npz")))
    assert equal(*found)
    assert not equal(found[0], trained(dataset, tmp_path / "all"))
    facts = make_plan(dataset, TrainSettings(**ASKED, out="x", train_subset=str(tmp_path / "one.npz"))).facts
    assert facts["num_train"] == len(np.setdiff1d(kept, plan.held.validation))
    assert facts["train_subset"].startswith("one ")


@pytest.mark.parametrize(
    ("indices", "problem"),
    [
        ([0, 100], "different positions from 0 to 99"),
        ([-1, 3], "different positions from 0 to 99"),
        ([3, 3], "different positions from 0 to 99"),
        ([], "whole numbers|one at least"),
        ([0.5], "whole numbers, got float64"),
    ],
)
def test_indices_that_are_no_subset(dataset: Dataset, tmp_path: Path, indices: list[Any], problem: str) -> None:
    np.savez(tmp_path / "subset.npz", indices=np.array(indices), fingerprint=np.array(dataset.fingerprint))
    with pytest.raises(UserError, match=problem):
        make_plan(dataset, TrainSettings(**ASKED, out="x", train_subset=str(tmp_path / "subset.npz")))


def test_a_part_of_the_training_set_has_no_short_batch(dataset: Dataset, tmp_path: Path) -> None:
    """Of 43 samples in batches of 40 three are left out each epoch, others each time; of 60 none."""
    held = make_plan(dataset, TrainSettings(**ASKED, out="x")).held
    sizes = {}
    for count in (43, 60):
        write_indices(Folder(str(tmp_path)), f"{count}.npz", held.train[:count], dataset.fingerprint)
        plan = make_plan(dataset, TrainSettings(**ASKED, out="x", train_subset=str(tmp_path / f"{count}.npz")))
        sizes[count] = batch_sizes(len(plan.held.train), 40, smallest=plan.settings.step.smallest_batch)
    assert sizes == {43: [40], 60: [40, 20]}
    assert make_plan(dataset, TrainSettings(**ASKED, out="x")).settings.step.smallest_batch == 2


def test_files_of_other_data_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    np.savez(tmp_path / "subset.npz", indices=np.arange(3), fingerprint=np.array("other"))
    for setting in ("train_subset", "watch"):
        with pytest.raises(UserError, match="of these data"):
            make_plan(dataset, TrainSettings(**{**ASKED, setting: str(tmp_path / "subset.npz")}, out="x"))


def test_too_few_samples_to_train_on(dataset: Dataset, tmp_path: Path) -> None:
    held = make_plan(dataset, TrainSettings(**ASKED, out="x")).held
    write_indices(Folder(str(tmp_path)), "subset.npz", held.validation, dataset.fingerprint)
    with pytest.raises(UserError, match=r"0 training samples are too few: .* take a larger train_subset"):
        make_plan(dataset, TrainSettings(**ASKED, out="x", train_subset=str(tmp_path / "subset.npz")))


def test_less_than_half_a_batch_asks_for_smaller_batches(dataset: Dataset, tmp_path: Path) -> None:
    """It was called too few for one worker, which nobody can lower."""
    held = make_plan(dataset, TrainSettings(**ASKED, out="x")).held
    write_indices(Folder(str(tmp_path)), "subset.npz", held.train[:19], dataset.fingerprint)
    asked = {**ASKED, "train_subset": str(tmp_path / "subset.npz"), "out": "x"}
    with pytest.raises(UserError, match=r"^19 training samples are too few for batch_size 40: .* to 38 or less"):
        make_plan(dataset, TrainSettings(**asked))
    assert len(make_plan(dataset, TrainSettings(**{**asked, "batch_size": 38})).held.train) == 19
