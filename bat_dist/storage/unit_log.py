"""The log of one unit of work: who ran it, where, when, how long, what went wrong, and what was said meanwhile.

Records are plain values, a line of JSON each, in `logs/trials-17.jsonl` for trial 17. What a record may hold: `time`
(ISO, UTC), `event` (started, message, done, failed, lost, retried), `attempt` (from 1, in each run of the program),
`host`, `pid`, `seconds`, `reason`, `level`, `text`. Never the environment: it holds secrets.
"""

import json
import logging
import os
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import without_passwords

Record = dict[str, Any]

LOGGER = "bat_dist"
MAX_MESSAGES = 199  # of one attempt, and one more that counts those left out
MAX_RECORDS = 2000  # in a file; the latest stay
MAX_TEXT, MAX_MESSAGE = 4000, 1000  # characters


def log_name(what: str, row: Any) -> str:
    """The name of the unit's log in the result folder."""
    return f"logs/{what}-{row}.jsonl"


def append_log(folder: Folder, what: str, row: Any, records: Sequence[Record]) -> None:
    """Write records after those of earlier runs.  Only the folder's driver may call it."""
    name = log_name(what, row)
    old = folder.read(name).splitlines() if folder.exists(name) else []
    lines = [*old, *(json.dumps(record).encode() for record in records)][-MAX_RECORDS:]
    folder.write(name, b"".join(line + b"\n" for line in lines))


def read_log(folder: Folder, what: str, row: Any) -> list[Record]:
    """All records, oldest first; none without a file."""
    name = log_name(what, row)
    return [json.loads(line) for line in folder.read(name).splitlines()] if folder.exists(name) else []


def record(event: str, *, attempt: int, host: str | None = None, pid: int | None = None, **more: Any) -> Record:
    """Make a record of now, without what is None; texts are cut at MAX_TEXT and lose passwords in URIs."""
    known = {"host": host, "pid": pid, **more}
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "attempt": attempt,
        **{name: _fit(value) for name, value in known.items() if value is not None},
    }


class AttemptLog:
    """The records of one attempt, kept in this process."""

    def __init__(self, attempt: int) -> None:
        self.records: list[Record] = []
        self._about: dict[str, Any] = {"attempt": attempt, "host": socket.gethostname(), "pid": os.getpid()}
        self._messages, self._lock = 0, threading.Lock()  # other threads speak too

    def note(self, event: str, **more: Any) -> None:
        """Keep a record."""
        self.records.append(record(event, **self._about, **more))

    def message(self, level: str, text: str) -> None:
        """Keep what was said, up to MAX_MESSAGES."""
        with self._lock:
            self._messages += 1
            kept = self._messages <= MAX_MESSAGES
        if kept:
            self.note("message", level=level, text=_fit(text, MAX_MESSAGE))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what the package logs (from INFO on) and warns of in this process while the block runs."""
        logger, handler, show = logging.getLogger(LOGGER), _MessageHandler(self), warnings.showwarning
        level = logger.level

        def keep_and_show(
            message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
        ) -> None:
            self.message("WARNING", f"{category.__name__}: {message} ({filename}:{lineno})")
            show(message, category, filename, lineno, file, line)

        logger.setLevel(min(level or logging.INFO, logging.INFO))
        logger.addHandler(handler)
        try:
            with warnings.catch_warnings():  # which also makes a warning of an earlier unit be shown again
                warnings.showwarning = keep_and_show
                yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            if (more := self._messages - MAX_MESSAGES) > 0:
                self.note("message", level="WARNING", text=f"{more} more messages were left out")


class _MessageHandler(logging.Handler):
    def __init__(self, attempt_log: AttemptLog) -> None:
        super().__init__(logging.INFO)
        self._attempt_log = attempt_log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._attempt_log.message(record.levelname, self.format(record))
        except Exception:  # as every handler: a bad log line must not end the work
            self.handleError(record)


def _fit(value: Any, longest: int = MAX_TEXT) -> Any:
    """Cut a text that is too long to its beginning and its end, and hide passwords; other values stay."""
    if not isinstance(value, str):
        return value
    value, half = without_passwords(value), longest // 2
    return value if len(value) <= longest else f"{value[:half]} ... {value[-half:]}"
