"""A finished row store in few files: its rows in shards, in the place of a file for each row and array.

A store that is being filled has a file per row and array, so that no row is written over another. Once the rows are
there, these are thousands of small files, and file systems, object stores and copies of the folder are slow with them.
Zarr reads and writes both forms alike, and so do programs of versions that make the first alone.
"""

import logging

import numpy as np

from bat_dist.errors import RunError
from bat_dist.storage.rows import RowStore
from bat_dist.storage.shards import BLOCK, MAX_CHUNK, MAX_SHARD, ShardMaker, rows_within

log = logging.getLogger(__name__)


def compact_if_complete(store: RowStore) -> None:
    """Put the rows of a store into shards if they are `BLOCK` or more and none is damaged.

    Small rows are compressed together, which makes them fast to read; of large ones each is still damaged alone.
    Arrays change their form one after another: their shards are written beside the files of rows, then their one
    description is replaced, and then the files of rows are removed. So the store can be read at any moment, and what
    was cut off is completed by the next call. Storage that does not allow it, such as a full disk, is warned of.
    """
    row_bytes = {
        name: array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=int)) for name, array in store.arrays.items()
    }
    rows_per_chunk = rows_within(MAX_CHUNK, max(row_bytes.values()))
    sizes = {name: rows_within(MAX_SHARD, row_bytes[name]) for name in store.arrays}
    try:
        if any(array.shards is None and sizes[name] > 1 for name, array in store.arrays.items()):
            status = store.status()
            rows = np.flatnonzero(status.complete)
            if len(rows) < BLOCK or status.damaged:
                return
            for name in store.arrays:
                if store.arrays[name].shards is None and sizes[name] > 1:
                    write_shards(store, name, rows, sizes[name], rows_per_chunk)
        for name in store.arrays:
            if store.arrays[name].shards is not None:
                store.folder.remove_all([f"{name}/{file}" for file in store.folder.names(f"{name}/c.*")])
    except (OSError, RunError) as error:
        log.warning("%s keeps a file for each row, which can be read as well: %s", store.folder, error)


def write_shards(store: RowStore, name: str, rows: np.ndarray, rows_per_shard: int, rows_per_chunk: int) -> None:
    """Write these rows of an array as shards, and then its description; the store reads them from there."""
    array = store.arrays[name]
    maker = ShardMaker(array, rows_per_shard=rows_per_shard, rows_per_chunk=rows_per_chunk)
    for start in range(0, array.shape[0], rows_per_shard):
        values = np.zeros((min(rows_per_shard, array.shape[0] - start), *array.shape[1:]), array.dtype)
        block = rows[(rows >= start) & (rows < start + rows_per_shard)]
        values[block - start] = store.read(name, block)
        for file, content in maker.made_of(start, values).items():
            store.folder.write(f"{name}/{file}", content)
    store.folder.write(f"{name}/zarr.json", maker.description)
    store.reopen(name)
