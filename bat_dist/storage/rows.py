"""The row store: named arrays, one row per unit of work, in Zarr format 3.

Every row is one chunk per array and a SHA-256 digest, written last, over the row's values, its number and the
store's identity.  A row is complete if its digest is right: a write that was cut off, a flipped byte, a row copied
from another place or another store all fail it, and the unit is computed again.  A chunk is a file, or in a finished
store a part of one (`storage.compaction`).  No pickle anywhere.  Any Zarr reader opens the arrays.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bat_dist.config import differences
from bat_dist.errors import WAY_OUT, UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.location import open_for_zarr
from bat_dist.storage.patience import patiently
from bat_dist.storage.shards import BLOCK, OF_STORAGE, mend_shard, row_codecs

if TYPE_CHECKING:  # imported where a store is opened: training, which has none, does without it
    import zarr
    from zarr.storage import StoreLike

log = logging.getLogger(__name__)

FORMAT = "bat_dist rows 1"
DIGEST = "digest"
DIGEST_BYTES = 32
BLOCK_BYTES = 2**25  # of rows read at a time, beyond which there are fewer than BLOCK


class StoreMismatch(UserError):
    """The folder holds rows of other settings or other data."""


class StoreDamaged(UserError):
    """The store's own description cannot be read."""


@dataclass(frozen=True)
class Field:
    """One array of the store: the type and shape of a single row.

    optional: a store that was begun without the array, by an earlier version, goes on without it.
    """

    dtype: str
    shape: tuple[int, ...]
    optional: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class RowStatus:
    """Which rows are there.  `complete`: bool [rows]; `damaged`: numbers of rows that fail their digest."""

    complete: np.ndarray
    damaged: tuple[int, ...]


