"""The driver's sign of life in the result folder, so that `--status` can tell of a job from anywhere."""

import logging
import os
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from bat_dist.storage.files import Folder
from bat_dist.storage.patience import tried_once
from bat_dist.storage.provenance import without_passwords
from bat_dist.storage.status import PROGRESS
from bat_dist.workers.pace import Pace

log = logging.getLogger(__name__)

INTERVAL = 15.0  # seconds; `status.SILENT` is four of them
MAX_REASON = 500  # characters


class Heartbeat:
    """A context in which `progress.json` is written at the start, every INTERVAL seconds, and at the end.

    total: of units; first: the number of the first of them, where they have numbers.
    What stands there last is `done`, `incomplete` if units failed, or `stopped` if the block ended with an exception. A
    folder without the file gets none before `begin`: bad input leaves nothing behind.  Never breaks a run.
    """

    def __init__(self, folder: Folder, what: str, *, total: int, first: int = 0, interval: float = INTERVAL) -> None:
        self._folder, self._what, self._total, self._interval = folder, what, total, interval
        self._first = first
        self._started = _now()
        self._pace: Pace | None = None
        self._is_new = True
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._fails = False

    def __enter__(self) -> "Heartbeat":
        with suppress(Exception), tried_once():
            self._is_new = not self._folder.exists(PROGRESS)
        self._write("running")

        def repeat() -> None:
            while not self._stop.wait(self._interval):
                self._write("running")

        self._thread = threading.Thread(target=repeat, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def begin(self, done: int, total: int | None = None) -> Pace:
        """Work begins; so many units are there from earlier runs.  Returns what is to be told of each outcome.

        total: of what is to be done, if that was not known before.
        """
        self._pace = Pace(self._what, total=self._total if total is None else total, done=done)
        self._is_new = False
        self._write("running")
        return self._pace

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: Any) -> None:
        self._stop.set()
        self._thread.join(timeout=self._interval)
        if self._pace:
            self._pace.watch(tuple)
        if error is not None:
            reason = "by a signal" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            self._write("stopped", reason=without_passwords(reason)[:MAX_REASON])
        else:
            self._write("incomplete" if self._pace and self._pace.failed else "done")

    def _write(self, state: str, **more: Any) -> None:
        if self._is_new:
            return
        try:
            with self._lock, tried_once():
                if state == "running" and self._stop.is_set():  # a late beat must not hide the end
                    return
                self._folder.write_json(PROGRESS, {**self._document(state), **more})
            self._fails = False
        except Exception as error:  # of any file system; a disk that is full ends the run where rows are written
            if not self._fails:
                log.warning("%s/%s cannot be written: %s", self._folder, PROGRESS, error)
            self._fails = True

    def _document(self, state: str) -> dict[str, Any]:
        pace = self._pace
        return {
            "state": state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "written": _now(),
            "what": self._what,
            "done": pace and pace.finished - pace.lost,
            "total": pace.total if pace else self._total,
            "first": self._first,
            "failed": pace.failed if pace else 0,
            "per_hour": pace and round(pace.per_hour, 2),
            "seconds_left": pace and pace.seconds_left,
            "running": [
                {
                    "unit": now.unit if isinstance(now.unit, int) else str(now.unit),
                    "host": now.host,
                    "pid": now.pid,
                    "seconds": round(now.seconds, 1),
                    "share": round(now.share, 3),
                }
                for now in (pace.running() if pace else ())
            ],
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
