"""The driver's sign of life in the result folder, so that `--status` can tell of a job from anywhere."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from bat_dist.storage.files import Folder
from bat_dist.storage.patience import tried_once
from bat_dist.storage.provenance import without_passwords
from bat_dist.storage.status import PROGRESS
from bat_dist.workers.pace import Pace
from bat_dist.workers.running import Running

log = logging.getLogger(__name__)

INTERVAL = 15.0  # seconds; `status.SILENT` is four of them
MAX_REASON = 500  # characters


class Heartbeat:
    """A context in which `progress.json` is written at the start, every INTERVAL seconds, and at the end.

    What stands there last is `done`, `incomplete` if units failed, or `stopped` if the block ended with an exception. A
    folder without the file gets none before `begin`: bad input leaves nothing behind.  Never breaks a run.
    """

    def __init__(self, folder: Folder, what: str, *, total: int, interval: float = INTERVAL) -> None:
        self._folder, self._what, self._total, self._interval = folder, what, total, interval
        self._started = _now()
        self._pace: Pace | None = None
        self._is_new = True
        self._failed = self._lost = 0
        self._running: Callable[[], Iterable[Running]] = tuple
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._repeat, name="heartbeat", daemon=True)
        self._fails = False

    def __enter__(self) -> "Heartbeat":
        with suppress(Exception), tried_once():
            self._is_new = not self._folder.exists(PROGRESS)
        self._write("running")
        self._thread.start()
        return self

    def begin(self, done: int, total: int | None = None) -> None:
        """Work begins; so many units are there from earlier runs, which say nothing of the pace.

        total: of what is to be done, if that was not known before.
        """
        self._total = self._total if total is None else total
        self._pace, self._is_new = Pace(self._what, total=self._total, done=done), False
        self._write("running")

    def watch(self, running: Callable[[], Iterable[Running]]) -> None:
        """From now on ask this for what is running."""
        self._running = running

    def step(self, *, failed: int, by: int = 1, total: int | None = None) -> None:
        """One more unit (or what counts `by`) is done, or was given up; so many were given up so far.

        total: of what is to be done, where that has changed.
        """
        assert self._pace is not None
        if failed > self._failed:
            self._lost += by
        self._failed, self._total = failed, self._total if total is None else total
        self._pace.step(by, total)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: Any) -> None:
        self._stop.set()
        self._thread.join(timeout=self._interval)
        self._running = tuple
        if error is not None:
            self._write("stopped", reason=_reason(error))
        else:
            self._write("incomplete" if self._failed else "done")

    def _repeat(self) -> None:
        while not self._stop.wait(self._interval):
            self._write("running")

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
            "done": pace and pace.finished - self._lost,
            "total": self._total,
            "failed": self._failed,
            "per_hour": pace and round(pace.per_hour, 2),
            "seconds_left": pace and pace.seconds_left,
            "running": [
                {"unit": _plain(now.unit), "host": now.host, "pid": now.pid, "seconds": round(now.seconds, 1)}
                for now in self._running()
            ],
        }


def _plain(unit: Any) -> int | str:
    return unit if isinstance(unit, int) else str(unit)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "by a signal"
    return without_passwords(f"{type(error).__name__}: {error}")[:MAX_REASON]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
