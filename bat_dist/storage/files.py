"""Files of a result folder, on a local path or any fsspec URI.  A file appears whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import numpy as np
from filelock import FileLock, Timeout

from bat_dist.config import UserError


class FolderBusy(UserError):
    """Another driver writes to this result folder."""


class Folder:
    """A result folder: a local path, or a URI that fsspec knows (`s3://...`, `gs://...`, `memory://...`).

    Raises UserError if the URI's protocol is unknown or its package is not installed.
    """

    def __init__(self, location: str | Path):
        self.location = str(location)
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.location, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise UserError(f"cannot open {self.location}: {error}") from None

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.location.rstrip("/") + "/" + name)

    def __str__(self) -> str:
        return self.location

    @property
    def local_path(self) -> Path | None:
        """The folder as a local path, or None if it lies elsewhere."""
        protocols = self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        return Path(self.root) if "file" in protocols else None

    def create(self) -> None:
        """Make the folder and its parents.  Raises UserError if a file stands in the way or it is read-only."""
        try:
            self.fs.makedirs(self.root, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{self.location} is a file, and a result folder is wanted: name another") from None
        except PermissionError:
            raise UserError(f"no permission to create {self.location}: name another folder") from None

    def exists(self, name: str) -> bool:
        """Whether a file or folder of that name lies here."""
        return bool(self.fs.exists(f"{self.root}/{name}"))

    def names(self, pattern: str) -> list[str]:
        """Names of the files here that match a glob pattern, sorted."""
        return sorted(str(path).rsplit("/", 1)[-1] for path in self.fs.glob(f"{self.root}/{pattern}"))

    def read(self, name: str) -> bytes:
        """The bytes of a file.  Raises FileNotFoundError."""
        return self.fs.cat_file(f"{self.root}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file: beside its place first, then renamed (object stores put whole objects anyway)."""
        path = f"{self.root}/{name}"
        if self.local_path is None:
            self.fs.pipe_file(path, data)
            return
        with aside(Path(path)) as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        if self.exists(name):
            self.fs.rm_file(f"{self.root}/{name}")

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as JSON; NaN becomes null."""
        self.write(name, (json.dumps(_plain(value), indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The JSON value in a file.  Raises UserError if it is not JSON."""
        try:
            return json.loads(self.read(name))
        except ValueError:
            raise UserError(f"{self.location}/{name} is not valid JSON: it is damaged; remove it") from None

    def write_npz(self, name: str, **arrays: np.ndarray) -> None:
        """Write arrays as a compressed npz that loads without pickle."""
        buffer = BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        self.write(name, buffer.getvalue())

    def read_npz(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of an npz file, never unpickling.  Raises UserError if it is damaged."""
        try:
            with np.load(BytesIO(self.read(name)), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except FileNotFoundError:
            raise UserError(f"{self.location}/{name} does not exist") from None
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise UserError(f"{self.location}/{name} cannot be read as npz: {error}") from None

    @contextmanager
    def only_driver(self) -> Iterator[None]:
        """Hold the folder for this process alone; the lock ends with the process, however it ends.

        Only local folders are locked.  Raises FolderBusy if another process holds it.
        """
        path = self.local_path
        if path is None:
            yield
            return
        is_new = not path.exists()
        self.create()
        lock = FileLock(path / ".driver.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FolderBusy(f"another run is writing to {self.location}: wait for it, or use another --out") from None
        try:
            yield
        finally:
            if is_new and len(list(path.iterdir())) == 1:  # bad input leaves nothing behind
                Path(lock.lock_file).unlink()
                path.rmdir()
            lock.release()


def split_location(location: str) -> tuple[Folder, str]:
    """The folder that a file lies in, and its name there."""
    parent, slash, name = location.rpartition("/")
    return Folder(parent or slash or "."), name


@contextmanager
def aside(target: Path) -> Iterator[BinaryIO]:
    """A file beside `target` that takes its place, synced to disk, when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    """`value` with numpy scalars and arrays as Python's own, and NaN as None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
