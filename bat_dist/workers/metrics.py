"""What a run tells Prometheus, through Ray: each node's metrics port shows it, `cluster/grafana.json` draws it.

The driver counts units and busy workers, each worker the images it processes. Ray sends them every ten seconds and at
a process's end. Telling never breaks a run: what goes wrong is logged once.
"""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
import ray.util.metrics

if TYPE_CHECKING:  # a driver that hands out work needs no torch, whose import takes two seconds of CPU time
    from bat_dist.data.loaders import Batch, Indices, Loader

log = logging.getLogger(__name__)

TAGS = ("what", "node")  # what: trials, members, attacks or training; node: the host's name
REFRESH = 5.0  # seconds; Ray forgets a gauge that was not set for twenty


class Metric:
    """A counter or gauge; Ray's own is made at the first use in a process."""

    def __init__(self, kind: Literal["Counter", "Gauge"], name: str, text: str) -> None:
        self.kind, self.name, self.text = kind, name, text
        self._made: Any = None
        self._broken = False
        METRICS[name] = self

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_{self.name}" + "_total" * (self.kind == "Counter")

    def tell(self, value: float = 1, *, what: str) -> None:
        """Add to the counter, or set the gauge.  Never raises; nothing happens outside a Ray session."""
        if self._broken or not ray.is_initialized() or (self.kind == "Counter" and not value):
            return
        try:
            self._made = self._made or getattr(ray.util.metrics, self.kind)(self.name, self.text, TAGS)
            tell = self._made.inc if self.kind == "Counter" else self._made.set
            tell(value, {"what": what, "node": socket.gethostname()})
        except Exception as error:
            self._broken = True
            log.warning("no more metric %s: %s: %s", self.name, type(error).__name__, error)


METRICS: dict[str, Metric] = {}

UNITS_DONE = Metric("Counter", "bat_dist_units_done", "Units of work finished")
UNITS_FAILED = Metric("Counter", "bat_dist_units_failed", "Units given up")
UNITS_RETRIED = Metric("Counter", "bat_dist_units_retried", "Units that went back to the queue")
UNITS_LOST = Metric("Counter", "bat_dist_units_lost", "Units whose worker or machine was lost")
WORKERS_BUSY = Metric("Gauge", "bat_dist_workers_busy", "Workers with a unit")
IMAGES = Metric("Counter", "bat_dist_images", "Images that networks were trained or asked on, or that were attacked")
GPU_MEMORY = Metric("Gauge", "bat_dist_gpu_memory_bytes", "Most GPU memory that a worker's tensors took at a time")
EPOCH = Metric("Gauge", "bat_dist_epoch", "Epochs that a data-parallel training has finished")


def tell_gpu_memory(what: str) -> None:
    """The most that this process has had allocated on its GPU; nothing if it uses none."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available() and torch.cuda.is_initialized():
        GPU_MEMORY.tell(torch.cuda.max_memory_allocated(), what=what)


def keep_telling(tell: Callable[[], None]) -> Callable[[], None]:
    """Call `tell` now and every REFRESH seconds, until the function that is returned is called, or the process ends."""
    stop = threading.Event()

    def repeat() -> None:
        try:
            tell()
            while not stop.wait(REFRESH):
                tell()
        except Exception as error:
            log.warning("no more metrics of this process: %s: %s", type(error).__name__, error)

    threading.Thread(target=repeat, name="metrics", daemon=True).start()
    return stop.set


@dataclass(frozen=True)
class CountedLoader:
    """A loader whose images are counted as they are handed out."""

    loader: "Loader"
    what: str

    def train_epoch(self, indices: "Indices", **how: Any) -> "Iterator[Batch]":
        """See `Loader`."""
        return self._counted(self.loader.train_epoch(indices, **how))

    def eval_epoch(self, indices: "Indices | None" = None, *, batch_size: int) -> "Iterator[Batch]":
        """See `Loader`."""
        return self._counted(self.loader.eval_epoch(indices, batch_size=batch_size))

    def _counted(self, batches: "Iterator[Batch]") -> "Iterator[Batch]":
        for batch in batches:
            IMAGES.tell(len(batch.labels), what=self.what)
            yield batch


class EpochTracker:
    """A tracker (see `training.trackers`) that tells how far a training is."""

    def __init__(self, first_epoch: int) -> None:
        self._epoch = first_epoch - 1
        self._stop = keep_telling(lambda: EPOCH.tell(self._epoch, what="training"))

    def log(self, epoch: int, values: Mapping[str, float | None]) -> None:
        """An epoch, counted from 1, is done."""
        self._epoch = epoch

    def close(self) -> None:
        """The training is over."""
        self._stop()
