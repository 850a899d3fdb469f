"""What Ray, the pool of workers and the store cost: trials that sleep, on many simulated slots."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import ray

from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.workers.pool import run_units
from bat_dist.workers.resources import Resources
from bat_dist.workers.session import ray_session
from bat_dist.workers.units import Done
from benchmarks.measurement import Context, Quantities, Sides, Unavailable

SAMPLES = 5000
ROW = ("mask", "train_correct")
WORKER_BYTES = 150 * 2**20  # of a worker that has not loaded torch: an estimate with room to spare


def sleeper(meeting: str, slots: int, seconds: float) -> Callable[[object], dict[str, np.ndarray]]:
    """The function of a unit: its first in a process waits until all slots have one, the others sleep."""

    def work(unit: object) -> dict[str, np.ndarray]:
        if isinstance(unit, str):
            folder = Path(meeting)
            (folder / unit).touch()
            while sum(1 for _ in folder.iterdir()) < slots:
                time.sleep(0.05)
            return {}
        assert isinstance(unit, int)
        rng = np.random.default_rng(unit)
        row = {name: rng.random(SAMPLES) < 0.7 for name in ROW}
        time.sleep(seconds)
        return row

    return work


@contextmanager
def slots(context: Context) -> Iterator[Sides]:
    """One side; each round has as many waves of trials as the size says.

    busy: percent of the slots' time in which trials slept, from the moment at which all slots were there to the last
    row. driver: milliseconds of this process's time per trial, with writing the row. grown: MB that this process's
    memory grew from the first tenth of the trials to the last.
    """
    num_slots, num_trials, seconds = context.pick((64, 1024, 2.0), (16, 64, 0.5), (2, 8, 0.05))
    needed, free = num_slots * WORKER_BYTES, psutil.virtual_memory().available
    if needed > free:
        gib = f"{needed / 2**30:.0f} GiB for {num_slots} workers, and {free / 2**30:.0f} are free"
        yield {"engine": Unavailable(f"it needs about {gib}")}
        return
    with ray_session("local", num_cpus=num_slots):
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # pyright: ignore[reportAttributeAccessIssue]
        yield {"engine": lambda number: run(num_slots, num_trials, seconds)}


def run(num_slots: int, num_trials: int, seconds: float) -> Quantities:
    """All trials once, on new workers."""
    process, memory = psutil.Process(), list[int]()
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as meeting:
        fields = {name: Field("bool", (SAMPLES,)) for name in ROW}
        store = RowStore.open(Folder(place), fields=fields, identity={}, num_rows=num_trials)
        units = chain((f"slot {number}" for number in range(num_slots)), range(num_trials))
        outcomes = run_units(
            units, sleeper, [meeting, num_slots, seconds], resources=Resources(), num_workers=num_slots
        )
        start = cpu = end = 0.0
        met = 0
        for outcome in outcomes:
            assert isinstance(outcome, Done), outcome
            if isinstance(outcome.unit, str):
                if not met:
                    start, cpu = time.perf_counter(), time.process_time()
                met += 1
                continue
            store.write(outcome.unit, outcome.row)
            end = time.perf_counter()
            memory.append(process.memory_info().rss)
        cpu = time.process_time() - cpu
        assert store.status().complete.all()
    return {
        "seconds": end - start,
        "busy": 100 * num_trials * seconds / (num_slots * (end - start)),
        "driver": 1000 * cpu / num_trials,
        "grown": (memory[-1] - memory[len(memory) // 10]) / 1e6,
    }
