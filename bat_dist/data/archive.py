"""A folder or a zip, listed and read alike. Nothing is ever unpacked.

Names are relative, separated by "/". Hidden files and what desktops leave behind (`.DS_Store`, `__MACOSX`,
`Thumbs.db`, `@eaDir`) are not listed. Whatever is wrong with the files is a `DatasetError`.
"""

import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

from bat_dist.data.table import DatasetError

MAX_FILE_BYTES = 64 * 2**20  # of one file, unpacked: far above any image of these datasets, far below memory
MAX_DEPTH = 32  # of folders in a zip
_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}
_READ_ERRORS = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class Children(NamedTuple):
    """What lies directly in a folder: sorted names, without the path."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


class Archive(Protocol):
    """A tree of files. `read` may be called from several threads."""

    @property
    def location(self) -> Path:
        """The folder or the zip."""
        ...

    def children(self, folder: str) -> Children:
        """List a folder ("" is the top); empty where there is no such folder."""
        ...

    def read(self, name: str) -> bytes:
        """Return one file's bytes."""
        ...

    def version(self, name: str) -> str:
        """Return what changes when a file does, without reading it."""
        ...


@dataclass(frozen=True)
class FolderArchive:
    """A folder on disk. Links are followed: it is the user's own folder."""

    location: Path

    def children(self, folder: str) -> Children:
        """List a folder ("" is the top); empty where there is no such folder."""
        path = self.location / folder
        try:
            found = [entry for entry in path.iterdir() if not _is_junk(entry.name)] if path.is_dir() else []
            for entry in found:
                if entry.is_symlink() and not entry.exists():
                    raise DatasetError(
                        f"{entry} is a link to {entry.readlink()}, which does not exist: mend or remove it"
                    )
            folders = sorted(entry.name for entry in found if entry.is_dir())
            return Children(tuple(folders), tuple(sorted(e.name for e in found if e.is_file())))
        except OSError as error:
            raise DatasetError(f"{path} cannot be listed: {error}") from error

    def read(self, name: str) -> bytes:
        """Return one file's bytes."""
        path = self.location / name
        try:
            _check_size(path.stat().st_size, f"{path}")
            return path.read_bytes()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error

    def version(self, name: str) -> str:
        """Return the folder, and the file's size and time."""
        path = self.location / name
        try:
            status = path.stat()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
        return f"{self.location.absolute()} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True)
class ZipArchive:
    """An open zip whose entries were all checked."""

    location: Path
    handle: zipfile.ZipFile
    entries: dict[str, zipfile.ZipInfo]
    tree: dict[str, Children]
    lock: Lock = field(default_factory=Lock)  # ZipFile promises nothing to threads

    def children(self, folder: str) -> Children:
        """List a folder ("" is the top); empty where there is no such folder."""
        return self.tree.get(folder, Children((), ()))

    def read(self, name: str) -> bytes:
        """Return one file's bytes; the zip's checksum is verified."""
        where = f"{name} in {self.location}"
        if name not in self.entries:
            raise DatasetError(f"{where} does not exist")
        _check_size(self.entries[name].file_size, where)
        try:
            with self.lock:
                return self.handle.read(self.entries[name])
        except _READ_ERRORS as error:  # NotImplementedError, of unknown compressions, is a RuntimeError
            raise DatasetError(f"{where} cannot be read ({error}): fetch or pack the zip again") from error

    def version(self, name: str) -> str:
        """Return the file's checksum and size, as the zip's directory has them."""
        entry = self.entries[name]
        return f"{entry.CRC:08x} {entry.file_size}"


@contextmanager
def open_archive(location: Path) -> Iterator[Archive]:
    """Open a folder or a zip; a `DatasetError` for anything else and for a zip with an entry we refuse."""
    if location.is_dir():
        yield FolderArchive(location)
        return
    try:
        handle = zipfile.ZipFile(location)
    except _READ_ERRORS as error:
        raise DatasetError(
            f"{location} is neither a folder nor a whole zip ({error}): fetch or pack it again"
        ) from error
    with handle:
        entries = _checked_entries(handle, location)
        folders = {_path(info.filename) for info in handle.infolist() if info.is_dir()}
        yield ZipArchive(location, handle, entries, _tree(entries, folders, location))


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _check_size(size: int, where: str) -> None:
    if size > MAX_FILE_BYTES:
        raise DatasetError(f"{where} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")


def _path(filename: str) -> str:
    """Take out the "./" and "//" that some packers write."""
    return "/".join(part for part in filename.split("/") if part not in ("", "."))


def _checked_entries(handle: zipfile.ZipFile, location: Path) -> dict[str, zipfile.ZipInfo]:
    """All files of the zip by name.  Raises DatasetError for what no honest packer writes."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in handle.infolist():
        name, path, fault = info.filename, _path(info.filename), ""
        if name.startswith("/") or "\\" in name or ".." in name.split("/") or re.match("[A-Za-z]:", name):
            fault = "is not a relative path inside the zip"
        elif stat.S_ISLNK(info.external_attr >> 16):
            fault = "is a symbolic link"
        elif name.count("/") > MAX_DEPTH:
            fault = f"lies deeper than {MAX_DEPTH} folders"
        elif info.flag_bits & 1:
            fault = "is encrypted"
        elif path in entries:
            fault = "occurs twice"
        if fault:
            raise DatasetError(f"{location}: entry {name!r} {fault}: pack a zip without such entries")
        if not info.is_dir():
            entries[path] = info
    return entries


def _tree(entries: dict[str, zipfile.ZipInfo], folders: set[str], location: Path) -> dict[str, Children]:
    """What lies in each folder, junk left out."""
    tree: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
    for folder in folders | {_parent(name) for name in entries}:
        while folder not in tree:
            if folder in entries:
                raise DatasetError(f"{location}: {folder!r} is both a file and a folder: pack the zip again")
            tree[folder] = (set(), set())
            folder = _parent(folder)
    for folder in tree.keys() - {""}:
        tree[_parent(folder)][0].add(folder.rpartition("/")[2])
    for name in entries:
        tree[_parent(name)][1].add(name.rpartition("/")[2])
    return {
        folder: Children(*(tuple(sorted(name for name in names if not _is_junk(name))) for names in inside))
        for folder, inside in tree.items()
    }


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
