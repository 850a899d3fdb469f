"""What fails for a moment is tried again, what is wrong for good is said at once, and neither is taken for damage."""

import errno
import gc
import logging
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import fsspec.config
import numpy as np
import pytest
import torch
import zarr.storage._local
from aiohttp.client_exceptions import ClientPayloadError
from botocore import exceptions as boto
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFileSystem
from s3fs.errors import translate_boto_error
from zarr.storage import FsspecStore

from bat_dist.artifacts.checkpoints import load_tensors, save_tensors
from bat_dist.errors import RunError, UserError
from bat_dist.program import run_command
from bat_dist.storage import files, location, patience
from bat_dist.storage.files import Folder
from bat_dist.storage.patience import patiently, tried_once
from bat_dist.storage.rows import Field, RowStore


class Clock:
    """Passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "_clock", lambda: clock.now)
    monkeypatch.setattr(patience, "_sleep", clock.sleep)
    monkeypatch.setattr(patience, "_lost", False)
    return clock


def failing(*errors: Exception) -> Callable[[], str]:
    """Raises each in turn, then answers."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return call


def always(error: Exception) -> Callable[[], Any]:
    def call() -> None:
        raise error

    return call


STALE = OSError(errno.ESTALE, "Stale file handle")


# ------------------------------------------------------------------------------------------------- how it waits


def test_pauses_grow_and_each_is_said(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bat_dist"):
        assert patiently("nfs/run/x", failing(*[STALE] * 6)) == "answer"
    assert clock.pauses == [1, 2, 4, 8, 15, 15]
    said = [record.getMessage() for record in caplog.records]
    assert [text.startswith("nfs/run/x cannot be reached since ") for text in said] == [True] * 6 + [False]
    assert "Stale file handle" in said[0]
    assert said[-1] == "nfs/run/x answers again, after 45 s"


def test_after_ten_minutes_the_run_ends_and_says_how_to_go_on(clock: Clock) -> None:
    with pytest.raises(RunError) as caught:
        patiently("nfs/run/x", always(STALE))
    assert 585 <= clock.now <= 600
    assert str(caught.value).startswith("nfs/run/x cannot be reached since ")
    assert str(caught.value).endswith("finished work is kept; the same command goes on from there")


def test_patience_once_lost_comes_back_with_an_answer(clock: Clock) -> None:
    """What a run does on its way out must not wait ten minutes for each file."""
    for expected in (580, 0, 0):
        start = clock.now
        with pytest.raises(RunError):
            patiently("x", always(STALE))
        assert clock.now - start >= expected
        assert (clock.now - start > 0) == bool(expected)
    patiently("x", failing())
    assert patiently("x", failing(STALE)) == "answer"


def test_not_there_is_an_answer_too(clock: Clock) -> None:
    with pytest.raises(RunError):
        patiently("x", always(STALE))
    with pytest.raises(FileNotFoundError):
        patiently("x", always(FileNotFoundError("x")))
    assert patiently("x", failing(STALE)) == "answer"


def test_a_sign_of_life_is_not_waited_for(clock: Clock) -> None:
    with tried_once(), pytest.raises(RunError, match="Stale file handle"):
        patiently("x", failing(STALE))
    assert clock.now == 0
    assert patiently("x", failing(STALE)) == "answer"  # and others go on being patient
    assert clock.now == 1


def test_passwords_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder("memory://user:secret@host/run")
    patiently(str(folder), failing(OSError(errno.EIO, "cannot open sftp://user:secret@host/run")))
    assert "***@host" in caplog.text
    assert "secret" not in caplog.text + str(folder)


# ------------------------------------------------------------------------------------------------- what passes


def answered(code: str, status: int) -> Exception:
    """As s3fs raises it."""
    response = {"Error": {"Code": code, "Message": "so it is"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(boto.ClientError(response, "PutObject"))  # pyright: ignore[reportArgumentType]


ENDPOINT = {"endpoint_url": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, os.strerror(number)) for number in (errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN)),
        *(OSError(number, os.strerror(number)) for number in (errno.ENOTCONN, errno.EAGAIN, errno.ECONNREFUSED)),
        TimeoutError(),
        ConnectionResetError(),
        FSTimeoutError(),
        boto.EndpointConnectionError(**ENDPOINT),
        boto.ConnectTimeoutError(**ENDPOINT),
        boto.ReadTimeoutError(**ENDPOINT),
        boto.ConnectionClosedError(**ENDPOINT),
        boto.HTTPClientError(error="reset"),
        ClientPayloadError("cut off"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ServerTimeoutError(),
        answered("SlowDown", 503),
        answered("InternalError", 500),
        answered("502", 502),
        answered("RequestTimeout", 400),
        answered("ConditionalRequestConflict", 409),
        answered("TooManyRequests", 429),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:50],
)
def test_what_may_pass_is_tried_again(error: Exception, clock: Clock) -> None:
    assert patiently("x", failing(error)) == "answer"
    assert clock.pauses == [1]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OSError, "No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), OSError, "quota"),
        (answered("XMinioStorageFull", 507), OSError, "No space left on device: 's3://b/x'"),
        (PermissionError(errno.EACCES, "Permission denied"), UserError, "s3://b/x: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), OSError, "Read-only"),
        (FileNotFoundError("x"), FileNotFoundError, "x"),
        (answered("NoSuchKey", 404), FileNotFoundError, "so it is"),
        (answered("NoSuchBucket", 404), UserError, "s3://b/x: there is no such bucket"),
        (answered("InvalidAccessKeyId", 403), UserError, r"access is refused \(so it is\)"),
        (answered("SignatureDoesNotMatch", 403), UserError, "check credentials"),
        (answered("403", 403), UserError, "access is refused"),
        (answered("ExpiredToken", 400), UserError, "access is refused"),
        (answered("PermanentRedirect", 301), UserError, "PermanentRedirect: so it is"),
        (answered("InvalidBucketName", 400), UserError, "InvalidBucketName"),
        (boto.NoCredentialsError(), UserError, "Unable to locate credentials"),
        (boto.ProfileNotFound(profile="me"), UserError, "me"),
        (boto.SSLError(**ENDPOINT, error="CERTIFICATE_VERIFY_FAILED"), UserError, "CERTIFICATE"),
        (ValueError("crc32c does not match"), ValueError, "crc32c"),
    ],
)
def test_what_will_not_pass_is_said_at_once(error: Exception, kind: type, message: str, clock: Clock) -> None:
    with pytest.raises(kind, match=message) as caught:
        patiently("s3://b/x", always(error))
    assert clock.now == 0
    assert issubclass(kind, UserError) == isinstance(caught.value, UserError)


