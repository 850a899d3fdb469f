"""The environment of a private Ray.  Ray reads it when it is imported, so this module does not import ray."""

import os
import secrets
import sys
from pathlib import Path

# What processes of Ray may take to start.  With Ray's defaults of 30 and 60 s it does not start on a busy machine.  For
# the nodes of a cluster the same stands in cluster/env.sh.
START_SECONDS = {
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
}


def ray_folder() -> Path:
    """Where Ray keeps its sessions, by its own rule (`ray._common.utils.get_default_ray_temp_dir`)."""
    system = os.environ.get("TMPDIR", "/tmp") if sys.platform == "linux" else "/tmp"
    return Path(os.environ.get("RAY_TMPDIR", system)) / "ray"


def current_cluster() -> Path:
    """The file in which `ray start` notes the address of the cluster that this machine is part of."""
    return ray_folder() / "ray_current_cluster"


def on_a_cluster() -> bool:
    """Whether `ray start` has run on this machine, or `RAY_ADDRESS` names a cluster's address."""
    if (address := os.environ.get("RAY_ADDRESS") or "auto") != "auto":
        return address != "local"
    return current_cluster().exists()


def wants_private(address: str | None) -> bool:
    """Whether `ray_session(address)` will start a private Ray.

    `RAY_ADDRESS=auto`, as on every node of a cluster (cluster/env.sh), insists on a cluster: where its Ray has gone,
    a program must not quietly go on alone.
    """
    if address is None:
        return os.environ.get("RAY_ADDRESS") != "auto" and not on_a_cluster()
    return address == "local"


def prepare_environment(address: str | None) -> None:
    """Let idle threads sleep; make a private Ray listen on loopback alone and ask for a token that only its own know.

    Threads of torch that have nothing to do would spin by default.  Where the cores are shared with other programs, two
    threads that wait for each other made a training of small images 15 times as slow.

    Its workers have this process's own priority, unless the user has set RAY_worker_niceness: Ray's default, meant for
    machines that nobody else uses, would let every other program on this one go first.
    To be called before torch and ray are imported.  All but the first is left alone if ray is there already, or where
    `ray_session(address)` will join a cluster.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # the workers of a private Ray inherit it
    if "ray" in sys.modules or not wants_private(address):
        return
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's own switch for loopback only, on any system
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["RAY_SCHEDULER_EVENTS"] = "0"
    for name, seconds in START_SECONDS.items():
        os.environ.setdefault(name, seconds)
    os.environ.setdefault("RAY_worker_niceness", "0")  # added to the driver's own
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process that watches for cloud machines' end
