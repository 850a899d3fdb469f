"""Addresses of Ray clusters, read without importing ray."""

import re


def host_and_port(address: str) -> tuple[str, int]:
    """The host and the port of a cluster's address.  Raises ValueError if it is none."""
    parts = re.fullmatch(r"(?:ray://)?(?P<host>[^\s/:\[\]]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if not parts or int(parts["port"]) >= 2**16:
        raise ValueError(f"must be auto, local or HOST:PORT, such as 10.0.0.1:6379, got {address!r}")
    return parts["host"].strip("[]"), int(parts["port"])
