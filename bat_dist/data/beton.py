"""A split as FFCV's file, a beton: written once per machine, checked whenever it is opened.

We write the file ourselves, from FFCV's own types and byte for byte as its `DatasetWriter` would, because
that one forks processes (out of Ray workers with CUDA and threads), waits forever for one that dies, and does
not look whether the disk took all bytes.
"""

import functools
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int64, UInt8

from bat_dist.data.cache import NO_ROOM, default_cache_dir, told_if_not_writable
from bat_dist.data.split_loader import LoaderUnavailable, check_split
from bat_dist.errors import installing

LAYOUT = 1  # raise it whenever the bytes written change
MIN_PAGE = 1 << 21  # FFCV's smallest
_CACHE = {"of": "the FFCV cache", "instead": "--loader memory"}  # in messages

log = logging.getLogger(__name__)


def ensure_beton(
    images: UInt8[np.ndarray, "samples height width 3"],
    labels: Int64[np.ndarray, " samples"],
    *,
    fingerprint: str,
    split_name: str,
    cache_dir: str | Path | None = None,
) -> Path:
    """Path of the split's beton in `cache_dir`, written if it is not there whole.

    Fields are index, label, image, in the split's order. `fingerprint` and `split_name` name the content.
    Processes that ask at the same time write it once. Beside it lies a manifest, written last. A disk without
    room is an OSError that names the folder and the bytes needed, and leaves nothing behind; a folder that cannot be
    written to is a UserError.
    """
    check_split(images, labels)
    path, content = _place(images, fingerprint, split_name, cache_dir)
    with told_if_not_writable(path.parent, **_CACHE):
        if not _is_whole(path, content):
            import_ffcv()
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not _is_whole(path, content):
                    log.info("writing %s", path)
                    _write_whole(path, content, images, labels)
    return path


def check_cache(
    images: UInt8[np.ndarray, "samples height width 3"],
    *,
    fingerprint: str,
    split_name: str,
    cache_dir: str | Path | None = None,
) -> None:
    """Raise the UserError of `ensure_beton` beforehand, if the split is not there and its folder not to be written."""
    path, content = _place(images, fingerprint, split_name, cache_dir)
    with told_if_not_writable(path.parent, **_CACHE):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=path.parent):
                pass
        except OSError:
            if not _is_whole(path, content):  # which reads all of it: only where it matters
                raise


def _place(
    images: UInt8[np.ndarray, "samples height width 3"],
    fingerprint: str,
    split_name: str,
    cache_dir: str | Path | None,
) -> tuple[Path, dict[str, Any]]:
    """Where the beton is, and what its manifest says."""
    folder = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    content = {"fingerprint": fingerprint, "split": split_name, "shape": list(images.shape), "layout": LAYOUT}
    return folder / f"{fingerprint}-{split_name}-v{LAYOUT}.beton", content


@functools.cache
def import_ffcv() -> ModuleType:
    """Import FFCV, without its side effects; raises `LoaderUnavailable` with the way out."""
    try:
        with torch_threads_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it imports distutils
            import ffcv
    except (ImportError, OSError) as error:
        raise LoaderUnavailable(
            f"FFCV cannot be imported ({error}). Either install it:\n"
            "  apt-get install libopencv-dev libturbojpeg0-dev pkg-config\n"
            f"  {installing('ffcv')}\n"
            "or use the loader that needs nothing: --loader memory"
        ) from error
    return ffcv


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Put back the number of torch's threads, which FFCV sets in the whole process, at import and with every Loader."""
    num_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_whole(path: Path, content: dict[str, Any]) -> bool:
    try:
        expected = json.loads(_manifest(path).read_text())
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Size first: it is free, and a file cut short is the likely damage.
            return expected == {**content, "size": size, "sha256": expected.get("sha256")} and (
                hashlib.file_digest(file, "sha256").hexdigest() == expected["sha256"]
            )
    except (FileNotFoundError, ValueError, AttributeError):
        return False


def _write_whole(path: Path, content: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> None:
    partial = path.with_suffix(".partial")
    size = 0
    digest = hashlib.sha256()
    try:
        _manifest(path).unlink(missing_ok=True)
        with partial.open("wb") as file:
            for block in _blocks(images, labels):
                file.write(block)
                digest.update(block)
                size += len(block)
            file.flush()
            os.fsync(file.fileno())  # some file systems learn only here that they are full
        partial.replace(path)
        partial.write_text(json.dumps({**content, "size": size, "sha256": digest.hexdigest()}))
        partial.replace(_manifest(path))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        needed = sum(len(block) for block in _blocks(images, labels))
        raise OSError(
            error.errno,
            f"no room for the FFCV cache: {needed:,} bytes needed in {path.parent}. Make room there, name "
            "another folder in $BAT_DIST_CACHE, or use --loader memory",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _blocks(images: np.ndarray, labels: np.ndarray) -> Iterator[bytes]:
    """The file: header, fields, a record per sample, whole pages of pixels, table of where the pixels are."""
    from ffcv.fields import IntField, NDArrayField
    from ffcv.types import (
        ALLOC_TABLE_TYPE,
        CURRENT_VERSION,
        TYPE_ID_HANDLER,
        FieldDescType,
        HeaderType,
        get_metadata_type,
    )

    fields = {
        "index": IntField(),
        "label": IntField(),
        "image": NDArrayField(np.dtype(np.uint8), images.shape[1:]),
    }
    count = len(images)
    image_size = images[0].size
    page_size = max(MIN_PAGE, 1 << (image_size - 1).bit_length())
    per_page = page_size // image_size
    num_pages = -(-count // per_page)
    records = np.zeros(count, get_metadata_type(list(fields.values())))
    start = HeaderType.itemsize + len(fields) * FieldDescType.itemsize + records.nbytes
    first_page = -(-start // page_size) * page_size

    header = np.zeros(1, HeaderType)
    header["version"] = CURRENT_VERSION
    header["num_fields"] = len(fields)
    header["page_size"] = page_size
    header["num_samples"] = count
    header["alloc_table_ptr"] = first_page + num_pages * page_size
    yield header.tobytes()

    type_ids = {field_type: type_id for type_id, field_type in TYPE_ID_HANDLER.items()}
    descriptions = np.zeros(len(fields), FieldDescType)
    for description, (name, field) in zip(descriptions, fields.items(), strict=True):
        description["type_id"] = type_ids[type(field)]
        description["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        description["arguments"][:] = field.to_binary()[0]
    yield descriptions.tobytes()

    index = np.arange(count)
    table = np.zeros(count, ALLOC_TABLE_TYPE)
    table["sample_id"] = index
    table["ptr"] = first_page + index // per_page * page_size + index % per_page * image_size
    table["size"] = image_size
    records["f0"], records["f1"], records["f2"] = index, labels, table["ptr"]
    yield records.tobytes()

    yield bytes(first_page - start)
    for page in range(num_pages):
        yield images[page * per_page : (page + 1) * per_page].tobytes().ljust(page_size, b"\0")
    yield table.tobytes()
