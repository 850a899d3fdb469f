"""The nodes of a cluster before work starts: are they there, do they run the driver's code, do they see the results?"""

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
import ray.exceptions as rx
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import bat_dist
from bat_dist.errors import RunError, UserError
from bat_dist.settings.sections import RaySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.patience import tried_once
from bat_dist.storage.provenance import source_hash
from bat_dist.wording import counted
from bat_dist.workers.collecting import remember_run
from bat_dist.workers.session import describe_resources, ray_session
from bat_dist.workers.terms import (
    ClusterTerms,
    FolderProbe,
    folder_probe,
    kept_terms,
    not_the_same_folder,
    present_terms,
)

log = logging.getLogger(__name__)

LOOK_INTERVAL = 1.0  # seconds between looks at what has come
SAY_INTERVAL = 15.0  # seconds between words about it
CHECK_SECONDS = 120.0  # for a node to answer: the first task on it unpacks the package


@contextmanager
def job_session(settings: RaySettings, folder: Folder, *, all_write: bool) -> Iterator[ClusterTerms]:
    """A Ray session whose nodes are fit for a job that writes to `folder`.

    all_write: the workers write there too, not only the driver.  Within another session its terms hold on, and the
    nodes are not asked again.
    Raises UserError for a cluster that does not answer, or a node with other code or without the folder; RunError if
    `min_nodes` nodes do not come in time.
    """
    with ray_session(settings.ray_address) as is_cluster:
        if not is_cluster:
            yield present_terms()
            return
        wait_for_nodes(settings.min_nodes, settings.wait_minutes)
        check_nodes(folder, all_write=all_write)
        remember_run(folder)
        with (
            folder_probe(folder) if all_write else nullcontext() as probe,  # for those who come later
            kept_terms(ClusterTerms(settings.wait_minutes, source_hash(), probe)) as terms,
        ):
            yield terms


def wait_for_nodes(number: int, minutes: float) -> None:
    """Wait until the cluster has so many nodes, the head counted.  Raises RunError after `minutes`."""
    _wait(
        lambda: len(alive_nodes()) >= number,
        lambda: f"{counted(number, 'node')} (min_nodes); the cluster has {describe_resources()}",
        minutes,
    )


def wait_for_room(fits: Callable[[], bool], bundle: dict[str, float], number: int, minutes: float, *, of: str) -> None:
    """Wait until `fits()`, asking an autoscaler, if there is one, for `number` times `bundle`.  Raises RunError.

    of: what is to fit, in words.
    """
    if fits():
        return
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[bundle] * number)
    try:
        _wait(fits, lambda: f"room for {of}; the cluster has {describe_resources()}", minutes)
    finally:
        request_resources(bundles=[])  # from here on the workers themselves ask


def _wait(there: Callable[[], bool], wish: Callable[[], str], minutes: float) -> None:
    start, said = time.monotonic(), -SAY_INTERVAL
    while not there():
        waited = time.monotonic() - start
        if waited >= 60 * minutes:
            raise RunError(
                f"waited {counted(minutes, 'minute')} for {wish()}: look at `ray status` on the head, then give the "
                "same command again, with wait_minutes for a longer limit"
            )
        if waited - said >= SAY_INTERVAL:
            log.info("waiting for %s (%.0f s of at most %.0f)", wish(), waited, 60 * minutes)
            said = waited
        time.sleep(LOOK_INTERVAL)


class LiveNode(NamedTuple):
    """A node of the session that is alive.  resources: all that it has, such as CPU and GPU, in use or not."""

    node_id: str
    host: str
    resources: Mapping[str, float]


def alive_nodes() -> list[LiveNode]:
    """The session's nodes that are alive."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [LiveNode(node["NodeID"], node.get("NodeManagerHostname", ""), node["Resources"]) for node in alive]


@dataclass(frozen=True)
class NodeReport:
    """What one node says of itself."""

    host: str
    version: str
    source: str
    sees: bool
    problem: str


def check_nodes(folder: Folder, *, all_write: bool) -> None:
    """Ask every node for its package and whether it sees `folder`; nothing is left behind there.

    Raises UserError, naming the nodes, if one runs other code than the driver, or does not see what the driver wrote
    and `all_write`; otherwise a folder of the driver's machine alone is only warned about.
    """
    asked: list[tuple[LiveNode, Any]] = []
    with folder_probe(folder) as probe:
        for node in alive_nodes():
            there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            asked.append((node, _report.options(scheduling_strategy=there).remote(probe)))
        reports = [report for node, ref in asked if (report := _answer(node, ref))]
    if strange := [report for report in reports if report.source != source_hash()]:
        theirs = ", ".join(f"{report.host} (bat_dist {report.version}, {report.source})" for report in strange)
        raise UserError(
            f"other code than the driver's ({bat_dist.__version__}, {source_hash()}) runs on {theirs}: bring the "
            "package there (`ray up --no-restart` does)"
        )
    _check_folder(reports, folder, all_write=all_write)
    log.info("%s: bat_dist %s (%s) on all", counted(len(reports), "node"), bat_dist.__version__, source_hash())


def _answer(node: LiveNode, ref: Any) -> NodeReport | None:
    """The node's report, or None if it is gone meanwhile."""
    try:
        return ray.get(ref, timeout=CHECK_SECONDS)
    except rx.RayTaskError as error:
        raise UserError(f"{node.host} cannot run bat_dist: {str(error).strip().splitlines()[-1]}") from None
    except rx.RayError as error:
        log.warning("node %s did not answer: %s", node.node_id[:8], str(error).splitlines()[0])
        return None


@ray.remote(num_cpus=0, max_retries=3)
def _report(probe: FolderProbe) -> NodeReport:
    problem = ""
    try:
        with tried_once():  # a node that cannot reach it is to be named, not waited for
            sees = probe.is_seen()
    except Exception as error:  # of any file system
        sees, problem = False, f" ({type(error).__name__}: {error})"
    return NodeReport(socket.gethostname(), bat_dist.__version__, source_hash(), sees, problem)


def _check_folder(reports: list[NodeReport], folder: Folder, *, all_write: bool) -> None:
    blind = ", ".join(report.host + report.problem for report in reports if not report.sees)
    if blind and all_write:
        raise UserError(not_the_same_folder(folder.location, blind))
    if blind:
        log.warning(
            "%s is on the driver's machine only (%s cannot see it): what is there is lost with that machine; "
            "a shared folder or a URI such as s3://bucket/run is not",
            folder,
            blind,
        )


def is_node_lost(error: BaseException) -> bool:
    """Whether an error says that a worker's machine is lost, or cannot be reached.  Ray may not know yet."""
    return isinstance(error, rx.ActorUnavailableError) or "node has died" in str(error)
