"""Failures of a data-parallel training's workers are told, each once.  See also `test_train.py`: a worker is killed."""

import json
from typing import Any

import pytest
import ray.exceptions as rx

from bat_dist.workers import key_value
from bat_dist.workers.restarts import RestartNotes, Restarts


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    made = dict[str, str]()
    monkeypatch.setattr(key_value, "put", lambda name, value: made.update({name: json.dumps(value)}))
    monkeypatch.setattr(key_value, "get", lambda name: json.loads(made[name]) if name in made else None)
    monkeypatch.setattr(key_value, "remove", lambda name: made.pop(name, None))
    return made


def test_each_failure_is_told_once_with_what_was_raised(
    store: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    notes, restarts, other = RestartNotes("a"), Restarts("a", most=3), Restarts("b", most=3)
    restarts.tell()
    notes.after_exception(None, {1: KeyError("no such label"), 0: rx.RayError("The actor died.\nIts process died.")})
    for one in (restarts, restarts, other):
        one.tell()
    notes.after_exception(None, {0: RuntimeError("x" * 1000)})
    restarts.tell()
    first, second = [record.getMessage() for record in caplog.records]
    assert first == (
        "workers failed (rank 0: Its process died.; rank 1: KeyError: 'no such label'): they start again from the last "
        "finished epoch, 3 times at most (max_failures)"
    )
    assert "rank 0: RuntimeError: xxx" in second
    assert len(second) < 400
    restarts.forget()
    assert not store


def test_a_store_that_does_not_answer_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise RuntimeError("the head is gone")

    for name in ("put", "get", "remove"):
        monkeypatch.setattr(key_value, name, gone)
    RestartNotes("a").after_exception(None, {0: KeyError()})
    restarts = Restarts("a", most=3)
    restarts.tell()
    restarts.forget()