# ------------------------------------------------------------------------------------------------- who is patient


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each first call with the same arguments to memory://, and to zarr's store on it, fails; the names of those."""
    failed: list[str] = []
    seen: set[str] = set()

    def wrapped(kind: type, name: str) -> Callable[..., Any]:
        method = getattr(kind, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if (first := f"{name} {args[:1]}") not in seen:
                seen.add(first)
                failed.append(name)
                raise OSError(errno.ESTALE, "Stale file handle")
            return method(self, *args, **kwargs)

        return call

    for name in ("cat_file", "pipe_file", "ls", "rm", "rm_file", "makedirs"):
        monkeypatch.setattr(MemoryFileSystem, name, wrapped(MemoryFileSystem, name))
    for name in ("get", "set"):
        call = wrapped(FsspecStore, name)

        async def awaited(self: Any, *args: Any, call: Any = call, **kwargs: Any) -> Any:
            return await call(self, *args, **kwargs)

        monkeypatch.setattr(FsspecStore, name, awaited)
    return failed


def test_files_are_read_and_written_through_a_shaky_link(shaky: list[str]) -> None:
    folder = Folder(f"memory://{uuid.uuid4().hex}/run")
    folder.create()
    assert folder.write_new("a.json", b"{}")
    assert not folder.write_new("a.json", b"[]")
    assert folder.read_json("a.json") == {}
    folder.write_npz("failed/x-1.npz", a=np.arange(3))
    assert folder.read_npz("failed/x-1.npz")["a"].tolist() == [0, 1, 2]
    assert folder.names("failed/x-*") == ["x-1.npz"]
    assert folder.names("nothing/x-*") == []
    folder.remove("a.json")
    assert not folder.exists("a.json")
    folder.remove_folder("failed")
    folder.remove_folder("failed")
    assert not folder.exists("failed/x-1.npz")
    save_tensors(folder, "state.safetensors", {"a": torch.arange(3)}, {"epoch": 3})
    assert load_tensors(folder, "state.safetensors")[1] == {"epoch": 3}
    assert set(shaky) == {"cat_file", "pipe_file", "ls", "rm", "rm_file", "makedirs"}  # each of them was met


def test_a_write_whose_answer_was_lost_is_found_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    write, times = folder.fs.pipe_file, []

    def written_but(*args: Any, **kwargs: Any) -> None:
        times.append(1)
        write(*args, **kwargs)
        if len(times) == 1:
            raise ConnectionResetError

    monkeypatch.setattr(folder.fs, "pipe_file", written_but)
    assert not folder.write_new("x", b"ours")
    assert folder.read("x") == b"ours"


FIELDS = {"values": Field("uint8", (30_000,)), "metrics": Field("float64", (2,))}


def row(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {"values": rng.integers(0, 256, 30_000, dtype=np.uint8), "metrics": rng.random(2)}


def opened(folder: Folder, num_rows: int = 4) -> RowStore:
    return RowStore.open(folder, fields=FIELDS, identity={"a": 1}, num_rows=num_rows)


@pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")  # zarr's, where a write fails
def test_rows_are_written_and_read_through_a_shaky_link(shaky: list[str]) -> None:
    folder = Folder(f"memory://{uuid.uuid4().hex}/trials")
    store = opened(folder)
    for number in range(3):
        store.write(number, row(number))
    store = opened(folder, num_rows=5)
    status = store.status()
    assert status.complete.tolist() == [True, True, True, False, False]
    assert status.damaged == ()
    np.testing.assert_array_equal(store.read("values", np.array([2, 0])), [row(2)["values"], row(0)["values"]])
    assert {"get", "set"} <= set(shaky)
    gc.collect()  # what zarr left behind is thrown away here, where it is ignored, and not in another test


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), RunError, "cannot be reached"),
        (PermissionError(errno.EACCES, "Permission denied"), UserError, "Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), OSError, "Too many open files"),
    ],
)
def test_rows_that_cannot_be_read_are_not_taken_for_damaged(
    error: Exception, raised: type, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an outage at the start of a run would have all of it computed again."""
    folder = Folder(f"memory://{uuid.uuid4().hex}/trials")
    store = opened(folder)
    store.write(0, row(0))

    async def get(self: FsspecStore, *_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(FsspecStore, "get", get)
    for ask in (store.status, lambda: opened(folder), lambda: store.read("values", np.array([0]))):
        with pytest.raises(raised, match=message) as caught:
            ask()
        assert type(caught.value).__name__ != "StoreDamaged"


def test_what_cannot_be_looked_at_is_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an outage would have a folder full of results begun anew."""
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, *_args, **_kwargs: always(STALE)())
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda self, *_args, **_kwargs: always(STALE)())
    for ask in (lambda: folder.exists("zarr.json"), lambda: folder.names("*.json")):
        with pytest.raises(RunError, match="cannot be reached"):
            ask()


