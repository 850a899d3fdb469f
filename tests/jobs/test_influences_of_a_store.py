"""From a store of trials to its score files: as arrays, by columns, and in parts; all give the same files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bat_dist.artifacts.scores import INFLUENCE_TOP, TRIALS, read_all_influence, read_influence
from bat_dist.artifacts.streamed_trials import read_trials
from bat_dist.config import parse
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.errors import RunError, UserError
from bat_dist.jobs import fill_rows, scores
from bat_dist.jobs import influence as job
from bat_dist.jobs.scores import leave_out_scores
from bat_dist.memorization.columns import TrialColumns
from bat_dist.memorization.influence_parts import parts_of
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from bat_dist.wording import bytes_of
from bat_dist.workers.resources import Resources
from bat_dist.workers.terms import ClusterTerms
from bat_dist.workers.units import Done, Failed
from tests.jobs.test_kept_probabilities import ASKED, filled

FILES = ("memorization.npz", "influence.npz", "influence_top.npz", "typicality.npz", "memorization.csv")
NUM_TRIALS = 11


class Killed(BaseException):
    """What ends a driver from outside."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=100, num_test=50)


@pytest.fixture(scope="module")
def trials() -> list[dict[str, np.ndarray]]:
    """Made-up trials with many ties, a sample that is never out, and influences of every size."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(NUM_TRIALS):
        mask = rng.random(100) < 0.7
        mask[0] = True
        rows.append(
            {
                "mask": mask,
                "train_correct": mask | (rng.random(100) < 0.6),
                "train_predicted": rng.integers(0, 10, 100).astype(np.uint16),
                "test_correct": np.where(rng.random(50) < 0.5, mask[:50], rng.random(50) < 0.9),
                "metrics": rng.random(2),
            }
        )
    return rows


@pytest.fixture
def folder_of_trials(dataset: Dataset, trials: list[dict[str, np.ndarray]], tmp_path: Path) -> Callable[[str], Folder]:
    return lambda name: filled(tmp_path / name, dataset, trials, keep=False, number=NUM_TRIALS)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every problem is a large one; its parts are computed here.  Gives the numbers of those that were."""
    computed: list[int] = []

    def run_here(units: Sequence[int], build: Callable[..., Any], args: Sequence[Any], **_: Any) -> Iterator[Done]:
        work = build(*args)
        for unit in np.random.default_rng(1).permutation(list(units)).tolist():
            computed.append(unit)
            yield Done(unit, work(unit))

    monkeypatch.setattr(job, "WORK_HERE", 0)
    monkeypatch.setattr(job, "parts_of", partial(parts_of, part_work=400, part_bytes=500))
    monkeypatch.setattr(job, "ray", SimpleNamespace(put=lambda value: value, get=lambda value: value))
    monkeypatch.setattr(job, "job_session", lambda *_, **__: nullcontext(ClusterTerms()))
    monkeypatch.setattr(job, "worker_resources", lambda *_, **__: Resources())
    monkeypatch.setattr(fill_rows, "run_units", run_here)
    return computed


def score(folder: Folder, dataset: Dataset, *more: str, threshold: str = "0.1") -> dict[str, bytes]:
    """Compute the score files, and give their contents."""
    words = [*ASKED, folder.location, "--influence_top", "3", "--influence_threshold", threshold, *more]
    leave_out_scores(folder, dataset, parse(MemorizeSettings, words, prog="")[0])
    return {name: folder.read(name) for name in FILES if folder.exists(name)}


