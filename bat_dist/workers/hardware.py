"""Which hardware a job's workers have: each node is asked, since the driver's own may be another."""

import logging

import ray
import ray.exceptions as rx
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bat_dist.training.precision import Hardware, this_hardware
from bat_dist.workers.nodes import alive_nodes
from bat_dist.workers.resources import Resources

log = logging.getLogger(__name__)

ANSWER_SECONDS = 120.0  # for a node to answer: the first task on it unpacks the package


def hardware_of_workers(each: Resources) -> list[Hardware]:
    """What each node that could host such a worker gives it; a node that does not answer in time is left out."""
    nodes = [node.node_id for node in alive_nodes() if each.fit_into(node.resources)]
    found = []
    # The CPU of its own node the driver knows without a process there, which would be of no further use.  GPUs it does
    # not: a worker sees those that it is given.
    if not each.gpus and (here := driver_node()) in nodes:
        nodes.remove(here)
        found.append(this_hardware(torch.device("cpu")))
    # No CPU is asked for, since the answer takes no time; the GPUs are, since a task sees none otherwise.
    ask = ray.remote(num_cpus=0, num_gpus=each.gpus, max_retries=3)(this_hardware)
    asked = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    answered, silent = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
    if silent:
        log.warning("%d nodes did not say which hardware they have: the others decide", len(silent))
        for ref in silent:
            ray.cancel(ref, force=True)
    for ref in answered:
        try:
            found.append(ray.get(ref))
        except rx.RayError as error:
            log.warning("a node did not say which hardware it has: %s", str(error).strip().splitlines()[-1])
    return found


def driver_node() -> str:
    """The node that this process is on."""
    return ray.get_runtime_context().get_node_id()
