"""Values that processes of one job leave for each other in Ray's key-value store, which the head has.

A value is anything that JSON has, under a name that is unique within the job.
"""

import json
from typing import Any

import ray
from ray.experimental import internal_kv

NAMESPACE = "bat_dist"


def put(name: str, value: Any) -> None:
    """Write the value, in place of what was there."""
    internal_kv._internal_kv_put(_key(name), json.dumps(value), namespace=NAMESPACE)


def get(name: str) -> Any:
    """What was written; None if nothing was."""
    found = internal_kv._internal_kv_get(_key(name), namespace=NAMESPACE)
    return json.loads(found) if found else None


def remove(name: str) -> None:
    """Remove what was written, if anything was."""
    internal_kv._internal_kv_del(_key(name), namespace=NAMESPACE)


def _key(name: str) -> str:
    return f"{ray.get_runtime_context().get_job_id()}/{name}"
