"""A finished store in few files: the same rows, at any moment of the change, and after damage and growth."""

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bat_dist.storage import compaction, shards
from bat_dist.storage.compaction import compact_if_complete
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore

NUM_ROWS = 10  # shards of 8 rows and of 2, in the place of 100: see `small_shards`
FIELDS = {"small": Field("bool", (40,)), "large": Field("uint16", (16_000,)), "one": Field("float64", ())}
TINY = {"small": Field("bool", (40,)), "metrics": Field("float64", (2,))}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "BLOCK", 8)
    monkeypatch.setattr(shards, "SIZES", (8, 4, 2, 1))


def row(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    values = {"small": rng.random(40) < 0.5, "large": rng.integers(9, size=16_000).astype(np.uint16)}
    return {**values, "one": np.array(rng.random()), "metrics": rng.random(2)}


def opened(folder: Folder, num_rows: int = NUM_ROWS, fields: dict[str, Field] = TINY) -> RowStore:
    return RowStore.open(folder, fields=fields, identity={"epochs": 3}, num_rows=num_rows)


def filled(folder: Folder, num_rows: int = NUM_ROWS, fields: dict[str, Field] = TINY) -> RowStore:
    store = opened(folder, num_rows, fields)
    for number in range(num_rows):
        store.write(number, row(number))
    return store


def assert_holds(folder: Folder, rows: range, fields: dict[str, Field] = TINY) -> None:
    """A store that is opened anew has these rows, sound and equal, and no others."""
    store = RowStore.existing(folder)
    assert store is not None
    status = store.status()
    assert (np.flatnonzero(status.complete).tolist(), status.damaged) == (list(rows), ())
    for name in fields:
        expected = np.stack([row(number)[name] for number in rows])
        np.testing.assert_array_equal(store.read(name, np.array(rows)), expected)


def num_files(folder: Folder) -> int:
    assert folder.local_path is not None
    return sum(path.is_file() for path in folder.local_path.rglob("*"))


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_compact_store_has_the_same_rows_in_few_files(tmp_path: Path, kind: str) -> None:
    folder = Folder(tmp_path / "[1]" if kind == "local" else f"memory://{uuid.uuid4().hex}")
    store = filled(folder)
    compact_if_complete(store)
    assert_holds(folder, range(NUM_ROWS))
    assert [folder.names(f"{name}/*") for name in ("small", "metrics", "digest")] == [["0.0", "1.0", "zarr.json"]] * 3
    np.testing.assert_array_equal(store.read("small", np.arange(7)), [row(n)["small"] for n in range(7)])
    compact_if_complete(store)
    assert_holds(folder, range(NUM_ROWS))


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_who_has_opened_it_before_reads_the_same_rows(tmp_path: Path, kind: str) -> None:
    """Another program, which would take rows whose files are gone for rows of zeros."""
    folder = Folder(tmp_path if kind == "local" else f"memory://{uuid.uuid4()}")
    writer, reader, other = filled(folder), opened(folder), opened(folder)
    compact_if_complete(writer)
    np.testing.assert_array_equal(
        reader.read("small", np.arange(NUM_ROWS)), np.stack([row(k)["small"] for k in range(NUM_ROWS)])
    )
    assert other.status().complete.all()
    assert not other.status().damaged


def test_any_zarr_reader_opens_it(tmp_path: Path) -> None:
    compact_if_complete(filled(Folder(tmp_path)))
    array = zarr.open_group(str(tmp_path), mode="r")["small"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[9], row(9)["small"])


def test_a_hundred_rows_share_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    compact_if_complete(filled(folder, 99))
    assert len(folder.names("digest/*")) == 99 + 1
    again = opened(folder, 120)
    for number in range(99, 120):
        again.write(number, row(number))
    compact_if_complete(again)
    assert folder.names("digest/*") == ["0.0", "1.0", "zarr.json"]
    assert again.arrays["small"].shards == again.arrays["small"].chunks == (100, 40)
    assert_holds(folder, range(120))


def test_few_rows_and_damaged_ones_stay_as_they_are(tmp_path: Path) -> None:
    few = filled(Folder(tmp_path / "few"), 7)
    compact_if_complete(few)
    assert num_files(few.folder) == 7 * 3 + 4
    damaged = filled(Folder(tmp_path / "damaged"))
    (tmp_path / "damaged/small/c.7.0").unlink()
    compact_if_complete(damaged)
    assert damaged.arrays["small"].shards is None
    assert opened(damaged.folder).status().damaged == (7,)


def test_rows_that_are_not_there_can_be_added(tmp_path: Path) -> None:
    """As of a cluster that began at a later trial; and the store grows beyond its last shard."""
    folder = Folder(tmp_path)
    store = opened(folder, 13)
    for number in range(3, 13):
        store.write(number, row(number))
    compact_if_complete(store)
    assert_holds(folder, range(3, 13))
    again = opened(folder, 18)
    for number in (*range(3), *range(13, 18)):
        again.write(number, row(number))
    assert_holds(folder, range(18))
    assert num_files(folder) == 3 * 3 + 4


class Killed(BaseException):
    """SIGKILL, as far as a process can play it: nothing is tidied up."""


@pytest.mark.parametrize("after", [0, 1, 2, 3, 6, 8, 9, 12, 25, 38])
def test_a_kill_at_any_point_leaves_a_store_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """After so many files that were written or removed: 9 are written, and then 30 removed."""
    folder = Folder(tmp_path)
    store, done = filled(folder), 0

    def counted(call: Callable[..., None], *args: Any) -> None:
        nonlocal done
        if done == after:
            raise Killed
        done += 1
        call(*args)

    write, remove = Folder.write, Folder.remove
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", lambda *args: counted(write, *args))
        patch.setattr(Folder, "remove", lambda *args: counted(remove, *args))
        with pytest.raises(Killed):
            compact_if_complete(store)
    assert_holds(folder, range(NUM_ROWS))
    again = opened(folder, 13)  # goes on, as after a larger --num_trials
    for number in range(10, 13):
        again.write(number, row(number))
    assert_holds(folder, range(13))
    compact_if_complete(again)
    assert_holds(folder, range(13))
    assert num_files(folder) == 3 * 2 + 4


def test_a_full_disk_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Folder, name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device", name)

    store = filled(Folder(tmp_path))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Folder, "write", full)
        compact_if_complete(store)
    assert f"{tmp_path} keeps a file for each row, which can be read as well: [Errno 28]" in caplog.text
    assert_holds(Folder(tmp_path), range(NUM_ROWS))


