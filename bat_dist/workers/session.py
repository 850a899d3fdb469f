"""A Ray session: the cluster at hand, or a private Ray on this machine."""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import joblib
import ray

import bat_dist
from bat_dist.errors import UserError
from bat_dist.parts import travelling
from bat_dist.program import end_on_signals
from bat_dist.settings.ray_address import host_and_port
from bat_dist.storage.files import Folder
from bat_dist.wording import counted
from bat_dist.workers import mps
from bat_dist.workers.private_ray import (
    current_cluster,
    on_a_cluster,
    ray_folder,
    wants_private,
)
from bat_dist.workers.start_again import START_ATTEMPTS, TOO_LATE, too_late

if TYPE_CHECKING:
    import pyarrow.fs

log = logging.getLogger(__name__)

Started = TypeVar("Started")

LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # in bytes, of the operating system
LONGEST_SOCKET_NAME = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")  # in Ray's folder
KNOCK_SECONDS = 5.0  # for a cluster's port to open


@contextmanager
def ray_session(address: str | None = None, *, num_cpus: int | None = None) -> Iterator[bool]:
    """Connect to Ray for the length of the block; True on a cluster, False on a private Ray.

    `address`: `local` starts a private Ray on this machine; `auto` or `host:port` insists on a running cluster; None
    takes the cluster that this machine is part of (or `RAY_ADDRESS` names), and a private Ray if there is none.
    A private Ray has `num_cpus` logical CPUs (None: those that this process may use), and
    `private_ray.prepare_environment` keeps others out of it.  A session that is open already is used and left open.
    Raises UserError if the cluster does not answer, or if a private Ray does not come up.
    """
    for module in travelling():
        ray.cloudpickle.register_pickle_by_value(module)  # pyright: ignore[reportAttributeAccessIssue]
    if ray.is_initialized():
        yield False
        return
    is_cluster = not wants_private(address)
    with nullcontext({}) if is_cluster else _place_of_private_ray() as place:
        if is_cluster:
            _connect(address or "auto")
        else:
            # Always explicit: without a mode Ray would leave a token behind and demand it of the next `ray start`.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            how: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
            cpus = num_cpus or joblib.cpu_count()  # which heeds affinity and quotas; Ray counts the machine's
            start_in_time(lambda: ray.init(address="local", num_cpus=cpus, **how, **place))
            log.info("started a private Ray on this machine: %s", describe_resources())
        end_on_signals()  # Ray has put its own handler in the place of ours
        try:
            yield is_cluster
        finally:
            ray.shutdown()
            mps.stop()  # where a private Ray's workers needed it


