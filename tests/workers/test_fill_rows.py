"""Units of work become rows of a store: through workers, with a log of each and a note of what failed."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle

from bat_dist.jobs.fill_rows import Filled, conclude, fill_rows
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.subsets import subset_mask
from bat_dist.storage.computed_on import read_hardware
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.storage.status import describe, failures
from bat_dist.storage.unit_log import read_log
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.resources import Resources

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules
pytestmark = pytest.mark.usefixtures("ray_cluster")

DUPLICATE_OF = np.arange(20)
DUPLICATE_OF[[4, 14]] = [3, 13]  # samples 3 and 4 are the same image, and so are 13 and 14


def lookup_table():
    """A learner that knows what it has seen, and answers 1 - label to all else."""

    def work(trial):
        mask = subset_mask(20, 0.7, 0, trial)
        seen = np.isin(DUPLICATE_OF, DUPLICATE_OF[mask])
        return {"mask": mask, "train_correct": seen}

    return work


def test_a_lookup_table_memorizes_the_unique_samples_and_not_the_duplicates(tmp_path: Path) -> None:
    """Through workers, store and estimate.  A duplicate is lost only in trials that leave both out."""
    num_trials = 60
    fields = {"mask": Field("bool", (20,)), "train_correct": Field("bool", (20,))}
    store = RowStore.open(Folder(tmp_path / "trials"), fields=fields, identity={}, num_rows=num_trials)
    filled = fill(store, tmp_path, num_trials, lookup_table)
    assert (filled.kept, filled.computed, filled.failed) == (0, num_trials, {})
    mask, correct = (store.read(name, np.arange(num_trials)) for name in fields)
    found = estimate_memorization(mask, correct)
    unique = np.bincount(DUPLICATE_OF, minlength=20)[DUPLICATE_OF] == 1
    np.testing.assert_array_equal(found.mem[unique], 1)
    for i, twin in ((3, 4), (4, 3), (13, 14), (14, 13)):
        without = ~mask[:, i]
        assert found.mem[i] == pytest.approx(1 - mask[without, twin].mean())
        assert found.mem[i] < 0.7


def fill(store: RowStore, folder: Path, num_rows: int, build, *args, give_up_on=()) -> Filled:
    how = {"what": "trials", "resources": Resources(cpus=1), "num_workers": None, "give_up_on": give_up_on}
    with Heartbeat(Folder(folder), "trials", total=num_rows) as heart:
        return fill_rows(store, Folder(folder), num_rows, build, args, **how, heart=heart)


def fails_at_first(marker):
    def work(unit):
        if unit == 2 and not Path(marker).exists():
            raise ArithmeticError("loss inf in epoch 1")
        return {"value": np.float64(unit)}

    return work


def test_failures_are_noted_reported_and_tried_again_by_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RowStore.open(Folder(tmp_path / "trials"), fields={"value": Field("float64", ())}, identity={}, num_rows=4)
    marker = tmp_path / "healed"
    first = fill(store, tmp_path, 4, fails_at_first, str(marker), give_up_on=(ArithmeticError,))
    assert first.failed == {2: "ArithmeticError: loss inf in epoch 1"}
    assert failures(Folder(tmp_path), "trials", store.status().complete) == first.failed
    assert "trial 2 failed: ArithmeticError: loss inf" in describe(Folder(tmp_path))
    assert "its log: logs/trials-2.jsonl" in describe(Folder(tmp_path))
    assert conclude(first, "trials") == 1
    errors = capsys.readouterr().err
    assert "1 trial failed; the same command tries again and keeps the others" in errors
    assert "its log: logs/trials-2.jsonl" in errors
    marker.touch()
    second = fill(store, tmp_path, 4, fails_at_first, str(marker))
    assert (second.kept, second.computed, second.failed) == (3, 1, {})
    assert conclude(second, "trials") == 0
    assert not Folder(tmp_path).names("failed/*")
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [f"trials-{row}.jsonl" for row in range(4)]
    kept = [record["event"] for record in read_log(Folder(tmp_path), "trials", 2)]
    assert kept == ["started", "failed", "started", "done"]  # of both runs


def on_a_pretended_gpu(name: str):
    """A worker that sees this GPU, which the driver's machine has not."""
    import torch

    from bat_dist.training import precision

    precision.default_device = lambda: torch.device("cuda")
    precision.driver_version = lambda: "580.1"
    torch.cuda.get_device_name = lambda: name

    def work(unit):
        return {"value": np.float64(unit)}

    return work


def test_rows_say_what_their_workers_computed_on_and_the_folder_says_it_of_all_runs(tmp_path: Path) -> None:
    store = RowStore.open(Folder(tmp_path / "trials"), fields={"value": Field("float64", ())}, identity={}, num_rows=6)
    fill(store, tmp_path, 3, on_a_pretended_gpu, "NVIDIA A100")
    fill(store, tmp_path, 6, on_a_pretended_gpu, "NVIDIA H100")
    found = read_hardware(Folder(tmp_path), "trials")
    assert [(one.get("gpu"), one.get("driver"), one["threads"]) for one in found] == [
        ("NVIDIA A100", "580.1", 1),
        ("NVIDIA H100", "580.1", 1),
    ]
    of_rows = [read_log(Folder(tmp_path), "trials", row)[-1]["computed_on"] for row in range(6)]
    assert of_rows == [found[0]] * 3 + [found[1]] * 3