def test_a_file_is_written_again_after_a_stale_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS: the write fails at its end."""
    sync, times = os.fsync, []

    def fsync(handle: int) -> None:
        times.append(handle)
        if len(times) < 3:
            raise OSError(errno.ESTALE, "Stale file handle")
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    Folder(tmp_path).write("x", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"whole"


# ------------------------------------------------------------------------------------------------- S3's client


@pytest.fixture
def s3_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)

    def config() -> dict[str, Any]:
        location._retries.cache_clear()
        return Folder("s3://bucket/run").fs.config_kwargs

    yield config
    location._retries.cache_clear()


def test_a_silent_s3_is_noticed_within_a_minute(s3_config: Callable[[], dict[str, Any]]) -> None:
    config = s3_config()
    assert (config["connect_timeout"], config["read_timeout"]) == (5, 30)
    assert config["retries"]["total_max_attempts"] == 2
    assert Folder("s3://bucket/run").fs.retries == 1


def test_what_the_user_has_set_for_s3_holds(
    s3_config: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 7}})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")
    assert s3_config() == {"connect_timeout": 5, "read_timeout": 7}


# ------------------------------------------------------------------------------------------------- full


@pytest.fixture(params=["tmpfs", "simulated"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Room for some rows; `make_room` of it is a file that takes the rest."""
    if request.param == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs the right to mount")
        (tmp_path / "ballast").write_bytes(bytes(256 * 1024))
        try:
            yield tmp_path
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)
        return
    put = zarr.storage._local._put
    (tmp_path / "ballast").touch()

    def full(path: Path, value: Any, *more: Any, **named: Any) -> int:
        used = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
        if (tmp_path / "ballast").exists() and used + len(value) > 256 * 1024:
            path.with_suffix(".partial").write_bytes(value.to_bytes()[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(path, value, *more, **named)

    monkeypatch.setattr(zarr.storage._local, "_put", full)
    yield tmp_path


def test_a_row_that_met_a_full_disk_is_computed_again(
    small_disk: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(small_disk / "trials")
    store, written = opened(folder, num_rows=30), []

    def fill(_argv) -> None:
        for number in range(30):
            store.write(number, row(number))
            written.append(number)

    assert run_command(fill, []) == 1
    assert clock.now == 0  # no patience: somebody must make room
    errors = capsys.readouterr().err
    assert f"error: No space left on device ({folder}): make room; the same command then goes on" in errors
    assert 3 < len(written) < 20
    status = opened(folder).status()
    assert np.flatnonzero(status.complete).tolist() == written
    (small_disk / "ballast").unlink()
    store = opened(folder)
    store.write(len(written), row(len(written)))
    assert opened(folder).status().complete.sum() == len(written) + 1
    np.testing.assert_array_equal(store.read("values", np.array(written)), [row(n)["values"] for n in written])
