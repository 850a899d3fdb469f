"""One driver at a time where no lock of the operating system reaches: held, refused, taken over, lost."""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from bat_dist.program import run_command
from bat_dist.storage import lease
from bat_dist.storage.files import Folder
from bat_dist.storage.lease import LOCK, FolderBusy, Lease, only_driver
from tests.helpers.waiting import until

STRANGER = {"host": "far-away", "pid": 4711, "nonce": "theirs", "beat": 7}


class Time:
    """Passes only while somebody sleeps; `meanwhile` happens during each sleep."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None):
        self.now, self.meanwhile = 0.0, meanwhile

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """As on a network file system without locks, and elsewhere."""
    return Folder(tmp_path if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def held_by_stranger(folder: Folder, beat: int = 7) -> None:
    folder.write(LOCK, json.dumps({**STRANGER, "beat": beat}).encode())


def waiting(folder: Folder, time: Time, **more) -> Lease:
    return Lease(folder, clock=time.clock, sleep=time.sleep, **more)


def test_of_two_at_once_one_is_refused_and_told_who_holds_it(folder: Folder) -> None:
    with Lease(folder, seconds=0.8), pytest.raises(FolderBusy) as caught:
        Lease(folder, seconds=0.8).acquire()
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
    assert "use another --out" in str(caught.value)
    with Lease(folder, seconds=0.8):  # given back at once
        pass
    assert not folder.exists(LOCK)


def test_a_dead_holder_is_waited_for_and_then_succeeded(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    held_by_stranger(folder)
    time = Time()
    with caplog.at_level(logging.INFO, "bat_dist"), waiting(folder, time):
        assert json.loads(folder.read(LOCK))["pid"] == os.getpid()
    assert 30 <= time.now < 40
    said = [record.getMessage() for record in caplog.records]
    assert "process 4711 on far-away" in said[0]
    assert "taking over" in said[1]


def test_a_lease_that_cannot_be_read_is_a_dead_one(folder: Folder) -> None:
    """An empty file is what a lock of the operating system leaves behind."""
    for content in (b"", b"[1]", b"\xff{"):
        folder.write(LOCK, content)
        with waiting(folder, Time()):
            assert json.loads(folder.read(LOCK))["pid"] == os.getpid()


def test_a_live_holder_is_found_soon(folder: Folder) -> None:
    held_by_stranger(folder)
    time = Time()
    time.meanwhile = lambda: held_by_stranger(folder, beat=int(time.now / 7.5))
    with pytest.raises(FolderBusy, match="process 4711 on far-away"):
        waiting(folder, time).acquire()
    assert time.now < 10


def test_what_is_given_back_meanwhile_is_free(folder: Folder) -> None:
    held_by_stranger(folder)
    time = Time(lambda: folder.remove(LOCK) if json.loads(folder.read(LOCK)) == STRANGER else None)
    with waiting(folder, time):
        assert time.now < 10


def test_time_in_which_the_storage_was_away_does_not_count(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder could not give a sign of life either."""
    held_by_stranger(folder)
    time, read = Time(), Folder.read

    def slow(self: Folder, name: str) -> bytes:
        time.now += 60 if 10 < time.now < 15 else 0
        return read(self, name)

    monkeypatch.setattr(Folder, "read", slow)
    with waiting(folder, time):
        assert time.now > 12 + 60 + 30


def test_who_was_slower_gives_way(folder: Folder) -> None:
    """Both saw a dead holder; the other wrote after us."""
    held_by_stranger(folder)
    time = Time()
    ours = waiting(folder, time)
    rival = {**STRANGER, "host": "rival", "nonce": "the rival's"}
    time.meanwhile = lambda: folder.write(LOCK, json.dumps(rival).encode()) if time.now > 30 else None
    with pytest.raises(FolderBusy, match="on rival"):
        ours.acquire()
    assert json.loads(folder.read(LOCK)) == rival


def test_storage_without_exclusive_writes_has_one_holder_too(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "write_new", lambda self, name, data: self.write(name, data) or True)
    time = Time(lambda: held_by_stranger(folder))
    with pytest.raises(FolderBusy, match="far-away"):
        waiting(folder, time).acquire()


def test_our_own_write_whose_answer_was_lost_is_ours(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "write_new", lambda self, name, data: bool(self.write(name, data)))
    time = Time()
    with waiting(folder, time):
        assert time.now < 5


