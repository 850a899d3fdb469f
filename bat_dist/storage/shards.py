"""Files that hold many rows of an array: Zarr's shards, made whole in memory and then written as any other file."""

from typing import Any

import numpy as np

from bat_dist.errors import RunError, UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.patience import patiently

BLOCK = 100  # rows read at a time: what a lost link, or a damaged row, makes to be read again; and rows of a shard
SIZES = (100, 50, 25, 20, 10, 5, 4, 2, 1)  # numbers of rows that divide BLOCK
MAX_SHARD, MAX_CHUNK = 64 << 20, 64 << 10  # bytes before compression
# Errors that say nothing of a row: the storage could not be asked, or refused.
OF_STORAGE = (OSError, RunError, UserError)


def row_codecs() -> list[Any]:
    """How the bytes of rows are compressed, and told from damaged ones."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    return [BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"), Crc32cCodec()]


def rows_within(limit: int, row_bytes: int) -> int:
    """The largest of SIZES so many rows of which have at most `limit` bytes; 1 for rows that are larger."""
    return next((size for size in SIZES if size * row_bytes <= limit), 1)


class ShardMaker:
    """Makes the shards of an array, and its description, in memory.

    rows_per_chunk: rows that are compressed, and can be damaged, together; a divisor of rows_per_shard.
    """

    def __init__(self, array: Any, *, rows_per_shard: int, rows_per_chunk: int) -> None:
        import zarr
        from zarr.storage import MemoryStore

        self._made: dict[str, Any] = {}
        self._new = zarr.create_array(
            MemoryStore(self._made),
            shape=array.shape,
            chunks=(rows_per_chunk, *array.shape[1:]),
            shards=(rows_per_shard, *array.shape[1:]),
            dtype=array.dtype,
            fill_value=0,
            # Files are called 0.0, 1.0, ..., unlike the c.0.0, c.1.0, ... of single rows.
            chunk_key_encoding={"name": "v2", "separator": "."},
            compressors=row_codecs(),
        )
        self.description = self._made.pop("zarr.json").to_bytes()

    def made_of(self, start: int, values: np.ndarray) -> dict[str, bytes]:
        """The file, by its name, of the shard whose rows from `start` on are these; none if all values are 0."""
        self._new[start : start + len(values)] = values
        return {name: self._made.pop(name).to_bytes() for name in list(self._made)}


def mend_shard(folder: Folder, name: str, array: Any, row: int) -> None:
    """Write the shard that holds a row again, from those of its rows that can be decoded; the others become 0.

    folder: of the store; name: of the array in it.  A row whose digest is 0 counts as not written.
    """
    rows_per_shard = array.shards[0]
    start = row // rows_per_shard * rows_per_shard
    values = np.zeros((min(rows_per_shard, array.shape[0] - start), *array.shape[1:]), array.dtype)
    for place in range(len(values)):
        try:
            values[place] = patiently(str(folder), array.__getitem__, start + place)
        except OF_STORAGE:
            raise
        except Exception:  # this one is damaged
            continue
    maker = ShardMaker(array, rows_per_shard=rows_per_shard, rows_per_chunk=array.chunks[0])
    key = array.metadata.encode_chunk_key((start // rows_per_shard, *(0 for _ in array.shape[1:])))
    made = maker.made_of(start, values)
    if key in made:
        folder.write(f"{name}/{key}", made[key])
    else:
        folder.remove(f"{name}/{key}")
