"""What `--status` says of a driver, from files alone."""

import json
import socket
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from bat_dist.results.status import describe_evaluation
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.storage.status import PROGRESS, ago, describe, duration, failure_name

NOW = 1_800_000_000.0
TRIAL = ("mask", "train_correct")


def make(done: int, *, total: int = 60, name: str = "trials") -> tuple[Folder, RowStore]:
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    store = RowStore.open(folder / name, fields={"value": Field("float64", ())}, identity={"seed": 0}, num_rows=total)
    for row in range(done):
        store.write(row, {"value": np.float64(row)})
    return folder, store


def said(folder: Folder, *, age: float, **changes: Any) -> list[str]:
    """The lines on the driver whose last word is so many seconds old."""
    progress = {
        "state": "running",
        "host": "head",
        "pid": 1234,
        "started": stamp(NOW - 3600),
        "written": stamp(NOW - age),
        "what": "trials",
        "done": 37,
        "total": 60,
        "failed": 0,
        "per_hour": 1200.4,
        "seconds_left": 73.0,
        "running": [],
    }
    folder.write(PROGRESS, json.dumps({**progress, **changes}).encode())
    text = describe(folder, clock=lambda: NOW)
    return text[: text.index(folder.location)].splitlines()


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def test_a_store_that_is_too_large_to_be_read_says_where_its_reliability_is(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, fields = Folder(f"memory://{uuid.uuid4().hex}"), {name: Field("bool", (10,)) for name in TRIAL}
    store = RowStore.open(folder / "trials", fields=fields, identity={}, num_rows=4)
    for row in range(4):
        store.write(row, dict.fromkeys(TRIAL, np.ones(10, bool)))
    assert "see summary.json" not in describe(folder)
    monkeypatch.setattr("bat_dist.storage.status.MOST_READ", 79)  # of 80 bytes
    assert "reliability of memorization: see summary.json" in describe(folder)


def test_the_note_of_a_row_that_is_there_tells_of_no_failure() -> None:
    """A driver that was killed between the row and the removal of its note left it for ever."""
    folder, store = make(3, total=5)
    for row in (1, 4):
        folder.write_json(failure_name("trials", row), {"row": row, "reason": "it was bad", "attempts": 3})
    assert [line for line in describe(folder).splitlines() if "failed" in line] == ["  trial 4 failed: it was bad"]
    store.write(4, {"value": np.float64(4)})
    assert "failed" not in describe(folder)


def test_the_note_of_a_unit_that_is_there_tells_of_no_failure() -> None:
    folder, store = make(3, total=5, name="units/pgd20@0")
    RowStore.open(folder / "units/pgd20@1", fields=store.fields, identity={}, num_rows=5)
    for stage, unit in (("pgd20@0", 1), ("pgd20@0", 4), ("pgd20@1", 1)):
        folder.write_json(failure_name(stage, unit), {"row": unit, "reason": "it was bad", "attempts": 3})
    said = [line for line in describe_evaluation(folder).splitlines() if "failed" in line]
    assert said == ["  failed: pgd20@0-4: it was bad", "  failed: pgd20@1-1: it was bad"]


def test_a_job_at_work() -> None:
    folder, _ = make(37)
    at_work = [(38, "w1", 12.2), (41, "w2", 3.0), (40, "w1", 100.0)]
    running = [{"unit": unit, "host": host, "pid": 7, "seconds": seconds} for unit, host, seconds in at_work]
    assert said(folder, age=4, running=running, failed=2) == [
        "running: driver 1234 on head, last sign of life 4 s ago",
        "  37 of 60 trials, 1,200 trials/h, 0:01:09 left, 2 failed",
        "  on w1: trials 38 (for 0:00:16), 40 (for 0:01:44)",
        "  on w2: trials 41 (for 0:00:07)",
    ]


def test_a_job_that_begins() -> None:
    folder, _ = make(0)
    assert said(folder, age=1, done=0, per_hour=0.0, seconds_left=None) == [
        "running: driver 1234 on head, last sign of life 1 s ago",
        "  0 of 60 trials",
        "  no trials at work: workers are starting, or waiting for room",
    ]
    assert said(folder, age=1, done=None, per_hour=None, seconds_left=None) == [
        "running: driver 1234 on head, last sign of life 1 s ago",
        "  starting: connecting to Ray, or waiting for nodes",
    ]


def test_a_driver_that_was_killed() -> None:
    folder, _ = make(37)
    assert said(folder, age=59)[0] == "running: driver 1234 on head, last sign of life 59 s ago"
    (line,) = said(folder, age=3 * 3600)
    assert line == (
        f"not running: no sign of life from driver 1234 on head since {stamp(NOW - 3 * 3600)} (3 h ago): "
        "it was killed or its machine was lost, or the two machines' clocks differ; the same command goes on"
    )
    assert "clocks" not in said(folder, age=61, host=socket.gethostname())[0]
    assert said(folder, age=61)[0].startswith("not running: no sign of life from driver 1234")
    assert said(folder, age=61, done=None)[0].startswith("not running: no sign of life from driver 1234")


def test_a_driver_that_was_killed_when_all_was_done() -> None:
    folder, _ = make(60)
    assert said(folder, age=300, done=59) == [
        "not running: driver 1234 on head gave its last sign of life 5 min ago, and all 60 trials are done"
    ]
    assert "it was killed" in said(folder, age=300, done=60, what="members")[0]  # another job in the same folder


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state": "done", "done": 60}, "driver 1234 on head ended 3 h ago, all 60 trials done"),
        (
            {"state": "incomplete", "done": 58, "failed": 2},
            "driver 1234 on head ended 3 h ago, 2 of 60 trials failed; the same command tries them again",
        ),
        (
            {"state": "stopped", "reason": "by a signal"},
            "driver 1234 on head was stopped 3 h ago (by a signal); the same command goes on",
        ),
    ],
)
def test_a_driver_that_ended(changes: dict[str, Any], line: str) -> None:
    folder, _ = make(37)
    assert said(folder, age=3 * 3600, **changes) == [f"not running: {line}"]
    assert said(folder, age=1, **changes) == [f"not running: {line.replace('3 h ago', '1 s ago')}"]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"state": "running"}', b'{"written": "never"}'])
def test_a_damaged_file_hides_nothing_else(content: bytes) -> None:
    folder, _ = make(37)
    folder.write(PROGRESS, content)
    first, *others = describe(folder).splitlines()
    assert "nothing is known of the driver" in first
    assert "37 of 60 trials complete" in others[0]


def test_a_clock_that_is_behind_and_a_folder_without_the_file() -> None:
    folder, _ = make(37)
    assert describe(folder).splitlines()[0] == f"{folder}/trials: 37 of 60 trials complete"
    assert said(folder, age=-30)[0] == "running: driver 1234 on head, last sign of life 0 s ago"


def test_times_in_words() -> None:
    assert [ago(seconds) for seconds in (0.4, 119, 120, 7199, 7200, 172_800)] == [
        "0 s ago",
        "119 s ago",
        "2 min ago",
        "120 min ago",
        "2 h ago",
        "2 days ago",
    ]
    assert [duration(seconds) for seconds in (0, 69.4, 360_000)] == ["0:00:00", "0:01:09", "100:00:00"]
    assert time.time() > 0