class RowStore:
    """Rows 0, 1, 2, ... of named arrays under `folder`, bound to `identity` (any JSON mapping).

    `open` creates the store if there is none, and otherwise compares: one of another identity that has no row yet is
    replaced.  Raises StoreMismatch, naming what differs, if the rows there belong to another identity, and StoreDamaged
    if the store's description is unreadable.
    """

    def __init__(self, group: "zarr.Group", folder: Folder):
        attributes: dict[str, Any] = dict(group.attrs)
        self.folder = folder
        self.identity: dict[str, Any] = attributes["identity"]
        self.fields = {name: Field(one["dtype"], tuple(one["shape"])) for name, one in attributes["fields"].items()}
        self.arrays: dict[str, Any] = {name: group[name] for name in [*self.fields, DIGEST]}
        self._identity_digest = hashlib.sha256(_canonical(self.identity)).digest()

    @classmethod
    def open(
        cls,
        folder: Folder,
        *,
        fields: Mapping[str, Field],
        identity: Mapping[str, Any],
        num_rows: int,
        about: Mapping[str, Any] | None = None,
    ) -> "RowStore":
        """The store in `folder` with room for `num_rows`, made, replaced or grown as needed.

        about: said of it for readers, when it is made.
        """
        identity = json.loads(_canonical(identity))
        store = cls.existing(folder)
        if store is not None and not store.check(fields, identity):
            log.info("%s was made for other settings, and not one row is finished: it is replaced", folder)
            store = None
        store = store or cls(patiently(str(folder), _create, folder, fields, identity, about or {}), folder)
        if num_rows > store.num_rows:
            for array in store.arrays.values():  # the digests last: `num_rows` is theirs
                store._patiently(array.resize, (num_rows, *array.shape[1:]))
        return store

    def check(self, fields: Mapping[str, Field], identity: Mapping[str, Any]) -> bool:
        """Whether the store is of this identity and these fields; one that is not, and has no row, may be replaced.

        Raises StoreMismatch or StoreDamaged if it holds rows, which would be lost.
        """
        changes = differences(self.identity, json.loads(_canonical(identity)))
        wanted = {name: one for name, one in fields.items() if not one.optional or name in self.fields}
        if not changes and self.fields == wanted:
            return True
        if not self.is_begun():
            return False
        if changes:
            raise StoreMismatch(
                f"{self.folder} holds results of other settings or data; {WAY_OUT}, or the same settings. "
                f"It differs in: {'; '.join(changes)}"
            )
        raise StoreDamaged(f"{self.folder} has other arrays than its identity asks for: it was changed; {WAY_OUT}")

    def is_begun(self) -> bool:
        """Whether a row has been written, sound or damaged."""
        return any(verdict is not None for verdict, _ in self.checked_rows())

    @classmethod
    def existing(cls, folder: Folder) -> "RowStore | None":
        """The store in `folder`, or None if there is none (or its making was cut off before any row)."""
        if not folder.exists("zarr.json"):
            return None
        try:
            return patiently(str(folder), cls._open_existing, folder)
        except Exception as error:
            if isinstance(error, OF_STORAGE) and not isinstance(error, FileNotFoundError):
                raise
            raise StoreDamaged(
                f"the description of the store {folder} cannot be read ({type(error).__name__}: {error}); "
                f"restore its zarr.json files from a backup; else {WAY_OUT}"
            ) from None

    @classmethod
    def _open_existing(cls, folder: Folder) -> "RowStore | None":
        import zarr

        group = zarr.open_group(_zarr_location(folder), mode="r+", zarr_format=3)
        if "identity" not in group.attrs:
            return None
        if group.attrs.get("format") != FORMAT:
            raise StoreDamaged(f"{folder} is written in format {group.attrs.get('format')!r}, expected {FORMAT!r}")
        return cls(group, folder)

    def reopen(self, name: str) -> None:
        """Read one array as its files describe it now."""
        import zarr

        opened = partial(zarr.open_array, mode="r+", zarr_format=3)
        self.arrays[name] = self._patiently(opened, _zarr_location(self.folder / name))

    @property
    def num_rows(self) -> int:
        """How many rows there is room for."""
        return self.arrays[DIGEST].shape[0]

    def write(self, row: int, values: Mapping[str, Any]) -> None:
        """Write one whole row; its digest goes last.  Raises ValueError if a field is of another shape."""
        arrays = {}
        for name, one in self.fields.items():
            array = np.asarray(values[name])
            if array.shape != one.shape:
                raise ValueError(f"{name} must have shape {one.shape}, got {array.shape}")
            arrays[name] = array.astype(one.dtype, casting="same_kind", copy=False)
        arrays[DIGEST] = np.frombuffer(self._digest(row, arrays), np.uint8)
        for name, array in arrays.items():
            try:
                self._patiently(self.arrays[name].__setitem__, row, array)
            except OF_STORAGE:
                raise
            except Exception:  # a row that shares its file with others, which is damaged
                mend_shard(self.folder, name, self.arrays[name], row)
                self._patiently(self.arrays[name].__setitem__, row, array)

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers of one array: [len(rows), *shape].  Ask `status` first which rows are sound."""
        array, rows = self.arrays[name], np.asarray(rows)
        step = self._rows_at_a_time(array)
        blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
        found = [self._values(name, block) for block in blocks]
        return np.concatenate([np.empty((0, *array.shape[1:]), array.dtype), *found])

    def status(self) -> RowStatus:
        """Check every row against its digest."""
        verdicts = [verdict for verdict, _ in self.checked_rows()]
        damaged = tuple(row for row, verdict in enumerate(verdicts) if verdict is False)
        return RowStatus(np.array([verdict is True for verdict in verdicts], bool), damaged)

    def checked_rows(self) -> Iterator[tuple[bool | None, dict[str, np.ndarray] | None]]:
        """Every row in order: whether it is sound (True), damaged (False) or not written (None), and its values.

        The values are those that were checked; None for a row that cannot be decoded.
        """
        return ((self._verdict(row, values), values) for row, values in enumerate(self._all_rows()))

    def _verdict(self, row: int, values: Mapping[str, np.ndarray] | None) -> bool | None:
        """True: sound; False: damaged; None: never written."""
        if values is None:
            return False
        if not values[DIGEST].any():
            return None
        fields = {name: values[name] for name in self.fields}
        return values[DIGEST].tobytes() == self._digest(row, fields)

    def _all_rows(self) -> Iterator[dict[str, np.ndarray] | None]:
        """Each row's values in order; None for a row one of whose chunks cannot be decoded."""
        step = self._rows_at_a_time(*self.arrays.values())
        for start in range(0, self.num_rows, step):
            rows = range(start, min(start + step, self.num_rows))
            block = slice(rows.start, rows.stop)
            try:
                columns = {name: self._values(name, block) for name in self.arrays}
            except Exception:  # a chunk is damaged: find out which; or the storage is away, which the first row says
                yield from map(self._row_or_none, rows)
            else:
                yield from ({name: column[place] for name, column in columns.items()} for place in range(len(rows)))

    def _values(self, name: str, rows: int | slice | np.ndarray) -> np.ndarray:
        """Rows of one array; read again if another process has put them into shards: their own files may be gone."""
        array = self.arrays[name]
        values = self._patiently(array.oindex.__getitem__, rows)
        if array.shards is None:
            grid = self.folder.read_json(f"{name}/zarr.json")["chunk_grid"]
            if tuple(grid["configuration"]["chunk_shape"]) != array.chunks:
                self.reopen(name)
                values = self._patiently(self.arrays[name].oindex.__getitem__, rows)
        return values

    def _rows_at_a_time(self, *arrays: Any) -> int:
        row = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays)
        return max(1, min(BLOCK, BLOCK_BYTES // max(1, row)))

    def _row_or_none(self, row: int) -> dict[str, np.ndarray] | None:
        try:
            return {name: self._values(name, row) for name in self.arrays}
        except OF_STORAGE:
            raise
        except Exception:
            return None

    def _digest(self, row: int, arrays: Mapping[str, np.ndarray]) -> bytes:
        digest = hashlib.sha256(self._identity_digest + row.to_bytes(8, "little"))
        for name in self.fields:
            digest.update(name.encode() + b"\0" + np.ascontiguousarray(arrays[name]).tobytes())
        return digest.digest()

    def _patiently(self, call: Callable[..., Any], *args: Any) -> Any:
        return patiently(str(self.folder), call, *args)


def remove_store(folder: Folder, name: str) -> None:
    """Remove the store of this name in a folder; a folder that is no store stays."""
    if folder.exists(f"{name}/zarr.json"):
        folder.remove_folder(name)


def _create(
    folder: Folder, fields: Mapping[str, Field], identity: Mapping[str, Any], about: Mapping[str, Any]
) -> "zarr.Group":
    """A new, empty store, in the place of one that is there.  Its attributes go last: without them it counts as not
    made.
    """
    import zarr

    folder.create()
    group = zarr.open_group(_zarr_location(folder), mode="w", zarr_format=3)
    for name, one in {**fields, DIGEST: Field("uint8", (DIGEST_BYTES,))}.items():
        group.create_array(
            name,
            shape=(0, *one.shape),
            chunks=(1, *one.shape),
            dtype=one.dtype,
            fill_value=0,
            chunk_key_encoding={"name": "default", "separator": "."},  # one folder an array, not one a row
            compressors=row_codecs(),
        )
    described = {name: {"dtype": one.dtype, "shape": list(one.shape)} for name, one in fields.items()}
    group.attrs.update({"format": FORMAT, "fields": described, "identity": dict(identity), "about": dict(about)})
    return group


def _zarr_location(folder: Folder) -> "StoreLike":
    return str(folder.local_path) if folder.local_path is not None else open_for_zarr(folder.location)


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
