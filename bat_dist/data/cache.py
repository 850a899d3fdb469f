"""The cache folder, in which decoded images and betons are kept."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bat_dist.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}


def default_cache_dir() -> Path:
    """The folder of the cache: `$BAT_DIST_CACHE`, or bat_dist in `$XDG_CACHE_HOME` or in ~/.cache."""
    if own := os.environ.get("BAT_DIST_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bat_dist"


@contextmanager
def told_if_not_writable(folder: Path, *, of: str, instead: str) -> Iterator[None]:
    """Raise a UserError for a folder that cannot be written to in the block, which names the ways out.

    of: what is kept there. instead: the option that does without it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise UserError(
            f"the folder of {of}, {folder}, cannot be written to ({error.strerror}): name another in "
            f"$BAT_DIST_CACHE, or use {instead}"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a small file at once: whoever reads it has the old text or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file at once, as `write_text` does."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    aside.write_bytes(data)
    aside.replace(path)
