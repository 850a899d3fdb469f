"""GPUs that fail process after process get no more work.  Imports no ray."""

import logging
import time
from collections import Counter
from collections.abc import Container

from bat_dist.workers.retry import MAX_ATTEMPTS
from bat_dist.workers.running import WorkerPlace, WorkerSlot

log = logging.getLogger(__name__)


class GpuQuarantine:
    """The GPUs that failed MAX_ATTEMPTS processes in a row, out of use until the end of the run.

    Another process may do better on the same GPU, but one GPU must not fail every unit of a long run.  Ray would give
    it to the next worker, so the actor that it failed last is held, which occupies it.

    Processes that share a GPU fail together, under MPS even of one's fault: those that were at work when a failure was
    counted do not count again.  (A held one keeps MPS from taking others on its machine, which then do without.)
    """

    def __init__(self) -> None:
        self.held: list[WorkerSlot] = []  # on GPUs that do not work
        self._failures: Counter[tuple[str, str]] = Counter()  # in a row, by host and GPU
        self._counted: dict[tuple[str, str], float] = {}  # when the last of them was, of time.monotonic

    def failed(self, slot: WorkerSlot) -> bool:
        """Count a process that its GPU failed; True if its actor is held from now on, else it can be ended."""
        place = slot.place
        gpu = (place.host, place.gpus)
        if slot.since >= self._counted.get(gpu, slot.since):
            self._failures[gpu] += 1
            self._counted[gpu] = time.monotonic()
        if self._failures[gpu] < MAX_ATTEMPTS:
            log.warning("process %d on %s ends: its GPU does not answer it any more", place.pid, place.host)
            return False
        text = "GPU %s of %s failed %d processes in a row: it gets no work until the end of this run"
        log.warning(text, place.gpus, place.host, self._failures[gpu])
        self.held.append(slot)
        return True

    def works(self, place: WorkerPlace) -> None:
        """A unit is done on this GPU: what it failed before was not in a row with what it fails later."""
        self._failures.pop((place.host, place.gpus), None)

    def keep(self, node_ids: Container[str]) -> None:
        """Forget the actors that went with their machines; those on these nodes are still there."""
        self.held = [slot for slot in self.held if slot.place.node_id in node_ids]
