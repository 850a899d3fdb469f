"""A driver with many small nodes of which one dies every ten seconds.  Prints what it saw as JSON.

python fleet.py NUM_UNITS NUM_NODES SECONDS_BETWEEN_DEATHS
"""

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_SCHEDULER_EVENTS": "0"}

import psutil
import ray
from ray.cluster_utils import Cluster

from bat_dist.workers.pool import Done, run_units
from bat_dist.workers.resources import Resources

WORKERS_PER_NODE = 2
NODE: dict[str, Any] = {
    "num_cpus": WORKERS_PER_NODE,
    "num_gpus": WORKERS_PER_NODE,
    "object_store_memory": 80 * 2**20,
}  # GPUs in name only


def build() -> Callable[[int], dict[str, Any]]:
    """A trial of a second."""

    def work(unit: int) -> dict[str, Any]:
        time.sleep(1.0)
        return {"square": unit * unit}

    return work


def main(num_units: int, num_nodes: int, seconds: float) -> dict[str, Any]:
    """Do all units, and sample the driver's memory and handles on the way."""
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(num_nodes)]
    draw, deaths, last_death = random.Random(0), 0, 0.0
    outcomes: Counter[int] = Counter()
    wrong, samples, start = [], [], time.monotonic()
    me = psutil.Process()
    for outcome in run_units(range(num_units), build, (), resources=Resources(1, 1.0)):
        outcomes[outcome.unit] += 1
        if not isinstance(outcome, Done) or outcome.row != {"square": outcome.unit**2}:
            wrong.append(str(outcome))
        if sum(outcomes.values()) % 10 == 0:
            samples.append((me.memory_info().rss, me.num_fds(), me.num_threads()))
        if time.monotonic() - last_death > seconds:
            cluster.remove_node(nodes.pop(draw.randrange(len(nodes))), allow_graceful=False)
            nodes.append(cluster.add_node(wait=False, **NODE))
            deaths, last_death = deaths + 1, time.monotonic()
    took = time.monotonic() - start
    ray.shutdown()
    cluster.shutdown()
    once = sorted(outcomes) == list(range(num_units)) and set(outcomes.values()) == {1}
    return {"once": once, "wrong": wrong, "deaths": deaths, "seconds": took, "samples": samples}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