def start_in_time(start: Callable[[], Started]) -> Started:
    """Start processes of Ray, again if they do not come up in time.  Raises UserError if they never do."""
    before = _children()
    for attempt in range(1, START_ATTEMPTS + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of Ray's Popen objects, which nobody waits for
            try:
                return start()
            except Exception as error:  # Ray has no class of its own for it
                for process in _children() - before:  # Ray leaves them, and they would slow down the next start
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                if TOO_LATE not in str(error):
                    raise
        log.warning(too_late(attempt))
    raise UserError(
        f"Ray did not start on this machine, {START_ATTEMPTS} times: its processes must be up within 30 s, and other "
        f"programs use the CPU cores (load {os.getloadavg()[0]:.0f} on {counted(joblib.cpu_count(), 'core')}); "
        "try again when they have finished"
    )


def _children() -> set[int]:
    """The numbers of the processes that this one has started."""
    import psutil

    return {process.pid for process in psutil.Process().children()}


@contextmanager
def _place_of_private_ray() -> Iterator[dict[str, Any]]:
    """What `ray.init` is told of its folder: a short one, if its sockets' paths would be too long in Ray's own."""
    folder = ray_folder()
    room = LONGEST_SOCKET_PATH - LONGEST_SOCKET_NAME
    if len(os.fsencode(folder)) <= room:
        yield {}
        return
    try:
        short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    except OSError as error:
        raise UserError(
            f"{folder} is too long for the paths of Ray's sockets, and in /tmp nothing can be written "
            f"({error.strerror}): set RAY_TMPDIR to a folder of at most {room - len('/ray')} characters"
        ) from None
    log.info("%s is too long for the paths of Ray's sockets: the private Ray is in %s", folder, short)
    try:
        yield {"_temp_dir": short}
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _connect(address: str) -> None:
    if address == "auto" and not on_a_cluster():
        # Ray itself would take any Ray it finds running here, another driver's private one too.
        raise UserError(_no_cluster(address, "this machine belongs to none"))
    _knock(address)
    # The driver's own code travels to all nodes: what they have installed may be older.
    package = str(Path(bat_dist.__file__).parent)
    try:
        ray.init(
            address=address, runtime_env={"py_modules": [package]}, log_to_driver=False, logging_level=logging.ERROR
        )
    except ConnectionError as error:
        raise UserError(_no_cluster(address, str(error).splitlines()[0])) from None
    log.info("connected to the Ray cluster at %s", ray.get_runtime_context().gcs_address)


def _knock(address: str) -> None:
    """Raise UserError if nobody listens at the address that Ray will take for this one.

    Ray itself would try for minutes, and not say whose address it is.
    """
    taken, where = address, "ray_address"
    if address == "auto":
        taken, where = os.environ.get("RAY_ADDRESS") or "auto", "RAY_ADDRESS"
    if taken == "auto":
        where = current_cluster()
        try:
            taken = where.read_text().strip()
        except OSError as error:  # another user's
            raise UserError(_no_cluster(address, f"{where} cannot be read: {error.strerror}")) from None
    try:
        host, port = host_and_port(taken)
    except ValueError as error:
        raise UserError(f"{where} {error}") from None
    end = time.monotonic() + KNOCK_SECONDS
    while True:
        try:
            with socket.create_connection((host, port), timeout=KNOCK_SECONDS):
                return
        except OSError as error:
            if time.monotonic() > end or isinstance(error, socket.gaierror):
                why = f"{error.strerror or error}; the address is that of {where}"
                raise UserError(_no_cluster(taken, why)) from None
            time.sleep(0.5)


def _no_cluster(address: str, why: str) -> str:
    return (
        f"no Ray cluster answers at {address!r} ({why}): start one (`ray up`, `ray start --head`), "
        "or pass --ray_address local to use this machine alone"
    )


def describe_resources() -> str:
    """What the session's nodes have, in words: `3 nodes, 12 CPUs, 2 GPUs`, or `1 node, 2 CPUs, no GPU`."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    totals = {name: sum(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    gpus = f", {counted(totals['GPU'], 'GPU')}" if totals["GPU"] else ", no GPU"
    return f"{counted(len(nodes), 'node')}, {counted(totals['CPU'], 'CPU')}{gpus}"


class RayStorage(NamedTuple):
    """Where a run of Ray Train or Tune keeps its notes, as their `RunConfig` is told it."""

    name: str
    storage_path: str
    storage_filesystem: "pyarrow.fs.FileSystem | None"


@contextmanager
def ray_storage(folder: Folder) -> Iterator[RayStorage]:
    """Where Ray Train and Tune may keep their own notes: below the folder, which all machines see; removed at the end.

    A new name each time: a run that Ray has seen end it would not start again, and the resume state is ours.
    """
    import pyarrow.fs

    name = f".ray-{secrets.token_hex(4)}"
    if folder.local_path is not None:
        storage = RayStorage(name, str(folder.local_path.absolute()), None)
    else:
        handler = pyarrow.fs.FSSpecHandler(folder.fs)
        storage = RayStorage(name, folder.root, pyarrow.fs.PyFileSystem(handler))
    try:
        yield storage
    finally:
        folder.remove_folder(name)
