"""What a worker occupies, and what room the nodes have, or will have once an autoscaler has brought its machines."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bat_dist.errors import UserError
from bat_dist.wording import counted
from bat_dist.workers import mps
from bat_dist.workers.collecting import LAUNCHER_CONFIG
from bat_dist.workers.nodes import alive_nodes, wait_for_room
from bat_dist.workers.session import describe_resources

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What one worker occupies: CPU cores (also its number of threads) and GPUs (fractions share one)."""

    cpus: int = 1
    gpus: float = 0.0

    @classmethod
    def of_worker(cls, cpus: int, gpus: float | None) -> "Resources":
        """What the user asked for; None is one GPU where the session's cluster has any, or can get one."""
        if gpus is None:
            gpus = float(any(node.get("GPU", 0) for node in (*present_nodes(), *promised_nodes())))
        return cls(cpus, gpus)

    def fit_into(self, node: Mapping[str, float]) -> int:
        """How many workers a node with these resources holds."""
        by_cpu = int(node.get("CPU", 0) / self.cpus + 1e-9)
        if not self.gpus:
            return by_cpu
        per_gpu = int(1 / self.gpus + 1e-9) if self.gpus <= 1 else 0
        gpus = int(node.get("GPU", 0))
        return min(by_cpu, gpus * per_gpu if per_gpu else int(gpus / self.gpus))

    def fit_into_all(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many workers these nodes hold together."""
        return sum(map(self.fit_into, nodes))

    @property
    def in_words(self) -> str:
        """`1 CPU`, `2 CPUs and 0.5 GPUs`."""
        return counted(self.cpus, "CPU") + (f" and {counted(self.gpus, 'GPU')}" if self.gpus else "")

    def of_workers(self, number: int) -> str:
        """`1 worker with 2 CPUs`, `4 workers with 1 CPU and 1 GPU each`."""
        return f"{counted(number, 'worker')} with {self.in_words}" + " each" * (number > 1)

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray is asked for: the resources of one worker by their names."""
        return {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})


def worker_resources(
    cpus: int, gpus: float | None, *, of: str, number: int = 1, wait_minutes: float | None
) -> Resources:
    """What a worker occupies (`cpus_per_{of}`, `gpus_per_{of}` as the user asked for), once there is room for `number`.

    wait_minutes: how long to wait for nodes, asking an autoscaler for them; None, on a private Ray: not at all.  There
    workers that share a GPU get MPS, which the files in cluster/ start on a cluster's nodes.
    Raises UserError if there is no room and none can come, RunError if none came in time.
    """
    each = Resources.of_worker(cpus, gpus)

    def fits() -> bool:
        return each.fit_into_all(present_nodes()) >= number

    if wait_minutes is not None:
        wait_for_room(fits, each.bundle, number, wait_minutes, of=each.of_workers(number))
    elif not fits():
        fewer = ", or num_workers" * (number > 1)
        raise UserError(
            f"no room for {each.of_workers(number)}: the cluster has {describe_resources()}; "
            f"lower cpus_per_{of} or gpus_per_{of}{fewer}"
        )
    elif 0 < each.gpus < 1:
        mps.start()
    return each


def present_nodes() -> list[Mapping[str, float]]:
    """The resources of each node that is alive."""
    return [node.resources for node in alive_nodes()]


def promised_nodes() -> list[dict[str, float]]:
    """The resources of each node that the cluster's autoscaler may have at once, head not counted; none if it has none.

    It is known where KubeRay made the cluster, and to a driver on the head where `ray up` did.
    """
    try:
        from ray._private.state import state

        config = state.get_cluster_config()
        groups = config.node_group_configs if config else []
        nodes = [dict(group.resources) for group in groups for _ in range(max(0, group.max_count))]
        return nodes or _from_launcher(Path(LAUNCHER_CONFIG).expanduser())
    except Exception as error:  # neither is a public promise of Ray's: without them, what is there counts
        log.debug("no word from an autoscaler: %s", error)
        return []


def _from_launcher(path: Path) -> list[dict[str, float]]:
    """The resources of the nodes in the cluster's file, as `ray up` has filled it in."""
    if not path.exists():
        return []
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    kinds = config.get("available_node_types", {})
    workers = [
        {name: float(value) for name, value in kind.get("resources", {}).items()}
        for name, kind in kinds.items()
        for _ in range(kind.get("max_workers", 0))
        if name != config.get("head_node_type") or len(kinds) == 1
    ]
    return workers[: config.get("max_workers", len(workers))]


def most_workers(each: Resources) -> int:
    """How many workers the cluster holds, or would hold with all the machines that its autoscaler may bring."""
    return max(each.fit_into_all(present_nodes()), each.fit_into_all(promised_nodes()))
