"""The log of a unit: kept over runs, bounded, and without secrets."""

import json
import logging
import threading
import uuid
import warnings
from datetime import datetime
from pathlib import Path

import pytest

from bat_dist.storage.files import Folder
from bat_dist.storage.unit_log import MAX_RECORDS, MAX_TEXT, AttemptLog, append_log, log_name, read_log, record


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_later_records_follow_earlier_ones(tmp_path: Path, kind: str) -> None:
    folder = Folder(tmp_path if kind == "local" else f"memory://{uuid.uuid4().hex}")
    assert read_log(folder, "trials", 17) == []
    append_log(folder, "trials", 17, [record("started", attempt=1, host="w1", pid=3)])
    append_log(folder, "trials", 17, [record("done", attempt=1, host="w2", pid=4, seconds=0.5)])
    append_log(folder, "trials", 1, [record("done", attempt=1)])
    assert log_name("trials", 17) == "logs/trials-17.jsonl"
    lines = folder.read("logs/trials-17.jsonl").decode().splitlines()
    first, second = map(json.loads, lines)
    assert (first["event"], first["host"], first["pid"]) == ("started", "w1", 3)
    assert (second["event"], second["seconds"]) == ("done", 0.5)
    assert read_log(folder, "trials", 17) == [first, second]
    assert datetime.fromisoformat(first["time"]).utcoffset().total_seconds() == 0  # pyright: ignore


def test_a_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for start in range(0, 3 * MAX_RECORDS, MAX_RECORDS // 2):
        append_log(folder, "trials", 0, [{"number": start + n} for n in range(MAX_RECORDS // 2)])
    assert [kept["number"] for kept in read_log(folder, "trials", 0)] == list(range(2 * MAX_RECORDS, 3 * MAX_RECORDS))


def test_an_attempt_keeps_200_messages_and_counts_the_others() -> None:
    scribe, log = AttemptLog(1), logging.getLogger("bat_dist.x")
    with scribe.listening():
        for number in range(1000):
            log.info("line %d", number)
    log.warning("not heard")
    assert len(scribe.records) == 200
    assert scribe.records[198]["text"] == "line 198"
    assert scribe.records[199]["text"] == "801 more messages were left out"


def test_long_texts_are_cut_in_the_middle() -> None:
    scribe, long = AttemptLog(1), "begin" + "x" * 100_000 + "end"
    scribe.message("INFO", long)
    for text, longest in (
        (record("failed", attempt=1, text=long)["text"], MAX_TEXT),
        (scribe.records[0]["text"], 1000),
    ):
        assert longest <= len(text) < longest + 10
        assert text.startswith("begin")
        assert text.endswith("end")


def test_passwords_in_uris_are_not_kept() -> None:
    assert record("failed", attempt=1, reason="s3://me:secret@host/x")["reason"] == "s3://***@host/x"


def test_listening_ends_and_leaves_logging_and_warnings_as_they_were() -> None:
    logger, show = logging.getLogger("bat_dist"), warnings.showwarning
    before = logger.level, list(logger.handlers)
    scribe = AttemptLog(3)
    with pytest.raises(ValueError, match="out of the block"), scribe.listening():
        raise ValueError("out of the block")
    assert (logger.level, logger.handlers) == before
    assert warnings.showwarning is show
    assert scribe.records == []


@pytest.mark.filterwarnings("default")
def test_a_warning_is_kept_in_every_attempt_and_once_in_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Python shows one only once in a process."""

    def loop() -> None:
        for _ in range(5):
            warnings.warn("slow path", stacklevel=1)

    with warnings.catch_warnings():
        warnings.showwarning = lambda *_, **__: None
        for attempt in (1, 2):
            scribe = AttemptLog(attempt)
            with scribe.listening():
                loop()
            (kept,) = scribe.records
            assert kept["text"].startswith("UserWarning: slow path (")
            assert (kept["level"], kept["attempt"]) == ("WARNING", attempt)


def test_other_threads_and_bad_log_lines_do_no_harm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("bat_dist"), "propagate", False)  # pytest's own handler would raise
    scribe, log = AttemptLog(1), logging.getLogger("bat_dist.x")

    def speak() -> None:
        for number in range(20):
            log.info("line %d", number)

    with scribe.listening():
        threads = [threading.Thread(target=speak) for _ in range(8)]
        for thread in threads:
            thread.start()
        log.info("%d", "not a number")
        for thread in threads:
            thread.join()
    assert len(scribe.records) == 160
    assert "Logging error" in capsys.readouterr().err
