"""The pixels of a split as one flat file, written shard by shard by whoever needs it, and checked when it is opened.

Several processes that need the same file, also on several machines with one cache folder, divide its shards among them.
What is finished when a process is killed is kept. Beside the file are its manifest, written last but for the file's
name, and `.hashes.npy`, by which equal images are found without another pass over the pixels.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import UInt8

from bat_dist.data.cache import NO_ROOM, write_text
from bat_dist.data.image_hashes import image_hashes, keep_hashes
from bat_dist.data.table import DatasetError
from bat_dist.wording import of_bytes

LAYOUT = 1  # raise it whenever the bytes written change, or how shards are cut
SHARD_BYTES = 2**28
CHUNK_BYTES = 2**22  # pixels that are in memory at a time
# Of a file or folder that another process, or another machine, removes; the last as `mkdir` says it of a folder that is
# removed while it looks whether it is one.
_GONE = (errno.ENOENT, errno.ESTALE, errno.EEXIST)

Shape = tuple[int, int, int, int]
Read = Callable[[int, int], UInt8[np.ndarray, "images height width 3"]]


def write_pixels(path: Path, shape: Shape, read: Read, *, by_content: bool = False) -> str:
    """Write the file unless it is there whole; the digest of its shape and pixels.

    shape: samples, height, width, 3. read: the images from a position to another. by_content: this path does not say
    what the pixels are, so that all are read, and the file is found at `named_by` then: other data of the same name
    do not replace it.
    Raises DatasetError if the disk has no room, and whatever `read` raises, after which nothing is left behind.
    """
    if not by_content and (digest := digest_of(path)):
        return digest
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = _Writing(path, shape, read)
    try:
        return writing.alone() if by_content else writing.shared()
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _no_room(path, math.prod(shape)) from error


def digest_of(path: Path) -> str | None:
    """The digest of the file's shape and pixels; None unless it is there whole.

    A file that has not changed since it was written, by its size and time, is not read for this.
    """
    manifest = _read_manifest(path)
    if manifest is None:
        return None
    try:
        status = path.stat()
        if status.st_size != math.prod(manifest["shape"]):
            return None
        if status.st_mtime_ns != manifest["mtime_ns"]:  # copied, touched or damaged
            if list(_digests(path, manifest["shape"])) != manifest["shards"]:
                return None
            with suppress(OSError):  # a cache that is only to be read
                write_text(_manifest(path), json.dumps({**manifest, "mtime_ns": status.st_mtime_ns}))
    except FileNotFoundError:
        return None
    return _digest(manifest)


def named_by(path: Path, digest: str) -> Path:
    """The file of these pixels beside this path, as `write_pixels` names it by its content."""
    return path.with_stem(digest[:32])


def shape_of(path: Path) -> Shape | None:
    """The shape of the images in a file that was written; None if there is no manifest."""
    manifest = _read_manifest(path)
    return tuple(manifest["shape"]) if manifest else None


def _no_room(path: Path, num_bytes: int) -> DatasetError:
    return DatasetError(
        f"no room for the decoded images: {num_bytes:,} bytes ({of_bytes(num_bytes)}) needed in {path.parent}, "
        f"{of_bytes(shutil.disk_usage(path.parent).free)} free: make room there, name another folder in "
        "$BAT_DIST_CACHE, or decode fewer or smaller images (num_train, image_size). What is decoded is kept, and the "
        "same command goes on"
    )


@dataclass(frozen=True)
class _Writing:
    """One file that is being written: `.partial`, and in `.shards/` a record of each shard that is on the disk."""

    path: Path
    shape: Shape
    read: Read

    @property
    def partial(self) -> Path:
        return self.path.with_suffix(".partial")

    @property
    def folder(self) -> Path:
        return self.path.with_suffix(".shards")

    def record(self, shard: int) -> Path:
        return self.folder / f"{shard:05}.sha256"

    def alone(self) -> str:
        """Write all shards, while no other process does, and name the file by its content."""
        with FileLock(f"{self.path}.writer.lock"):
            self.remove()
            with self._opened() as file:
                try:
                    for shard in range(self.num_shards):
                        self._write(shard, file)
                except DatasetError:
                    self.remove()
                    raise
            path = named_by(self.path, _digest(self._manifest_of_records))
            with FileLock(f"{path}.lock"):
                return self._finished(path)

    def shared(self) -> str:
        """Write the shards that nobody else is writing, wait for the others, and give the file its name.

        Where another process could not read an image, and has removed what all of them had written, this one begins
        again: its shards are in a file that has no name any more.
        """
        while True:
            with self.lock:
                if digest := digest_of(self.path):
                    shutil.rmtree(self.folder, ignore_errors=True)  # a lock that was made while another one finished
                    return digest
                file = self._opened()
            with file:
                try:
                    self._write_with_others(file)
                    with self.lock:
                        if self.is_partial(file):
                            return self._finished(self.path)
                except DatasetError:
                    with self.lock:
                        if self.is_partial(file):
                            self.remove()  # when the image is mended, the file will have another name
                    raise
                except OSError as error:
                    if error.errno not in _GONE or self.is_partial(file):
                        raise

    @property
    def lock(self) -> FileLock:
        """Held while `.partial` is made, removed or named, and while a record is written, by one process at a time."""
        return FileLock(f"{self.path}.lock")

    def is_partial(self, file: BinaryIO) -> bool:
        """Whether the opened file is `.partial`, and not one that another process has removed or given its name."""
        try:
            with self.partial.open("rb") as found:  # a file system of several machines may answer `stat` from memory
                return os.path.sameopenfile(found.fileno(), file.fileno())
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False

    def remove(self) -> None:
        """Remove what is not finished."""
        self.partial.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def num_shards(self) -> int:
        return len(_shards(self.shape))

    def _opened(self) -> BinaryIO:
        if not self.partial.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        file = os.fdopen(os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        size = math.prod(self.shape)
        if size - os.fstat(file.fileno()).st_blocks * 512 > shutil.disk_usage(self.folder).free:
            file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.partial))
        file.truncate(size)
        return file

    def _write_with_others(self, file: BinaryIO) -> None:
        """Write the shards that have no record yet and that no other process writes.

        Raises FileNotFoundError if the file is removed or finished by others.
        """
        for wait in (False, True):  # a shard that another process did not finish is written in the second round
            for shard in range(self.num_shards):
                if self.record(shard).exists():
                    continue
                with (
                    suppress(Timeout),
                    FileLock(self.record(shard).with_suffix(".lock")).acquire(timeout=-1 if wait else 0),
                ):
                    if not self.record(shard).exists():
                        self._check_is_partial(file)
                        self._write(shard, file)

    def _check_is_partial(self, file: BinaryIO) -> None:
        if not self.is_partial(file):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.partial))

    def _write(self, shard: int, file: BinaryIO) -> None:
        """Put the shard's pixels into the file, to the disk, and then its record beside it.

        Raises FileNotFoundError if the file has been removed: a record would vouch for pixels of another file.
        """
        part, image_bytes, digest, hashes = _shards(self.shape)[shard], math.prod(self.shape[1:]), hashlib.sha256(), []
        step = max(1, CHUNK_BYTES // image_bytes)
        file.seek(part.start * image_bytes)

        def append(start: int) -> None:  # a function, so that no chunk is held while the next is decoded
            images = np.ascontiguousarray(self.read(start, min(start + step, part.stop)))
            file.write(images.reshape(-1).data)
            digest.update(images.reshape(-1).data)
            hashes.append(image_hashes(images))

        for start in range(part.start, part.stop, step):
            append(start)
        file.flush()
        os.fsync(file.fileno())
        with self.lock:
            self._check_is_partial(file)
            np.save(self.record(shard).with_suffix(".npy"), np.concatenate(hashes))
            write_text(self.record(shard), digest.hexdigest())

    @property
    def _manifest_of_records(self) -> dict[str, Any]:
        """The file's manifest but for its time, when all shards have a record."""
        shards = [self.record(shard).read_text() for shard in range(self.num_shards)]
        return {"layout": LAYOUT, "shape": list(self.shape), "shards": shards}

    def _finished(self, path: Path) -> str:
        """Give the file this name, with its manifest beside it; the digest."""
        manifest = self._manifest_of_records
        if digest_of(path) != _digest(manifest):
            hashes = [np.load(self.record(shard).with_suffix(".npy")) for shard in range(self.num_shards)]
            keep_hashes(path, np.concatenate(hashes))
            write_text(_manifest(path), json.dumps({**manifest, "mtime_ns": self.partial.stat().st_mtime_ns}))
            self.partial.replace(path)
        self.remove()
        return _digest(manifest)


def _shards(shape: Shape) -> list[range]:
    """The positions of each shard's images."""
    each = max(1, SHARD_BYTES // math.prod(shape[1:]))
    return [range(start, min(start + each, shape[0])) for start in range(0, shape[0], each)]


def _digests(path: Path, shape: Shape) -> Iterator[str]:
    """The SHA-256 of each shard of a file."""
    image_bytes = math.prod(shape[1:])
    with path.open("rb") as file:
        for part in _shards(shape):
            digest, left = hashlib.sha256(), len(part) * image_bytes
            while left and (block := file.read(min(left, CHUNK_BYTES))):
                digest.update(block)
                left -= len(block)
            yield digest.hexdigest()


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([manifest[name] for name in ("layout", "shape", "shards")]).encode()).hexdigest()


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, if it is one of this layout."""
    try:
        manifest = json.loads(_manifest(path).read_text())
    except (FileNotFoundError, ValueError):
        return None
    known = isinstance(manifest, dict) and {"layout", "shape", "shards", "mtime_ns"} <= manifest.keys()
    return manifest if known and manifest["layout"] == LAYOUT else None
