"""What holds for a job's workers while a cluster's session is open, in the driver and where a worker starts others."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from bat_dist.errors import UserError
from bat_dist.storage.provenance import source_hash


class ClusterTerms(NamedTuple):
    """What holds for a job's workers on a cluster: how long to wait for room, and which `source_hash` they must have.

    None on a private Ray: nothing comes that is waited for, and all code is the driver's.
    """

    wait_minutes: float | None = None
    source: str | None = None


_present = ClusterTerms()  # like Ray's session, of the process and not of a thread


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
