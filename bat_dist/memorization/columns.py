"""The matrices of a store of trials [trials, samples], for problems where they do not fit into memory.

A store holds a row for each trial; estimates want the columns of a few samples over all trials. `TrialColumns` turns
rows into columns in one pass: into a scratch file without a name, which the system removes with the process, however
that ends. Bool values take a bit each. The samples are in the file in an order that the caller gives, such as that of
their classes, so that the samples of one class are read together.

The functions below take either a whole array or `TrialColumns`.
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from jaxtyping import Int, Shaped

Index = Int[np.ndarray, " samples"]
Columns = Shaped[np.ndarray, "trials columns"]
Read = Callable[[int, int], Shaped[np.ndarray, "rows samples"]]

BLOCK_VALUES = 2**22  # of a matrix at a time, where a whole array is worked through
_TILE = 2**14  # samples that are turned at a time
_GAP = 16  # samples between two that are wanted, which are read along and dropped


class TrialColumns:
    """A matrix [trials, samples] in a scratch file; `matrix[:, samples]` reads columns as an array.

    Its memory is that of three whole numbers for each sample.  Trials are in the file in groups, one after another:
    for each group the samples in `order`, for each sample the group's trials, bool as bits.  That way a pass needs no
    more memory than the rows of one group, and writes from the beginning to the end.

    Attributes:
        dtype: of the values.
        shape: (trials, samples).
        order: the samples in the order in which they are in the file.
        count: for each sample, in how many trials the value is not 0.
    """

    ndim = 2

    def __init__(
        self,
        read: Read,
        shape: tuple[int, int],
        dtype: np.dtype,
        *,
        order: Index | None = None,
        group_bytes: int = 2**26,
        folder: str | None = None,
    ):
        """Turn the rows that `read(start, stop)` gives, trials of these numbers, into columns.

        group_bytes: memory for it, or what eight trials need if that is more.
        folder: where the scratch file is made; None is the system's place for temporary files (TMPDIR).
        """
        num_trials, num_samples = self.shape = shape
        self.dtype = np.dtype(dtype)
        self.order = np.arange(num_samples) if order is None else np.asarray(order)
        self._place = np.empty(num_samples, np.int64)
        self._place[self.order] = np.arange(num_samples)
        self.count = np.zeros(num_samples, np.int64)
        # Of a group there are its rows, once more while the store puts them together, and a tile that is turned.
        fit = group_bytes // (2 * num_samples * self.dtype.itemsize + 1)
        self._group = min(max(8, fit // 8 * 8), max(1, num_trials))
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - as long as the columns
        weakref.finalize(self, self._file.close)
        for start in range(0, num_trials, self._group):
            rows = read(start, min(start + self._group, num_trials))
            self.count += np.count_nonzero(rows, axis=0)
            for first in range(0, num_samples, _TILE):
                self._write(np.ascontiguousarray(rows[:, self.order[first : first + _TILE]].T))
            del rows  # or it would stay while the next ones are read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: tuple[slice, Index | slice]) -> Columns:
        """The columns of these samples over all trials: [trials, len(samples)]; `key` is (slice(None), samples)."""
        trials, samples = key
        if trials != slice(None):
            raise IndexError(f"columns are read over all trials, as in matrix[:, samples]; got {trials}")
        place = self._place[samples]
        ascending = np.argsort(place, kind="stable")
        packed = self._packed(place[ascending])
        back = np.empty(len(place), np.int64)
        back[ascending] = np.arange(len(place))
        if self.dtype == bool:
            return np.unpackbits(packed[back], axis=1, count=len(self)).view(bool).T
        return packed.view(self.dtype)[back].T

    def _write(self, turned: Shaped[np.ndarray, "samples trials"]) -> None:
        data = (np.packbits(turned, axis=1) if self.dtype == bool else turned).data.cast("B")
        while data:  # a file without a buffer may take less than it is given
            data = data[self._file.write(data) :]

    def _bytes_of(self, num_trials: int) -> int:
        """What one sample takes in a group of so many trials."""
        return -(-num_trials // 8) if self.dtype == bool else num_trials * self.dtype.itemsize

    def _packed(self, place: Index) -> Shaped[np.ndarray, "columns bytes"]:
        """The samples at these ascending places of the file, as they are there."""
        found = np.empty((len(place), self._bytes_of(len(self))), np.uint8)
        starts = np.flatnonzero(np.diff(place, prepend=place[:1] - _GAP - 1) > _GAP)
        runs = list(zip(starts, [*starts, len(place)][1:], strict=True))
        for start in range(0, len(self), self._group):
            width = self._bytes_of(min(self._group, len(self) - start))
            begin = self._bytes_of(start)
            for first, stop in runs:
                low, high = int(place[first]), int(place[stop - 1]) + 1
                data = os.pread(self._file.fileno(), (high - low) * width, self.shape[1] * begin + low * width)
                read = np.frombuffer(data, np.uint8).reshape(high - low, width)
                found[first:stop, begin : begin + width] = read[place[first:stop] - low]
        return found


Matrix = Shaped[np.ndarray, "trials samples"] | TrialColumns


def order_of(matrix: Matrix) -> Index:
    """All samples, in the order in which they are best read."""
    return matrix.order if isinstance(matrix, TrialColumns) else np.arange(matrix.shape[1])


def tiles_of(matrix: Matrix, block_values: int = BLOCK_VALUES) -> Iterator[Index | slice]:
    """All samples once, so many at a time that their columns have at most `block_values` values."""
    step = max(1, block_values // max(1, len(matrix)))
    for start in range(0, matrix.shape[1], step):
        tile = slice(start, start + step)
        yield matrix.order[tile] if isinstance(matrix, TrialColumns) else tile


def count_by_sample(matrix: Matrix) -> Index:
    """In how many trials the value of each sample is not 0."""
    return matrix.count if isinstance(matrix, TrialColumns) else np.count_nonzero(matrix, axis=0)


def correct_by_trial(mask: Matrix, correct: Matrix) -> tuple[Int[np.ndarray, " trials"], Int[np.ndarray, " trials"]]:
    """For each trial the number of samples inside `mask` that are correct, and of those outside it."""
    inside, outside = np.zeros((2, len(mask)), np.int64)
    for tile in tiles_of(mask):
        kept, right = mask[:, tile], correct[:, tile]
        both = np.count_nonzero(kept & right, axis=1)
        inside += both
        outside += np.count_nonzero(right, axis=1) - both
    return inside, outside


def count_by_trial(matrix: Matrix) -> Int[np.ndarray, " trials"]:
    """The number of samples in each trial whose value is not 0."""
    counts = np.zeros(len(matrix), np.int64)
    for tile in tiles_of(matrix):
        counts += np.count_nonzero(matrix[:, tile], axis=1)
    return counts
