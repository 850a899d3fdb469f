"""The workers of a plan: what one of them occupies, and what a GPU that several share makes of its speed."""

from dataclasses import dataclass
from typing import NamedTuple

from bat_dist.errors import UserError
from bat_dist.wording import counted


class MeasuredMachine(NamedTuple):
    """What of the machine that was measured decides how many workers it holds.  gpus: 0 if its CPU was measured."""

    gpus: int
    cpus: int  # cores that a process may use


@dataclass(frozen=True)
class PlannedWorker:
    """One worker.

    cpus: cores, and threads. gpus: 0 or 1; 1 too where it shares one. sharing: how many workers a GPU has. gain: how
    many times as much a shared GPU does, in all, as for one worker alone.
    """

    cpus: int = 1
    gpus: int = 0
    sharing: int = 1
    gain: float = 1.0

    @property
    def slowdown(self) -> float:
        """How many times as long its work takes as where it has the GPU alone: all who share it get an equal part."""
        return self.sharing / self.gain if self.sharing > 1 else 1.0

    @property
    def gpus_occupied(self) -> float:
        """GPU-hours of an hour of it."""
        return self.gpus / self.sharing

    @property
    def in_words(self) -> str:
        """`a GPU`, `1/4 of a GPU`, `1 CPU core`."""
        if self.gpus:
            return f"1/{self.sharing} of a GPU" if self.sharing > 1 else "a GPU"
        return counted(self.cpus, "CPU core")

    def fit_into(self, machine: MeasuredMachine) -> int:
        """How many of them a machine holds, at least one."""
        number = machine.gpus * self.sharing if self.gpus else machine.cpus // self.cpus
        return max(1, number)


def planned_worker(machine: MeasuredMachine, *, cpus: int, gpus: float | None, gain: float | None) -> PlannedWorker:
    """A worker with these cores and GPUs; None: one GPU where the machine that was measured has any.

    As many share a GPU as find room on it, and on its part of the machine's cores. gain: as measured; None: 1, which
    is what taking turns gives. Raises UserError for GPUs where none was measured, and the other way round.
    """
    if gpus is not None and bool(gpus) != bool(machine.gpus):
        raise UserError(
            "gpus_per_worker 0 is for workers without a GPU, and a GPU was measured: hide it from the plan "
            "(CUDA_VISIBLE_DEVICES= bat-dist plan ...)"
            if machine.gpus
            else f"gpus_per_worker {gpus:g} is for a GPU, and none was measured: plan on a machine that has one, or "
            "give --speed FILE, which --save_speed FILE writes there"
        )
    if not machine.gpus:
        return PlannedWorker(cpus)
    if gpus is None or gpus == 1:
        return PlannedWorker(cpus, 1)
    by_cores = max(1, machine.cpus // machine.gpus // cpus)
    return PlannedWorker(cpus, 1, min(int(1 / gpus + 1e-9), by_cores), gain or 1.0)
