"""The epochs of one training, as the driver's sign of life and the terminal tell of them."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from bat_dist.jobs.training_plan import OnEpoch, TrainingPlan
from bat_dist.training import files
from bat_dist.wording import counted
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.running import Running


class EpochsAtWork:
    """Takes what comes of a training while it runs.

    on_epoch: is given each epoch's row of the history.
    """

    def __init__(self, plan: TrainingPlan, heart: Heartbeat, on_epoch: OnEpoch) -> None:
        self._on_epoch, self._since, self._share = on_epoch, time.monotonic(), 0.0
        self.now = 1 + len(files.read_history(plan.record.folder))
        workers = plan.asked.num_workers
        self._place = counted(workers, "worker") if workers else socket.gethostname()
        self._is_begun = not workers  # workers take their time to start
        self.pace = heart.begin(done=self.now - 1)
        self.pace.watch(self._running)

    def finished(self, row: Mapping[str, Any]) -> None:
        """An epoch is on disk; row: of the history."""
        self.now, self._since, self._share, self._is_begun = row["epoch"] + 1, time.monotonic(), 0.0, True
        self.pace.step(failed=0)
        self._on_epoch(row)

    def add(self, part: float) -> None:
        """So much more of the epoch's images are trained on."""
        self._share = min(self._share + part, 0.99)

    def reached(self, share: float) -> None:
        """So much of the epoch's images are trained on, as a worker has told."""
        if share and not self._is_begun:
            self._since, self._is_begun = time.monotonic(), True
        self._share = share

    def _running(self) -> list[Running]:
        if not self._is_begun:
            return []
        return [Running(self.now, self._place, os.getpid(), time.monotonic() - self._since, self._share)]