def flip_a_byte(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def test_of_large_rows_each_is_damaged_alone_and_can_be_written_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    store = filled(folder, 8, FIELDS)
    compact_if_complete(store)
    assert store.arrays["large"].chunks[0] == store.arrays["digest"].chunks[0] == 2  # rows of 32 kB
    flip_a_byte(tmp_path / "large/0.0", 0.5)
    damaged = opened(folder, 8, FIELDS).status().damaged
    assert len(damaged) == 2
    again = opened(folder, 8, FIELDS)
    for number in damaged:
        again.write(number, row(number))
    assert_holds(folder, range(8), FIELDS)


def test_a_shard_that_is_cut_off_can_be_written_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    compact_if_complete(filled(folder))
    shard = tmp_path / "small/1.0"
    shard.write_bytes(shard.read_bytes()[:-7])
    store = opened(folder)
    assert store.status().damaged == (8, 9)
    for number in (8, 9):
        store.write(number, row(number))
    assert_holds(folder, range(NUM_ROWS))


def test_rows_too_large_for_a_shard_stay_single(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_SHARD", 40 * 3)
    folder = Folder(tmp_path)
    store = filled(folder)
    monkeypatch.setattr(compaction, "MAX_CHUNK", 40)
    compact_if_complete(store)
    assert store.arrays["small"].shards == (2, 40)
    monkeypatch.setattr(compaction, "MAX_SHARD", 39)
    other = filled(Folder(tmp_path / "other"))
    compact_if_complete(other)
    assert other.arrays["small"].shards is None
    assert other.arrays["metrics"].shards == (2, 2)
    for place in (folder, other.folder):
        assert_holds(place, range(NUM_ROWS))
