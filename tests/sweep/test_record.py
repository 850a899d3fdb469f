"""What a sweep's folder says of it."""

from pathlib import Path
from typing import Any

import pytest

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.sweep import record
from bat_dist.sweep.record import (
    SWEEP,
    RunOutcome,
    SweepRecord,
    SweepRun,
    read_outcome,
    read_run_outcomes,
    read_sweep,
)
from bat_dist.training.files import STATE

POINT = {"alpha": 1.0}


def begun_by_an_earlier_version(tmp_path: Path, identity: dict[str, Any]) -> Folder:
    """A sweep whose `sweep.json` has the number of workers as it was asked for; a run has finished an epoch."""
    folder = Folder(tmp_path)
    folder.write_json(SWEEP, {"points": [POINT], "identity": identity, "asked": {"seeds": [0]}})
    (folder / SweepRun(POINT, 0).name).write(STATE, b"that of an epoch")
    return folder


@pytest.mark.parametrize(
    ("before", "now", "sync_bn"), [(0, 1, False), (1, 0, False), (4, 2, True), (0, 8, True), (2, 2, False)]
)
def test_numbers_of_workers_that_train_alike_are_one_sweep(
    before: int, now: int, sync_bn: bool, tmp_path: Path
) -> None:
    folder = begun_by_an_earlier_version(tmp_path, {"num_workers": before, "sync_bn": sync_bn})
    assert SweepRecord(folder, {"num_workers": now, "sync_bn": sync_bn}).points == [POINT]


@pytest.mark.parametrize(("before", "now"), [(0, 2), (2, 1), (2, 4)])
def test_another_number_of_separate_batch_norms_is_another_sweep(before: int, now: int, tmp_path: Path) -> None:
    folder = begun_by_an_earlier_version(tmp_path, {"num_workers": before, "sync_bn": False})
    with pytest.raises(UserError, match=f"num_workers: {max(1, before)} in the store, {now} now"):
        SweepRecord(folder, {"num_workers": now, "sync_bn": False})
    assert read_sweep(folder).identity["num_workers"] == max(1, before)


def test_where_runs_differ_in_their_number_the_sweep_has_none(tmp_path: Path) -> None:
    folder = begun_by_an_earlier_version(tmp_path, {"varies": "num_workers"})
    assert SweepRecord(folder, {"varies": "num_workers"}).points == [POINT]


def test_each_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of points that were asked for before and still are: each is several requests to the storage."""
    read = list[SweepRun]()

    def reading(folder: Folder, run: SweepRun) -> RunOutcome:
        read.append(run)
        return read_outcome(folder, run)

    monkeypatch.setattr(record, "read_outcome", reading)
    runs = [SweepRun(POINT, seed) for seed in (0, 1)]
    outcomes = read_run_outcomes(Folder(tmp_path), runs, [POINT, {"alpha": 2.0}], [0, 1])
    assert [outcome.run for outcome in outcomes] == runs
    assert read == [*runs, SweepRun({"alpha": 2.0}, 0), SweepRun({"alpha": 2.0}, 1)]
