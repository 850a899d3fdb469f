"""The row store: what is written is read, what is damaged is found, a stranger is refused."""

import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
import zarr

from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore, StoreDamaged, StoreMismatch

FIELDS = {"mask": Field("bool", (1000,)), "metrics": Field("float64", (2,))}
IDENTITY = {"arch": "tinynet", "epochs": 15}
NUM_ROWS = 6


def row(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {"mask": rng.random(1000) < 0.7, "metrics": rng.random(2)}


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "trials" if request.param == "local" else f"memory://{uuid.uuid4().hex}/trials")


def opened(folder: Folder, num_rows: int = NUM_ROWS, identity: dict = IDENTITY) -> RowStore:
    return RowStore.open(folder, fields=FIELDS, identity=identity, num_rows=num_rows)


def filled(folder: Folder, rows: range = range(NUM_ROWS), identity: dict = IDENTITY) -> RowStore:
    store = opened(folder, identity=identity)
    for number in rows:
        store.write(number, row(number))
    return store


def test_rows_come_back_as_written_also_from_a_new_process_view(folder: Folder) -> None:
    filled(folder, range(1, 4))
    store = opened(folder)
    assert store.status().complete.tolist() == [False, True, True, True, False, False]
    assert store.status().damaged == ()
    for name in FIELDS:
        expected = np.stack([row(number)[name] for number in (3, 1)])
        np.testing.assert_array_equal(store.read(name, np.array([3, 1])), expected)


def test_any_zarr_reader_opens_the_arrays(tmp_path: Path) -> None:
    filled(Folder(tmp_path / "trials"))
    group = zarr.open_group(str(tmp_path / "trials"), mode="r")
    mask = group["mask"]
    assert isinstance(mask, zarr.Array)
    np.testing.assert_array_equal(mask[2], row(2)["mask"])
    assert dict(group.attrs)["identity"] == IDENTITY


def test_a_store_that_was_begun_without_an_optional_array_goes_on_without_it(folder: Folder) -> None:
    filled(folder, range(2))
    fields = FIELDS | {"predicted": Field("uint16", (3,), optional=True)}
    store = RowStore.open(folder, fields=fields, identity=IDENTITY, num_rows=NUM_ROWS)
    assert store.fields == FIELDS
    store.write(2, row(2) | {"predicted": np.zeros(3, np.uint16)})
    assert opened(folder).status().complete.tolist() == [True] * 3 + [False] * 3
    new = RowStore.open(folder / "new", fields=fields, identity=IDENTITY, num_rows=1)
    assert set(new.fields) == {"mask", "metrics", "predicted"}
    required = FIELDS | {"predicted": Field("uint16", (3,))}
    with pytest.raises(StoreDamaged):
        RowStore.open(folder, fields=required, identity=IDENTITY, num_rows=NUM_ROWS)


def test_it_grows_and_never_shrinks(folder: Folder) -> None:
    filled(folder)
    assert opened(folder, num_rows=10).num_rows == 10
    assert opened(folder, num_rows=3).num_rows == 10
    assert opened(folder).status().complete.tolist() == [True] * NUM_ROWS + [False] * 4


def chunk(store: Path, name: str, number: int) -> Path:
    (file,) = (store / name).glob(f"c.{number}.*")
    return file


def cut(store: Path) -> None:
    file = chunk(store, "mask", 3)
    file.write_bytes(file.read_bytes()[:-7])


def empty(store: Path) -> None:
    chunk(store, "mask", 3).write_bytes(b"")


def flip_a_byte(store: Path) -> None:
    file = chunk(store, "mask", 3)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def remove(store: Path) -> None:
    chunk(store, "mask", 3).unlink()


def another_rows_value(store: Path) -> None:
    shutil.copy(chunk(store, "mask", 2), chunk(store, "mask", 3))


def another_row_whole(store: Path) -> None:
    for name in [*FIELDS, "digest"]:
        shutil.copy(chunk(store, name, 2), chunk(store, name, 3))


def a_row_of_another_store(store: Path) -> None:
    other = store.parent / "other"
    filled(Folder(other), identity={**IDENTITY, "epochs": 16})
    for name in [*FIELDS, "digest"]:
        shutil.copy(chunk(other, name, 3), chunk(store, name, 3))


def decodable_but_changed(store: Path) -> None:
    """What a tamperer with a Zarr library would do: checksums are right, the digest is not."""
    array = zarr.open_group(str(store), mode="r+")["mask"]
    assert isinstance(array, zarr.Array)
    array[3, 0] = not array[3, 0]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        empty,
        flip_a_byte,
        remove,
        another_rows_value,
        another_row_whole,
        a_row_of_another_store,
        decodable_but_changed,
    ],
)
def test_a_damaged_row_is_found_and_can_be_written_again(tmp_path: Path, damage) -> None:
    folder = Folder(tmp_path / "trials")
    filled(folder)
    damage(tmp_path / "trials")
    store = opened(folder)
    status = store.status()
    assert status.damaged == (3,)
    assert status.complete.tolist() == [True, True, True, False, True, True]
    store.write(3, row(3))
    assert opened(folder).status().complete.all()


def test_a_row_without_its_digest_does_not_exist(tmp_path: Path) -> None:
    """That is what kill -9 in the middle of a write leaves."""
    filled(Folder(tmp_path / "trials"))
    chunk(tmp_path / "trials", "digest", 3).unlink()
    status = opened(Folder(tmp_path / "trials")).status()
    assert not status.complete[3]
    assert status.damaged == ()


def test_other_settings_are_refused_by_name(folder: Folder) -> None:
    filled(folder)
    with pytest.raises(StoreMismatch, match=r"epochs: 15 in the store, 20 now") as caught:
        opened(folder, identity={**IDENTITY, "epochs": 20})
    assert "arch" not in str(caught.value)


def test_a_store_whose_making_was_cut_off_is_made_again(tmp_path: Path) -> None:
    opened(Folder(tmp_path / "trials"))
    description = tmp_path / "trials" / "zarr.json"
    content = json.loads(description.read_text())
    content["attributes"] = {}
    description.write_text(json.dumps(content))
    assert RowStore.existing(Folder(tmp_path / "trials")) is None
    filled(Folder(tmp_path / "trials"))


@pytest.mark.parametrize("file", ["zarr.json", "mask/zarr.json"])
def test_a_damaged_description_is_refused(tmp_path: Path, file: str) -> None:
    filled(Folder(tmp_path / "trials"))
    path = tmp_path / "trials" / file
    path.write_text(path.read_text()[:40])
    with pytest.raises(StoreDamaged, match="cannot be read"):
        opened(Folder(tmp_path / "trials"))


def test_a_row_of_another_shape_is_refused(folder: Folder) -> None:
    with pytest.raises(ValueError, match=r"mask must have shape \(1000,\)"):
        opened(folder).write(0, {**row(0), "mask": np.ones(999, bool)})


def test_a_thousand_trials_of_cifar_take_less_than_25_megabytes(tmp_path: Path) -> None:
    """Rows are files of their own, so that 50 of them are a twentieth; correctness at its most random costs most."""
    fields = {
        "mask": Field("bool", (50_000,)),
        "train_correct": Field("bool", (50_000,)),
        "test_correct": Field("bool", (10_000,)),
        "metrics": Field("float64", (2,)),
    }
    store = RowStore.open(Folder(tmp_path), fields=fields, identity={}, num_rows=50)
    rng = np.random.default_rng(0)
    for number in range(50):
        values = {name: rng.random(field.shape) < 0.7 for name, field in fields.items()}
        store.write(number, {**values, "metrics": rng.random(2)})
    assert 20 * sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 25e6
