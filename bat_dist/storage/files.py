"""Files of a result folder, on a local path or any fsspec URI.  A file appears whole or not at all."""

import fnmatch
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from bat_dist.errors import UserError
from bat_dist.storage.location import OBJECT_STORES, open_location
from bat_dist.storage.patience import answer_of, patiently
from bat_dist.storage.provenance import without_passwords

T = TypeVar("T")

_PUTS_WHOLE = OBJECT_STORES | {"memory"}

# numpy reads the header of an array with the module ast, which in CPython 3.11 fails at times where threads use it at
# once (python/cpython#106905): a good file would count as damaged.
_ONE_HEADER_AT_A_TIME = threading.Lock()


class Folder:
    """A result folder: a local path, or a URI that fsspec knows (`s3://...`, `gs://...`, `memory://...`).

    As text it shows no password. Its methods wait for storage that cannot be reached for a while, and raise UserError
    if access is refused (see `patience`). Raises UserError if the name is empty, or if the protocol is unknown or its
    package is not installed.
    """

    def __init__(self, location: str | Path):
        if not str(location).strip():  # below it, "x" would be "/x"
            raise UserError("a folder must have a name, got an empty one: is a variable unset?")
        self.location = str(location)
        self.fs, self.root = open_location(self.location)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.location.rstrip("/") + "/" + name)

    def __str__(self) -> str:
        return without_passwords(self.location)

    @property
    def local_path(self) -> Path | None:
        """The folder as a local path, or None if it lies elsewhere."""
        return Path(self.root) if "file" in self._protocols else None

    @property
    def absolute_location(self) -> str:
        """The location as processes elsewhere may name it: a local path from the root on, a URI as it is."""
        return self.location.rstrip("/") if self.local_path is None else str(self.local_path.absolute())

    @property
    def _protocols(self) -> tuple[str, ...]:
        return self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)

    def create(self) -> None:
        """Make the folder and its parents; never a bucket.  Raises UserError if a file stands in the way."""
        if OBJECT_STORES.intersection(self._protocols):
            return
        try:
            patiently(str(self), self.fs.makedirs, self.root, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{self} is a file, and a result folder is wanted: name another") from None

    def exists(self, name: str) -> bool:
        """Whether a file or folder of that name lies here.  Not knowing is no answer: it waits, or raises."""
        try:
            self._patiently(self.fs.info, name)  # `fs.exists` says no where it could not look
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, pattern: str) -> list[str]:
        """Names of the files here that match a glob pattern in its last part, sorted."""
        inside, _, last = pattern.rpartition("/")
        try:
            paths = self._patiently(self.fs.ls, inside, detail=False)  # `fs.glob` leaves out what it could not list
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(fnmatch.filter((str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths), last))

    def entries(self) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files here, each sorted; none if the folder does not exist."""
        try:
            found = self._patiently(self.fs.ls, "", detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        names: dict[bool, list[str]] = {True: [], False: []}
        for entry in found:
            names[entry["type"] == "directory"].append(str(entry["name"]).rstrip("/").rsplit("/", 1)[-1])
        return sorted(names[True]), sorted(names[False])

    def read(self, name: str) -> bytes:
        """The bytes of a file.  Raises FileNotFoundError."""
        return self._patiently(self.fs.cat_file, name)

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file: beside its place first, then renamed (object stores put whole objects anyway)."""
        if self.local_path is not None:
            self._patiently(_write_local, name, data)
        elif _PUTS_WHOLE.intersection(self._protocols):
            self._patiently(self.fs.pipe_file, name, data)
        else:
            self._patiently(self._write_and_rename, name, data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; False, and nothing has happened, if there is.

        Of several who call at once one gets True on local disks and S3; who must know elsewhere reads it again.
        False may also mean that it is ours: the answer to a first try was lost.
        """
        try:
            if self.local_path is None:
                self._patiently(self.fs.pipe_file, name, data, mode="create")
            else:
                self._patiently(_write_local, name, data, only_new=True)
        except FileExistsError:
            return False
        except OSError as error:
            if (status := answer_of(error).status) == 412:  # S3 in words that s3fs does not know
                return False
            if status != 501 or self.exists(name):  # 501: no conditional writes there
                raise
            self.write(name, data)
        return True

    def _write_and_rename(self, path: str, data: bytes) -> None:
        """As sftp, smb and hdfs want it."""
        folder, _, name = path.rpartition("/")
        partial = f"{folder}/.{name}.partial"
        self.fs.pipe_file(partial, data)
        try:
            self.fs.mv(partial, path)
        except FileExistsError:  # smb renames nothing over a file
            self.fs.rm_file(path)
            self.fs.mv(partial, path)

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        if self.exists(name):
            with suppress(FileNotFoundError):
                self._patiently(self.fs.rm_file, name)

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove these files, which are there, with as few requests as the storage allows."""
        if self.local_path is not None:
            for name in names:
                self.remove(name)
        elif names:
            with suppress(FileNotFoundError):
                patiently(str(self), self.fs.rm, [f"{self.root}/{name}" for name in names])

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all in it; nothing happens if it is not there."""
        if self.exists(name):
            with suppress(FileNotFoundError):
                self._patiently(self.fs.rm, name, recursive=True)

    def remove_files(self, patterns: Iterable[str]) -> None:
        """Remove the files that match, as for `names`, and folders that this leaves empty; nothing else."""
        for pattern in patterns:
            inside = pattern.rpartition("/")[0]
            for name in self.names(pattern):
                self.remove(f"{inside}/{name}".lstrip("/"))
            if inside:
                self.remove_if_empty(inside)

    def remove_if_empty(self, name: str) -> None:
        """Remove a folder if there is nothing in it."""
        if not any((self / name).entries()):
            self.remove_folder(name)

    def _patiently(self, call: Callable[..., T], name: str, *args: Any, **kwargs: Any) -> T:
        return patiently(f"{self}/{name}".rstrip("/"), call, f"{self.root}/{name}".rstrip("/"), *args, **kwargs)

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as JSON; NaN becomes null."""
        self.write(name, (json.dumps(_plain(value), indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The JSON value in a file.  Raises UserError if it is not JSON."""
        data = self.read(name)
        try:
            return json.loads(data)
        except ValueError:
            raise UserError(f"{self}/{name} is not valid JSON: it is damaged; remove it") from None

    def write_npz(self, name: str, **arrays: np.ndarray) -> None:
        """Write arrays as a compressed npz that loads without pickle."""
        buffer = BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        self.write(name, buffer.getvalue())

    def read_npz(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of an npz file, never unpickling.  Raises UserError if it is missing or damaged."""
        try:
            data = self.read(name)
        except FileNotFoundError:
            raise UserError(f"{self}/{name} does not exist") from None
        except (IsADirectoryError, NotADirectoryError) as error:
            raise UserError(f"{self}/{name} cannot be read as npz: {error.strerror}") from None
        try:
            with _ONE_HEADER_AT_A_TIME, np.load(BytesIO(data), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise UserError(f"{self}/{name} cannot be read as npz: {error}") from None


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


def _write_local(path: str, data: bytes, *, only_new: bool = False) -> None:
    with Path(path).open("xb") if only_new else aside(Path(path)) as file:
        file.write(data)


def _plain(value: Any) -> Any:
    """Give `value` back with numpy scalars and arrays as Python's own, and NaN as None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
