"""What holds for a job's workers while a cluster's session is open, in the driver and where a worker starts others.

Machines may join at any time, long after the driver has looked at those that were there: each worker that is to write
finds out for itself, before it begins, whether it sees the driver's folder.
"""

import logging
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from bat_dist.errors import UserError, describe_error
from bat_dist.storage.files import Folder
from bat_dist.storage.patience import tried_once
from bat_dist.storage.provenance import source_hash, without_passwords

log = logging.getLogger(__name__)


class FolderProbe(NamedTuple):
    """A file that the driver has written to a folder: who finds it there sees the same folder.

    location: of the folder, as all machines may name it.
    """

    location: str
    name: str
    content: bytes

    def is_seen(self) -> bool:
        """Whether this process sees the file, and may write beside it; what the file system raises is raised."""
        folder = Folder(self.location)
        if not folder.exists(self.name) or folder.read(self.name) != self.content:
            return False
        own = f"{self.name}-{socket.gethostname()}-{secrets.token_hex(4)}"
        folder.write(own, self.content)
        folder.remove(own)
        return True


@contextmanager
def folder_probe(folder: Folder) -> Iterator[FolderProbe]:
    """Such a file in `folder`, which is made if it is not there, for the length of the block."""
    probe = FolderProbe(folder.absolute_location, f".visible-{secrets.token_hex(8)}", secrets.token_bytes(16))
    folder.create()
    folder.write(probe.name, probe.content)
    try:
        yield probe
    finally:
        try:
            with tried_once():  # nobody waits for that at the end of a job
                for name in (probe.name, *folder.names(f"{probe.name}-*")):
                    folder.remove(name)
        except Exception as error:  # of any file system
            log.debug("%s/%s is left there: %s: %s", folder, probe.name, type(error).__name__, error)


class ClusterTerms(NamedTuple):
    """What holds for a job's workers on a cluster: how long to wait for room, and what is asked of each of them.

    source: the `source_hash` that they must have. probe: what those must see who write to the result folder.
    None on a private Ray: nothing comes that is waited for, all code is the driver's, and so is the disk.
    """

    wait_minutes: float | None = None
    source: str | None = None
    probe: FolderProbe | None = None

    def check_here(self) -> None:
        """Raise UserError, naming this host, if it has other code than the driver or does not see its folder."""
        check_source(self.source)
        check_folder(self.probe)


PRIVATE_RAY = ClusterTerms()

_present = PRIVATE_RAY  # like Ray's session, of the process and not of a thread


def present_terms() -> ClusterTerms:
    """Those of the session that this process is in; those of a private Ray if nobody has said others."""
    return _present


@contextmanager
def kept_terms(terms: ClusterTerms) -> Iterator[ClusterTerms]:
    """These are the terms of all sessions that are opened within the block."""
    global _present
    before, _present = _present, terms
    try:
        yield terms
    finally:
        _present = before


def check_source(expected: str | None) -> None:
    """Raise UserError, naming this host, if it runs another bat_dist than the one with this `source_hash`."""
    if expected is not None and source_hash() != expected:
        raise UserError(
            f"{socket.gethostname()} runs another bat_dist ({source_hash()}) than the driver ({expected}): bring the "
            "driver's there (`ray up --no-restart` does)"
        )


def check_folder(probe: FolderProbe | None) -> None:
    """Raise UserError, naming this host, if it does not see the driver's folder or cannot write there."""
    if probe is None:
        return
    problem = ""
    try:
        if probe.is_seen():
            return
    except (OSError, UserError) as error:  # of a storage that cannot be reached RunError says all
        problem = f" ({describe_error(error)})"
    raise UserError(not_the_same_folder(probe.location, socket.gethostname() + problem))


def not_the_same_folder(location: str, blind: str) -> str:
    """What is said where machines do not see the driver's folder.  blind: their names, with the reasons if known."""
    return (
        f"{without_passwords(location)} is not the same folder on all nodes: {blind} cannot write to what the driver "
        "made there; name a folder that all machines share, or a URI such as s3://bucket/run"
    )
