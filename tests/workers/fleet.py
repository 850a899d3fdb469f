"""A driver with many small nodes of which one dies every few seconds.  Prints what it saw as JSON, one line.

    python fleet.py NUM_UNITS NUM_NODES SECONDS_BETWEEN_DEATHS [--trial_seconds 1] [--seed 0] [--least_deaths 0]

Every line can be given to `benchmarks/fleet_calibration.py`, which compares the fleet with its model.
"""

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any

from bat_dist.workers.private_ray import START_SECONDS

os.environ |= START_SECONDS
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_SCHEDULER_EVENTS": "0"}
os.environ.pop("RAY_OVERRIDE_RESOURCES", None)  # of the tests on one core: this head has no CPU
os.environ |= {"RAY_prestart_worker_first_driver": "0"}  # nodes die before these are of use

import psutil
import ray
from ray.cluster_utils import Cluster

from bat_dist.workers.pool import run_units
from bat_dist.workers.resources import Resources
from bat_dist.workers.session import start_in_time
from bat_dist.workers.units import Done

WORKERS_PER_NODE = 2
NODE: dict[str, Any] = {
    "num_cpus": WORKERS_PER_NODE,
    "num_gpus": WORKERS_PER_NODE,
    "object_store_memory": 80 * 2**20,
}  # GPUs in name only


def build(trial_seconds: float) -> Callable[[int], dict[str, Any]]:
    """A trial that takes so many seconds and needs no processor."""

    def work(unit: int) -> dict[str, Any]:
        time.sleep(trial_seconds)
        return {"square": unit * unit}

    return work


class Driver:
    """Does all units, and samples its own memory and handles on the way.

    attempts: [unit, event, seconds since the epoch, process] of each start, end and loss of a trial.
    deaths: when nodes died, in seconds since the epoch; whoever kills them writes it.
    """

    def __init__(self) -> None:
        self.deaths: list[float] = []
        self.waits = False
        self.outcomes: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.samples: list[tuple[int, int, int]] = []
        self.attempts: list[tuple[int, str, float, int | None]] = []

    def work(self, num_units: int, trial_seconds: float, least_deaths: int) -> float:
        """Returns the seconds that it took.

        Waits for the deaths that are due at this share of the units: a fast machine would do all of them before.
        """
        start, me = time.monotonic(), psutil.Process()
        for outcome in run_units(range(num_units), build, (trial_seconds,), resources=Resources(1, 1.0)):
            self.outcomes[outcome.unit] += 1
            if not isinstance(outcome, Done) or outcome.row != {"square": outcome.unit**2}:
                self.wrong.append(str(outcome))
            if self.outcomes.total() % 10 == 0:
                self.samples.append((me.memory_info().rss, me.num_fds(), me.num_threads()))
            for told in outcome.records:
                seconds = datetime.fromisoformat(told["time"]).timestamp()
                self.attempts.append((outcome.unit, told["event"], seconds, told.get("pid")))
            due = self.outcomes.total() * (least_deaths + 1) // (num_units + 1)
            while len(self.deaths) < due:
                self.waits = True
                time.sleep(0.05)
            self.waits = False
        return time.monotonic() - start


def main(
    num_units: int, num_nodes: int, every: float, *, trial_seconds: float, seed: int, least_deaths: int
) -> dict[str, Any]:
    """Let a node die `every` seconds after the last one was replaced and a trial has ended, until all trials are done.

    Without the trial a slow machine would lose all nodes before they have done anything.
    """
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = start_in_time(lambda: Cluster(initialize_head=True, connect=True, head_node_args=head))
    nodes = [start_in_time(lambda: cluster.add_node(**NODE)) for _ in range(num_nodes)]
    draw, driver, load = random.Random(seed), Driver(), [os.getloadavg()]
    start, done_then = time.time(), 0
    with ThreadPoolExecutor(1) as thread:  # a node is replaced while the driver works, as by a provider
        work = thread.submit(driver.work, num_units, trial_seconds, least_deaths)
        while not wait([work], timeout=every).done:
            while driver.outcomes.total() == done_then and not driver.waits and not work.done():
                time.sleep(0.05)
            node = nodes.pop(draw.randrange(len(nodes)))
            driver.deaths.append(time.time())
            cluster.remove_node(node, allow_graceful=False)
            nodes.append(start_in_time(lambda: cluster.add_node(wait=False, **NODE)))
            done_then = driver.outcomes.total()
    load.append(os.getloadavg())
    ray.shutdown()
    cluster.shutdown()
    once = sorted(driver.outcomes) == list(range(num_units)) and set(driver.outcomes.values()) == {1}
    return {
        "units": num_units,
        "nodes": num_nodes,
        "workers_per_node": WORKERS_PER_NODE,
        "seconds_between_deaths": every,
        "trial_seconds": trial_seconds,
        "seed": seed,
        "once": once,
        "wrong": driver.wrong,
        "deaths": len(driver.deaths),
        "seconds": work.result(),
        "samples": driver.samples,
        "start": start,
        "death_times": driver.deaths,
        "attempts": driver.attempts,
        "load": load,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_units", type=int)
    parser.add_argument("num_nodes", type=int)
    parser.add_argument("every", type=float, help="seconds between two deaths")
    parser.add_argument("--trial_seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the node that dies")
    parser.add_argument("--least_deaths", type=int, default=0, help="for which the trials wait")
    print(json.dumps(main(**vars(parser.parse_args()))))
