"""The file system of a location, for files and for zarr, set up so that a lost link is noticed in about a minute."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import fsspec
import fsspec.config

from bat_dist.errors import UserError, installing
from bat_dist.storage.provenance import without_passwords

if TYPE_CHECKING:  # imported where a store is opened: training, which has none, does without it
    from zarr.storage import FsspecStore

# They have buckets, which are the user's to make, and no folders.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_S3 = ("s3://", "s3a://")
_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 30}
_RETRIES = {"total_max_attempts": 2, "mode": "standard"}  # the waiting is done by `patience`, which says so
SILENCE = 70.0  # seconds for one request: two tries of the client
SLOWEST = 1e5  # bytes a second, and so much longer for what is sent


def open_location(location: str) -> tuple[Any, str]:
    """The file system and the path in it.  Raises UserError for a protocol that is unknown or not installed."""
    try:
        fs, root = fsspec.core.url_to_fs(location, **_client_options(location))
    except (ValueError, ImportError) as error:
        extra = "s3" if location.startswith(_S3) else "hf" if location.startswith("hf://") else ""
        way_out = f": {installing(extra)}" if extra else ""
        raise UserError(f"cannot open {without_passwords(location)}: {error}{way_out}") from None
    return _made_patient(fs), root


def open_for_zarr(location: str) -> "FsspecStore":
    """Zarr's store at a location that is no local path."""
    from zarr.storage import FsspecStore

    options = _client_options(location)
    if location.startswith(_S3):  # a chunk is small, and one reader asks for it once, not for its size before
        options["max_concurrency"] = 1
    store = FsspecStore.from_url(location, storage_options=options)
    _made_patient(store.fs)
    return store


def _client_options(location: str) -> dict[str, Any]:
    """What fsspec is told of a location: never to remember listings, and for S3 how long to wait for an answer."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if location.startswith(_S3):
        own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {**_TIMEOUTS, **_retries(), **own}
    return options


def _made_patient(fs: Any) -> Any:
    """Return the file system; s3fs loses its own tries, which would multiply time-outs, and gets a limit.

    Its client's read time-out begins when all has been sent, and it sends when the server has said that it may: without
    the limit, a write to one that says nothing would wait until the kernel gives the connection up.
    """
    if hasattr(fs, "_call_s3"):
        fs.retries = 1
        fs._call_s3 = _limited(type(fs)._call_s3.__get__(fs))
    return fs


def _limited(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def limited(method: str, *args: Any, **kwargs: Any) -> Any:
        limit = SILENCE + len(kwargs.get("Body", b"")) / SLOWEST
        try:
            return await asyncio.wait_for(call(method, *args, **kwargs), limit)
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"no answer to {method} within {limit:.0f} s") from error

    return limited


@functools.cache
def _retries() -> dict[str, Any]:
    """How often the S3 client tries; nothing where the user has said so, in AWS_MAX_ATTEMPTS or ~/.aws/config."""
    try:
        from botocore.session import Session

        own = Session().get_config_variable("max_attempts")
    except Exception:  # no S3 client, or a configuration that cannot be read: its first use will say so
        own = None
    return {} if own else {"retries": _RETRIES}
