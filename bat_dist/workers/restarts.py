"""Why workers of a data-parallel training failed: Ray Train starts them again without a word.

Ray Train's controller, a process of its own, hears of it and leaves it in Ray's key-value store; the driver tells it.
"""

import logging

import ray.train

from bat_dist.errors import describe_error
from bat_dist.workers import key_value
from bat_dist.workers.share import forget

log = logging.getLogger(__name__)

LONGEST = 200  # characters of a reason


class RestartNotes(ray.train.UserCallback):
    """Notes each failure of workers, in the controller.

    name: of the training, as `Restarts` asks for it.
    """

    def __init__(self, name: str) -> None:
        self._name, self._noted = _key(name), list[str]()

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Workers failed, by rank."""
        reasons = {rank: _reason(error) for rank, error in sorted(worker_exceptions.items())}
        self._noted.append("; ".join(f"rank {rank}: {reason}" for rank, reason in reasons.items()))
        try:
            key_value.put(self._name, self._noted)
        except Exception as error:  # the training need not end for that
            log.warning("a failure of workers cannot be noted: %s: %s", type(error).__name__, error)


class Restarts:
    """The failures that the driver has told of.  most: how many there may be (`max_failures`)."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most, self._num_told = _key(name), most, 0

    def tell(self) -> None:
        """Log those that are new."""
        try:
            noted = key_value.get(self._name) or []
        except Exception as error:  # as when the head is gone
            log.debug("failures of workers cannot be read: %s: %s", type(error).__name__, error)
            return
        for what in noted[self._num_told :]:
            text = "workers failed (%s): they start again from the last finished epoch, %d times at most (max_failures)"
            log.warning(text, what, self._most)
        self._num_told = len(noted)

    def forget(self) -> None:
        """Remove what was noted."""
        forget(self._name)


def _key(name: str) -> str:
    return f"restarts/{name}"


def _reason(error: Exception) -> str:
    """The last line: of a traceback it is the error, and of a lost process it says how it was lost."""
    *_, last = ["", *describe_error(error).strip().splitlines()]
    return last[:LONGEST]