def test_columns_and_parts_give_the_files_that_arrays_give(
    folder_of_trials: Callable[[str], Folder],
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    arrays = folder_of_trials("arrays")
    expected = score(arrays, dataset)
    assert arrays.exists("feldman_zhang.npz")
    assert not arrays.exists("influence")
    top = arrays.read_npz(INFLUENCE_TOP)
    assert (top["train_index"].shape, top["influence"].dtype) == ((50, 3), np.float64)
    monkeypatch.setattr(scores, "bytes_of", lambda _: 4000)
    columns = folder_of_trials("columns")
    assert score(columns, dataset) == expected
    assert not columns.exists("feldman_zhang.npz")  # 2 kB, which would be there three times
    store = RowStore.existing(columns / TRIALS)
    assert store is not None
    found = read_trials(store, dataset.train.labels, dataset.test.labels, memory=4000)
    columns.write("feldman_zhang.npz", arrays.read("feldman_zhang.npz"))  # as a call with more memory leaves it
    score(columns, dataset)
    assert not columns.exists("feldman_zhang.npz")
    assert all(isinstance(matrix, TrialColumns) for matrix in (found.mask, found.test_correct, found.train_predicted))
    computed = request.getfixturevalue("in_parts")
    assert score(folder_of_trials("parts"), dataset) == expected
    assert len(computed) > 10


@pytest.mark.parametrize("pairs", ["same_class", "all"])
def test_a_killed_driver_loses_no_part_and_another_call_computes_none_again(
    pairs: str,
    folder_of_trials: Callable[[str], Folder],
    dataset: Dataset,
    in_parts: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed, killed = folder_of_trials("undisturbed"), folder_of_trials("killed")
    expected = score(undisturbed, dataset, "--influence_pairs", pairs)
    every_part = sorted(in_parts)
    assert every_part == list(range(len(every_part)))
    write, in_parts[:] = job.PartFiles.write, []

    def write_some(self: job.PartFiles, row: int, values: Any) -> None:
        if len(in_parts) == 4:
            raise Killed
        write(self, row, values)

    with monkeypatch.context() as patch:
        patch.setattr(job.PartFiles, "write", write_some)
        with pytest.raises(Killed):
            score(killed, dataset, "--influence_pairs", pairs)
    done = set(in_parts[:3])
    damaged = min(done)
    killed.write(f"influence/part-{damaged:06d}.npz", killed.read(f"influence/part-{damaged:06d}.npz")[:-30])
    in_parts.clear()
    assert score(killed, dataset, "--influence_pairs", pairs) == expected
    assert set(in_parts) == {*every_part} - done | {damaged}
    assert sorted((killed / "influence").entries()[1]) == ["all.npz", "parts.json"]
    in_parts.clear()
    assert score(killed, dataset, "--influence_pairs", pairs) == expected
    assert in_parts == []
    score(killed, dataset, "--influence_pairs", pairs, threshold="0.2")
    assert sorted(in_parts) == every_part  # what was there is of another question


def test_a_part_that_failed_is_said_and_tried_again(
    folder_of_trials: Callable[[str], Folder], dataset: Dataset, in_parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run_here = folder_of_trials("failed"), fill_rows.run_units

    def one_fails(units: Sequence[int], *args: Any, **named: Any) -> Iterator[Done | Failed]:
        yield Failed(units[2], "MemoryError: no", 3)
        yield from run_here([*units[:2], *units[3:]], *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(fill_rows, "run_units", one_fails)
        with pytest.raises(RunError, match=r"1 part of .* part 2 with MemoryError"):
            score(folder, dataset)
    in_parts.clear()
    assert score(folder, dataset) == score(folder_of_trials("other"), dataset)
    assert in_parts[0] == 2


def test_no_top_is_left_of_an_earlier_call(folder_of_trials: Callable[[str], Folder], dataset: Dataset) -> None:
    folder = folder_of_trials("x")
    score(folder, dataset)
    leave_out_scores(folder, dataset, parse(MemorizeSettings, [*ASKED, folder.location], prog="")[0])
    assert not folder.exists(INFLUENCE_TOP)


def test_the_largest_of_each_test_sample_are_read_with_the_pairs_above_the_threshold(
    folder_of_trials: Callable[[str], Folder], dataset: Dataset
) -> None:
    folder = folder_of_trials("x")
    score(folder, dataset)
    above, top = read_influence(folder, dataset.fingerprint), folder.read_npz(INFLUENCE_TOP)
    found = read_all_influence(folder, dataset.fingerprint)
    expected = {
        (train, test): influence
        for test, row in enumerate(zip(top["train_index"], top["influence"], strict=True))
        for train, influence in zip(*row, strict=True)
        if train >= 0
    }
    expected |= dict(zip(zip(above.train_index, above.test_index, strict=True), above.influence, strict=True))
    pairs = zip(found.train_index, found.test_index, strict=True)
    assert list(zip(pairs, found.influence, strict=True)) == sorted(expected.items(), key=lambda one: (-one[1], one[0]))
    assert np.isfinite(found.influence_se).all()
    assert len(found.influence) > found.num_found == above.num_found


def test_no_room_for_scratch_files_is_said(
    folder_of_trials: Callable[[str], Folder], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> TrialColumns:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bat_dist.artifacts.streamed_trials.TrialColumns", full)
    monkeypatch.setattr(scores, "bytes_of", lambda _: 4000)
    with pytest.raises(RunError, match="set TMPDIR to a folder with more"):
        score(folder_of_trials("x"), dataset)


@pytest.mark.parametrize(
    ("text", "number"), [("500MB", 500_000_000), ("1.5 GB", 1_500_000_000), ("2GiB", 2 << 30), ("512B", 512)]
)
def test_bytes_are_read_with_their_unit(text: str, number: int) -> None:
    assert bytes_of(text) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("500", "scores_memory: must be a number of bytes with its unit, such as 500MB or 2GiB, got '500'"),
        ("5iB", "scores_memory: must be a number of bytes with its unit"),
        ("100MB", "scores_memory: must be at least 400MB, got 100MB"),
    ],
)
def test_memory_without_a_unit_or_too_little_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(MemorizeSettings, [*ASKED, "x", "--scores_memory", text], prog="")
