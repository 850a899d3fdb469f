"""Which run comes next, what becomes of one whose process dies, and which runs ASHA stops."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray.exceptions as rx
from ray.tune.execution.tune_controller import TuneController
from ray.tune.search import Searcher

from bat_dist.errors import RunError
from bat_dist.jobs.tune_queue import Asha, RunCallbacks, RunQueue, defined, first_drop
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import RunOutcome, SweepRun, note_failure, read_outcome
from bat_dist.training.recipe import RECIPES, Recipe, learning_rate
from bat_dist.workers.retry import MAX_ATTEMPTS, MAX_LOSSES

PAPER = RECIPES["paper"]


def runs(number: int) -> list[SweepRun]:
    return [SweepRun({"alpha": alpha}, 0) for alpha in range(number)]


def trial(name: str, **last: Any) -> Any:
    return SimpleNamespace(trial_id=name, last_result=last)


def failed_trial(name: str, error: Exception, folder: Path) -> Any:
    """As Tune keeps the error of one."""
    file = folder / f"{name}.pkl"
    file.write_bytes(pickle.dumps(error))
    return SimpleNamespace(trial_id=name, pickled_error_file=str(file))


class Heard:
    def __init__(self, folder: Folder, queue: RunQueue, stopped: set[str] | None = None) -> None:
        self.ended: list[RunOutcome] = []
        self.ears = RunCallbacks(queue, folder, stopped or set(), lambda run, row: None, self.ended.append)


def test_all_are_handed_out_once_and_then_it_is_finished() -> None:
    queue = RunQueue(runs(3))
    given = [queue.suggest(f"t{k}") for k in range(3)]
    assert given == [{"point": {"alpha": k}, "seed": 0} for k in range(3)]
    assert queue.suggest("t3") is None  # one of them may have to come again
    queue.at_work.clear()
    assert queue.suggest("t3") == Searcher.FINISHED


def test_more_is_asked_for_when_the_queue_is_empty() -> None:
    more = [[SweepRun({"alpha": 7}, 0)], []]
    queue = RunQueue([], lambda: more.pop(0))
    assert queue.suggest("a") == {"point": {"alpha": 7}, "seed": 0}
    assert queue.suggest("b") is None


FULL = "the GPU was full: lower the batch size (OutOfMemoryError: CUDA out of memory)"


@pytest.mark.parametrize(
    ("error", "most", "reason"),
    [
        (rx.RayError("The actor\nwas killed"), MAX_ATTEMPTS, "its process died (for want of memory?): RayError: "),
        (rx.RayError("The actor died because its node has died."), MAX_LOSSES, "its process died"),
        (rx.ActorUnavailableError("socket closed", None), MAX_LOSSES, "its process died"),
        (rx.RayTaskError("train_run", f"Traceback\nRunError: {FULL}", RunError(FULL)), MAX_ATTEMPTS, FULL),
        (
            rx.RayTaskError("train_run", "Traceback", OSError("no\nfolder")),
            MAX_ATTEMPTS,
            "OSError: no folder",
        ),
    ],
)
def test_a_run_that_did_not_fail_by_itself_comes_first_and_not_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, most: int, reason: str
) -> None:
    queue, folder = RunQueue(runs(2)), Folder(tmp_path)
    heard = Heard(folder, queue)
    for attempt in range(most):
        assert queue.suggest(f"t{attempt}") == {"point": {"alpha": 0}, "seed": 0}
        assert heard.ended == []
        heard.ears.on_trial_error(0, [], failed_trial(f"t{attempt}", error, tmp_path))
    assert caplog.text.count(f"is tried again: {reason}") == most - 1
    [outcome] = heard.ended
    assert outcome.state == "failed"
    assert outcome.reason.startswith(reason)
    assert queue.suggest("next") == {"point": {"alpha": 1}, "seed": 0}


def test_an_error_that_tune_does_not_pickle_is_told_by_its_text(tmp_path: Path) -> None:
    queue, folder = RunQueue(runs(1)), Folder(tmp_path)
    heard = Heard(folder, queue)
    (tmp_path / "error.txt").write_text("Failure # 1 (occurred at noon)\nno memory was left\n")
    for _ in range(MAX_ATTEMPTS):
        queue.suggest("t")
        failed = SimpleNamespace(trial_id="t", pickled_error_file=None, error_file=str(tmp_path / "error.txt"))
        heard.ears.on_trial_error(0, [], failed)  # pyright: ignore[reportArgumentType]
    assert "no memory was left" in heard.ended[0].reason


def test_a_run_that_noted_its_failure_is_not_tried_again(tmp_path: Any) -> None:
    queue, folder = RunQueue(runs(1)), Folder(tmp_path)
    heard = Heard(folder, queue)
    queue.suggest("t")
    note_failure(folder / runs(1)[0].name, "ValueError: no", "Traceback ...")
    heard.ears.on_trial_error(0, [], trial("t"))
    assert [(o.state, o.reason) for o in heard.ended] == [("failed", "ValueError: no")]
    assert queue.suggest("u") == Searcher.FINISHED


def test_a_run_that_the_scheduler_stopped_is_on_record_and_one_that_time_stopped_is_not(tmp_path: Any) -> None:
    folder, two = Folder(tmp_path), runs(2)
    queue = RunQueue(two)
    heard = Heard(folder, queue, {"t0"})
    for name, run in zip(("t0", "t1"), two, strict=True):
        queue.suggest(name)
        history = "epoch,val_pgd,train_seconds,validation_seconds\n1,0.2,1.0,1.0\n"
        (folder / run.name).write("history.csv", history.encode())
        heard.ears.on_trial_complete(0, [], trial(name, epoch=1))
    assert [o.state for o in heard.ended] == ["stopped", "unfinished"]
    assert read_outcome(folder, two[0]).reason == "stopped by asha after epoch 1"


# ------------------------------------------------------------------------------------------------------------- ASHA


def test_the_first_drop_is_where_the_learning_rate_falls() -> None:
    drop = first_drop(PAPER)
    rates = [learning_rate(PAPER, step=epoch, num_steps=PAPER.epochs) for epoch in range(PAPER.epochs)]
    assert drop == 80 == int(np.argmax(np.array(rates) < rates[0]))
    fast = Recipe(epochs=40, batch_size=64, lr=0.1, schedule="one_cycle")
    steps = [learning_rate(fast, step=epoch, num_steps=fast.epochs) for epoch in range(fast.epochs)]
    assert steps[first_drop(fast)] == pytest.approx(0.05, rel=0.05)


def decisions(asha: Asha, values: list[float], epochs: range) -> dict[int, int]:
    """Trials in turn reach each epoch; returns at which epoch each was stopped."""
    stopped: dict[int, int] = {}
    for number in range(len(values)):
        asha.on_trial_add(None, trial(f"t{number}"))  # pyright: ignore[reportArgumentType]
    for epoch in epochs:
        for number, value in enumerate(values):
            if number in stopped:
                continue
            if asha.on_trial_result(None, trial(f"t{number}"), {"epoch": epoch, "val_pgd": value}) == "STOP":
                stopped[number] = epoch
    return stopped


def test_no_run_is_stopped_before_the_drop_nor_at_its_end() -> None:
    values = list(np.linspace(0.5, 0.1, 9))
    asha = Asha(PAPER, metric="val_pgd", factor=3, first=5)
    stopped = decisions(asha, values, range(1, 161))
    assert stopped
    assert min(stopped.values()) == 85
    assert max(stopped.values()) < 160
    assert 0 not in stopped  # the best
    assert asha.stopped == {f"t{number}" for number in stopped}
    assert set(stopped.values()) <= {85, 95, 125}  # 5, 15 and 45 epochs after the drop


def test_a_new_scheduler_that_is_told_the_past_decides_as_the_old_one() -> None:
    old = Asha(PAPER, metric="val_pgd", factor=3, first=5)
    past = [0.5, 0.4, 0.3]
    decisions(old, past, range(1, 161))
    new = Asha(PAPER, metric="val_pgd", factor=3, first=5)
    for number, value in enumerate(past):
        history = [{"epoch": epoch, "val_pgd": value} for epoch in range(1, 161)]
        if f"t{number}" in old.stopped:
            history = history[:85]
        new.replay(f"p{number}", history)
    for value, expected in ((0.2, "STOP"), (0.6, "CONTINUE")):
        for asha in (old, new):
            asha.on_trial_add(None, trial(f"x{value}"))  # pyright: ignore[reportArgumentType]
            row = {"epoch": 85, "val_pgd": value}
            assert asha.on_trial_result(None, trial(f"x{value}"), row) == expected
    untold = Asha(PAPER, metric="val_pgd", factor=3, first=5)
    untold.on_trial_add(None, trial("x"))  # pyright: ignore[reportArgumentType]
    assert untold.on_trial_result(None, trial("x"), {"epoch": 85, "val_pgd": 0.2}) == "CONTINUE"


def test_a_run_whose_metric_is_undefined_is_neither_stopped_nor_an_error() -> None:
    """A validation split without an atypical sample: the accuracy on them is None in every row."""
    asha = Asha(PAPER, metric="val_pgd_atypical", factor=3, first=5)
    history = [{"epoch": epoch, "val_pgd": 0.3, "val_pgd_atypical": None} for epoch in range(1, 161)]
    asha.replay("p0", history)
    asha.on_trial_add(None, trial("x"))  # pyright: ignore[reportArgumentType]
    told = defined(history[84])
    assert told == {"epoch": 85, "val_pgd": 0.3}
    assert asha.on_trial_result(None, trial("x"), told) == "CONTINUE"
    controller: Any = SimpleNamespace(_metric=None, _scheduler_alg=asha, _search_alg=RunQueue([]))
    TuneController._validate_result_metrics(controller, told)  # raises what would end the whole sweep
