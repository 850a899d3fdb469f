"""Rows in this process's memory, where nothing is to be kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bat_dist.storage.rows import Field, RowStatus


class MemoryRows:
    """What a caller of `RowStore` that writes each row once asks of it, without a folder, zarr or digests."""

    def __init__(self, fields: Mapping[str, Field], num_rows: int):
        self.fields = dict(fields)
        self.num_rows = num_rows
        self._rows: dict[int, dict[str, np.ndarray]] = {}

    def write(self, row: int, values: Mapping[str, Any]) -> None:
        """Keep one whole row."""
        self._rows[row] = {name: np.asarray(values[name]) for name in self.fields}

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers of one array: [len(rows), *shape]."""
        return np.array([self._rows[int(row)][name] for row in rows])

    def status(self) -> RowStatus:
        """Which rows were written; none is ever damaged."""
        return RowStatus(np.array([row in self._rows for row in range(self.num_rows)], bool), ())
