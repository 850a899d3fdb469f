"""The driver's sign of life: at the start, while nothing comes, and at the end, whatever the end is."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from bat_dist.storage.files import Folder
from bat_dist.storage.status import PROGRESS, SILENT
from bat_dist.workers.heartbeat import INTERVAL, Heartbeat
from bat_dist.workers.running import Running
from tests.helpers.waiting import until


def progress(folder: Path) -> dict[str, Any]:
    return Folder(folder).read_json(PROGRESS)


def test_it_beats_often_enough_for_its_reader() -> None:
    assert 2 * INTERVAL < SILENT


def test_the_start_and_a_good_end(tmp_path: Path) -> None:
    with Heartbeat(Folder(tmp_path), "trials", total=10) as heart:
        assert not (tmp_path / PROGRESS).exists()  # not before all is checked
        pace = heart.begin(done=4)
        began = progress(tmp_path)
        pace.watch(lambda: [Running(8, "w1", 77, 1.26)])
        pace.step(failed=0)
    assert (began["state"], began["done"], began["total"], began["seconds_left"]) == ("running", 4, 10, None)
    assert (began["host"], began["pid"], began["per_hour"]) == (socket.gethostname(), os.getpid(), 0)
    ended = progress(tmp_path)
    assert (ended["state"], ended["done"], ended["running"], ended["started"]) == ("done", 5, [], began["started"])


def test_it_goes_on_while_no_outcome_comes(tmp_path: Path) -> None:
    with Heartbeat(Folder(tmp_path), "trials", total=10, interval=0.05) as heart:
        pace = heart.begin(done=0)
        pace.watch(lambda: [Running(8, "w1", 77, 1.26), Running(("a", 1), "w2", 78, 0.0)])
        pace.step(failed=1)
        until(lambda: progress(tmp_path)["failed"])
        now = progress(tmp_path)
    assert now["running"] == [
        {"unit": 8, "host": "w1", "pid": 77, "seconds": 1.3, "share": 0.0},
        {"unit": "('a', 1)", "host": "w2", "pid": 78, "seconds": 0.0, "share": 0.0},
    ]
    assert (now["state"], now["done"], now["failed"]) == ("running", 0, 1)
    assert progress(tmp_path)["state"] == "incomplete"


def test_outcomes_do_not_write_more_often(tmp_path: Path) -> None:
    with Heartbeat(Folder(tmp_path), "trials", total=1000) as heart:
        pace = heart.begin(done=0)
        for _ in range(500):
            pace.step(failed=0)
        assert progress(tmp_path)["done"] == 0


def test_the_rate_is_of_this_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heart = Heartbeat(Folder(tmp_path), "trials", total=100)
    with heart:
        pace = heart.begin(done=60)
        monkeypatch.setattr(pace, "_start", 40.0)
        monkeypatch.setattr(pace, "_clock", lambda: 400.0)
        for _ in range(10):
            pace.step(failed=0)
    ended = progress(tmp_path)
    assert (ended["done"], ended["per_hour"], ended["seconds_left"]) == (70, 100, 1080)


def test_a_late_beat_does_not_hide_the_end(tmp_path: Path) -> None:
    with Heartbeat(Folder(tmp_path), "trials", total=1) as heart:
        heart.begin(done=0)
    heart._write("running")
    assert progress(tmp_path)["state"] == "done"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "by a signal"),
        (RuntimeError("no room at s3://me:secret@host"), "RuntimeError: no room at s3://***@host"),
    ],
)
def test_a_bad_end_is_told(tmp_path: Path, error: BaseException, reason: str) -> None:
    def job() -> None:
        with Heartbeat(Folder(tmp_path), "trials", total=10) as heart:
            heart.begin(done=4)
            raise error

    with pytest.raises(type(error)):
        job()
    assert (progress(tmp_path)["state"], progress(tmp_path)["reason"]) == ("stopped", reason)


def test_bad_input_leaves_nothing_in_a_new_folder_and_a_word_in_an_old_one(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    with Heartbeat(Folder(old), "trials", total=2) as heart:
        heart.begin(done=2)

    def job(folder: Path) -> None:
        with Heartbeat(Folder(folder), "trials", total=10):
            if folder == old:  # who looks now must not be told of the last run's end
                assert (progress(old)["state"], progress(old)["done"]) == ("running", None)
            raise ValueError("no node holds a worker")

    for folder in (new, old):
        with pytest.raises(ValueError, match="no node"):
            job(folder)
    assert not new.exists()
    assert progress(old)["state"] == "stopped"


def test_a_folder_that_cannot_be_written_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Folder, "write", full)
    with Heartbeat(Folder(tmp_path), "trials", total=10, interval=0.02) as heart:
        heart.begin(done=0)
        until(lambda: caplog.records)
        time.sleep(0.1)  # and is not told again
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/progress.json cannot be written: disk full"
    ]