def race(folder: Folder, seconds: float) -> list[Lease]:
    """Those of eight who hold it after all have tried, and two beats more."""
    lost: list[Lease] = []
    won: list[Lease] = []
    start = threading.Barrier(8)

    def run() -> None:
        mine = Lease(folder, seconds=seconds, on_loss=lambda: lost.append(mine))
        start.wait()
        try:
            mine.acquire()
        except FolderBusy:
            return
        won.append(mine)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(seconds / 2)
    holders = [one for one in won if one not in lost]
    for one in won:
        one.release()
    return holders


def test_of_eight_who_start_at_once_one_holds_it(folder: Folder) -> None:
    assert len(race(folder, seconds=3)) == 1
    assert not folder.exists(LOCK)


def test_of_eight_who_wait_for_a_dead_holder_one_succeeds_it(folder: Folder) -> None:
    held_by_stranger(folder)
    assert len(race(folder, seconds=3)) == 1
    assert not folder.exists(LOCK)


def test_who_finds_anothers_lease_in_the_place_of_his_is_stopped(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    lost = threading.Event()
    with Lease(folder, seconds=0.4, on_loss=lost.set):
        for _ in range(20):  # a beat of the holder may just be on its way, and come after it
            held_by_stranger(folder)
            if lost.wait(3):
                break
        assert lost.is_set()
    assert json.loads(folder.read(LOCK)) == STRANGER  # nor is it taken from its holder at the end
    assert "process 4711 on far-away has taken over" in caplog.text


def test_a_command_that_lost_its_folder_ends_as_by_sigterm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.4)
    folder, before = Folder(f"memory://{uuid.uuid4().hex}"), signal.getsignal(signal.SIGTERM)
    slept_on = []

    def body(_argv) -> None:
        with only_driver(folder):
            for _ in range(20):  # as above
                held_by_stranger(folder)
                time.sleep(3)
            slept_on.append(True)

    assert run_command(body, []) == 1
    assert not slept_on
    assert "stopped by SIGTERM: finished work is kept; the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_holder_lives_through_storage_that_is_away(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost = threading.Event()

    def away(*_args, **_kwargs) -> bytes:
        raise OSError(errno.ESTALE, "stale")

    with Lease(folder, seconds=0.4, on_loss=lost.set):
        with monkeypatch.context() as patch:
            patch.setattr(folder.fs, "cat_file", away)
            until(lambda: "cannot be renewed" in caplog.text)
            time.sleep(0.3)
        beat = json.loads(folder.read(LOCK))["beat"]
        until(lambda: json.loads(folder.read(LOCK))["beat"] > beat)
    assert not lost.is_set()
    assert caplog.text.count("cannot be renewed") == 1


def test_who_is_interrupted_while_he_takes_it_leaves_none_behind(folder: Folder) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), waiting(folder, Time(interrupt)):
        pass
    assert not folder.exists(LOCK)


def test_a_lease_removed_by_hand_is_written_again(folder: Folder) -> None:
    with Lease(folder, seconds=0.4):
        folder.remove(LOCK)
        until(lambda: folder.exists(LOCK) and json.loads(folder.read(LOCK) or b"{}").get("pid") == os.getpid())


# ------------------------------------------------------------------------------------------------- local folders


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_local_file_system_without_locks_gets_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(_handle: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.8)
    new = Folder(tmp_path / "new")
    with only_driver(new):
        assert json.loads((tmp_path / "new" / LOCK).read_bytes())["pid"] == os.getpid()
        with pytest.raises(FolderBusy, match=f"process {os.getpid()} on"), only_driver(Folder(tmp_path / "new")):
            pass
    assert not (tmp_path / "new").exists()  # bad input leaves nothing behind


def test_a_local_file_system_with_locks_gets_no_lease(tmp_path: Path) -> None:
    with only_driver(Folder(tmp_path / "new")):
        assert (tmp_path / "new" / LOCK).read_bytes() == b""
        with pytest.raises(FolderBusy, match="another run is writing"), only_driver(Folder(tmp_path / "new")):
            pass
    assert not (tmp_path / "new").exists()
    with only_driver(Folder(tmp_path / "new")):
        (tmp_path / "new" / "result").touch()
    assert (tmp_path / "new" / "result").exists()
