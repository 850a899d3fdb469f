"""A worker: a Ray actor that is set up once and then works on one unit after another.  `pool` has them."""

import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import ray

from bat_dist.errors import is_gpu_broken, is_gpu_full
from bat_dist.storage.computed_on import TOLD
from bat_dist.storage.provenance import ComputedOn, work_for
from bat_dist.storage.unit_log import LOGGER, AttemptLog, Record
from bat_dist.training.freed_memory import keep_freed_memory
from bat_dist.workers import metrics, share  # Ray copies this module's own names into the actor, and no module
from bat_dist.workers.gpu_share import await_gpu, gpu_full, keep_to_part
from bat_dist.workers.resources import Resources
from bat_dist.workers.running import WorkerPlace, seconds_since
from bat_dist.workers.terms import ClusterTerms
from bat_dist.workers.units import Row, Work


class AttemptResult(NamedTuple):
    """What came of one attempt: a row, or the reason why there is none, and whether another attempt is hopeless.

    broken: the process can do nothing more, and whatever it is given next would fail too.
    gpu_full: the unit did not fit into what was free of the GPU.
    """

    row: Row | None
    records: list[Record]
    reason: str = ""
    hopeless: bool = False
    broken: bool = False
    gpu_full: bool = False


@ray.remote
class Worker:
    """An actor that is set up once and then works on one unit after another."""

    def setup(
        self,
        each: Resources,
        what: str,
        terms: ClusterTerms,
        command: str,
        give_up_on: tuple[type[Exception], ...],
        build: Callable[..., Work],
        *args: Any,
    ) -> WorkerPlace:
        """Call `build(*args)` for the function of a unit.  Raises UserError if this host does not meet the terms.

        each: what this worker occupies.  command: the driver's, for the results' provenance.
        """
        terms.check_here()
        work_for(command)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")  # to Ray's file for this process
        logging.getLogger(LOGGER).setLevel(logging.INFO)  # what is chosen while the work is built, too
        os.environ["OMP_NUM_THREADS"] = str(each.cpus)  # for torch if the work imports it later
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(each.cpus)
        keep_freed_memory()
        keep_to_part(each.gpus)
        self._gpus = each.gpus
        self._give_up_on, self._work = give_up_on, build(*args)
        context = ray.get_runtime_context()
        share.HERE.keep_telling(context.get_actor_id() or "")
        gpus = ",".join(context.get_accelerator_ids().get("GPU", ()))
        if gpus:
            metrics.keep_telling(partial(metrics.tell_gpu_memory, what))
        return WorkerPlace(context.get_node_id(), socket.gethostname(), os.getpid(), gpus)

    def run(self, unit: Any, attempt: int) -> AttemptResult:
        """Work on one unit, and note what is said meanwhile."""
        scribe, start = AttemptLog(attempt), time.perf_counter()
        scribe.note("started")
        share.HERE.begin(unit)
        try:
            with scribe.listening():
                row = self._work(unit)
        except Exception as error:
            hopeless, broken = isinstance(error, self._give_up_on), is_gpu_broken(error)
            if full := is_gpu_full(error):
                await_gpu()
            reason = gpu_full(error, self._gpus) if full else f"{type(error).__name__}: {error}"
            scribe.note("failed", seconds=seconds_since(start), reason=reason, text=traceback.format_exc())
            return AttemptResult(None, scribe.records, reason, hopeless, broken, full)
        scribe.note("done", seconds=seconds_since(start), **{TOLD: _computed_on()})
        return AttemptResult(row, scribe.records)


def _computed_on() -> ComputedOn | None:
    """What this process computes on; None for work that has imported nothing that computes."""
    precision = sys.modules.get("bat_dist.training.precision")
    return precision.computed_on() if precision else None
