"""One driver at a time: a lock of the operating system on local disks, a lease that is kept alive elsewhere."""

import errno
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.patience import patiently, tried_once

log = logging.getLogger(__name__)

LOCK = ".driver.lock"
LEASE_SECONDS = 30.0  # without a sign of life, after which a driver counts as dead
_ATTEMPTS = 5
_HELD = (errno.EAGAIN, errno.EACCES)
_UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class FolderBusy(UserError):
    """Another driver writes to this result folder."""


@contextmanager
def only_driver(folder: Folder) -> Iterator[None]:
    """Hold the folder for this process alone.

    On local disks by a lock that ends with the process, however it ends; elsewhere by a `Lease`, which a process that
    was killed leaves behind for half a minute. A local folder that was made for this and stays empty is removed again.
    Raises FolderBusy if another process holds it.
    """
    path = folder.local_path
    if path is None:
        with Lease(folder):
            yield
        return
    is_new, handle = not path.exists(), None
    folder.create()
    try:
        handle = patiently(str(folder), _lock, folder, path / LOCK)
        with Lease(folder) if handle is None else nullcontext():
            yield
    finally:
        if handle is not None:
            if is_new and [file.name for file in path.iterdir()] == [LOCK]:  # bad input leaves nothing behind
                (path / LOCK).unlink()
            os.close(handle)
        if is_new:
            with suppress(OSError):  # not empty
                path.rmdir()


def _lock(folder: Folder, path: Path) -> int | None:
    """Lock the file until its handle, which is returned, is closed; None if its file system has no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in _HELD:
                raise FolderBusy(f"another run is writing to {folder}: wait for it, or use another --out") from None
            if error.errno in _UNLOCKABLE:
                return None
            raise
        if os.fstat(handle).st_nlink:  # else its last holder has just removed it
            return handle
        os.close(handle)


class Lease:
    """The right to write to a folder: a file there that says who holds it, and changes while the holder lives.

    Who finds one watches it for `seconds` by his own clock, so that the clocks of machines need not agree: one that
    changes is held, one that stands still is taken over. No file system need compare and swap: everybody looks whose
    it is before he writes and after, and who finds another's stops. Two may hold it for `seconds` / 4 if the storage
    was away for one of them alone; then `on_loss`, by default SIGTERM to this process, is called in one of them.
    A context manager; raises FolderBusy if another holds it.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        seconds: float | None = None,
        on_loss: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._folder, self._seconds = folder, LEASE_SECONDS if seconds is None else seconds
        self._on_loss, self._clock, self._sleep = on_loss, clock, sleep
        self._holder = {"host": socket.gethostname(), "pid": os.getpid(), "nonce": secrets.token_hex(16)}
        self._beat, self._is_away = 0, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        try:
            self.acquire()
        except KeyboardInterrupt:  # while it waits
            self.release()
            raise
        return self

    def __exit__(self, *_error: Any) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lease.  Raises FolderBusy if another holds it."""
        for _ in range(_ATTEMPTS):
            if not (self._folder.write_new(LOCK, self._content()) or self._succeeds()):
                continue  # given back meanwhile
            self._sleep(self._seconds / 20)  # for others who saw what we saw, and for storage without exclusive writes
            found = self._read()
            if self._is_ours(found):
                self._thread.start()
                return
            if found is not None:
                raise self._busy(found)
        raise FolderBusy(f"{self._folder}/{LOCK} comes and goes: other runs are starting there; use another --out")

    def release(self) -> None:
        """Give it back, if it is still ours."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(self._seconds / 4)  # it may hang with the storage
        try:
            with tried_once():
                if self._is_ours(self._read()):
                    self._folder.remove(LOCK)
        except Exception as error:  # of any file system; what the run ended with is more important
            log.warning("%s/%s stays (%s): the next run waits %.0f s for it", self._folder, LOCK, error, self._seconds)

    def _succeeds(self) -> bool:
        """Take it over from a dead holder; False if it was given back."""
        found, watched = self._read(), 0.0
        if self._is_ours(found):
            return True  # the answer to our write was lost
        if found is None:
            return False
        log.info("%s was held by %s: waiting up to %.0f s for a sign of life", self._folder, _who(found), self._seconds)
        while watched < self._seconds:
            start = self._clock()
            self._sleep(self._seconds / 15)
            now = self._read()
            if now is None:
                return False
            if now != found:
                raise self._busy(now)
            took = self._clock() - start
            # Storage that was away was so for the holder too.
            watched = watched + took if took < self._seconds / 4 else 0.0
        log.warning("no sign of life from %s for %.0f s: taking over %s", _who(found), watched, self._folder)
        self._folder.write(LOCK, self._content())
        return True

    def _live(self) -> None:
        while not self._ended.wait(self._seconds / 4):
            try:
                with tried_once():
                    rival = self._renew()
                self._is_away = False
            except Exception as error:  # of any file system
                if not self._is_away:
                    reason = error.__cause__ or error
                    log.warning("%s/%s cannot be renewed, trying on: %s", self._folder, LOCK, reason)
                self._is_away = True
                continue
            if rival is not None:
                log.error(
                    "%s has taken over %s, for this run gave no sign of life: stopping", _who(rival), self._folder
                )
                self._on_loss()
                return

    def _renew(self) -> bytes | None:
        """Show that we live.  If another wrote in the place of ours, nothing is written, and that is returned."""
        found = self._read()
        if found is not None and not self._is_ours(found):
            return found
        self._beat += 1
        write = self._folder.write_new if found is None else self._folder.write  # None: somebody removed it by hand
        write(LOCK, self._content())
        return None

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "beat": self._beat}).encode()

    def _read(self) -> bytes | None:
        try:
            return self._folder.read(LOCK)
        except FileNotFoundError:
            return None

    def _is_ours(self, found: bytes | None) -> bool:
        return found is not None and _parsed(found).get("nonce") == self._holder["nonce"]

    def _busy(self, found: bytes) -> FolderBusy:
        return FolderBusy(
            f"another run ({_who(found)}) is writing to {self._folder}: wait for it, or use another --out"
        )


def _who(found: bytes) -> str:
    about = _parsed(found)
    return f"process {about['pid']} on {about['host']}" if {"pid", "host"} <= about.keys() else "an unknown driver"


def _parsed(found: bytes) -> dict[str, Any]:
    """Read what a lease says; nothing if it is none, such as one that is just being written."""
    try:
        about = json.loads(found)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
