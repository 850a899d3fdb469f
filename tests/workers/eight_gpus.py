"""A node with GPUs in name only, of which each worker takes a quarter.  Prints what it saw as JSON.

python eight_gpus.py FOLDER
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from bat_dist.workers.private_ray import START_SECONDS

if __name__ == "__main__":  # and not in the test, which imports the names of this module
    os.environ |= START_SECONDS
    os.environ |= {"RAY_prestart_worker_first_driver": "0"}  # workers have a hook of their own, which those have not
    os.environ.pop("RAY_OVERRIDE_RESOURCES", None)  # of the tests on one core, for nodes of two CPUs

import ray

from bat_dist.workers.pool import WorkersCannotStart, run_units
from bat_dist.workers.resources import Resources
from bat_dist.workers.session import start_in_time
from bat_dist.workers.units import Done
from tests.helpers.gpu_errors import BROKEN, FULL
from tests.helpers.waiting import PATIENCE

TOTAL = 80 * 2**30  # bytes of each GPU
WORKERS, UNITS = 8, 24


def pretend_torch() -> None:
    """What a worker calls of torch, without a GPU; the limit of its allocator is noted in `guarded`."""
    folder = os.environ["SEEN"]

    def limit(part: float, device: int) -> None:
        seen = {"part": part, "device": device, "gpu": os.environ["CUDA_VISIBLE_DEVICES"], "pid": os.getpid()}
        (Path(folder) / str(os.getpid())).write_text(json.dumps(seen))
        (Path(folder) / str(os.getpid())).rename(Path(folder) / "guarded" / str(os.getpid()))  # whole, or not there

    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        is_available=lambda: True,
        is_initialized=lambda: True,
        synchronize=lambda: None,
        max_memory_allocated=lambda: 0,
        get_device_properties=lambda device: SimpleNamespace(total_memory=TOTAL),
        set_per_process_memory_fraction=limit,
    )
    torch.set_num_threads = lambda threads: None  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["torch"] = torch


def raised(kind: str, message: str) -> Exception:
    """An error of that class: torch's are known by their name and module."""
    own = {"RuntimeError": RuntimeError}
    return (own.get(kind) or type(kind, (RuntimeError,), {"__module__": "torch"}))(message)


def full_at_first(folder: str) -> Callable[[int], dict[str, Any]]:
    """Each of the first units finds its GPU full once, for another reason; the last one always."""
    place = Path(folder)

    def work(unit: int) -> dict[str, Any]:
        assert (place / "guarded" / str(os.getpid())).exists()  # before anything could be allocated
        (place / "at_work" / str(os.getpid())).touch()
        end = time.time() + PATIENCE
        while len([*(place / "at_work").iterdir()]) < WORKERS and time.time() < end:  # until all have begun
            time.sleep(0.05)
        marker = place / f"full-{unit}"
        if unit == UNITS - 1 or (unit < len(FULL) and not marker.exists()):
            marker.touch()
            raise raised(*(FULL[2] if unit == UNITS - 1 else FULL[unit]))
        return {"pid": os.getpid()}

    return work


def first_gpu_is_broken(folder: str) -> Callable[[int], dict[str, Any]]:
    """Whoever gets GPU 0 finds that it does not work; the others wait until six have."""
    place = Path(folder) / "broken"

    def work(unit: int) -> dict[str, Any]:
        if os.environ["CUDA_VISIBLE_DEVICES"] == "0":
            (place / str(os.getpid())).touch()
            raise raised(*BROKEN[unit % 2])
        end = time.time() + PATIENCE
        while len([*place.iterdir()]) < 6 and time.time() < end:
            time.sleep(0.05)
        return {}

    return work


def all_are_broken(folder: str) -> Callable[[int], dict[str, Any]]:
    """No GPU works."""

    def work(unit: int) -> dict[str, Any]:
        raise raised(*BROKEN[unit % 2])

    return work


@dataclass
class Seen:
    done: list[int]
    reasons: list[str]  # of all attempts that failed
    given_up: dict[int, tuple[str, int]]  # reason and attempts by unit
    warnings: list[str]
    guarded: list[dict[str, Any]]  # by worker, in the order of their starts
    end: str  # why the run could not go on, if it could not


@contextmanager
def node(num_gpus: int, folder: Path) -> Iterator[None]:
    """A private Ray with that many GPUs in name."""
    hook = {"worker_process_setup_hook": pretend_torch, "env_vars": {"SEEN": str(folder)}}
    what: dict[str, Any] = {"num_cpus": WORKERS, "num_gpus": num_gpus, "runtime_env": hook}
    what |= {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    start_in_time(lambda: ray.init(address="local", **what))
    try:
        yield
    finally:
        ray.shutdown()


def run(num_gpus: int, folder: Path, *builds: Callable[[str], Callable[[int], dict[str, Any]]]) -> list[Seen]:
    """What was seen of each run, one after the other on one node."""
    for name in ("guarded", "at_work", "broken"):
        (folder / name).mkdir(parents=True)
    with node(num_gpus, folder):
        return [run_one(build, folder) for build in builds]


def run_one(build: Callable[[str], Callable[[int], dict[str, Any]]], folder: Path) -> Seen:
    warnings: list[str] = []
    handler = logging.Handler()
    handler.addFilter(lambda entry: bool(warnings.append(entry.getMessage())))  # and nothing is left to be emitted
    logging.getLogger("bat_dist").addHandler(handler)
    outcomes, end = list[Any](), ""
    try:
        outcomes += run_units(range(UNITS), build, (str(folder),), resources=Resources(1, 0.25))
    except WorkersCannotStart as error:
        end = str(error)
    logging.getLogger("bat_dist").removeHandler(handler)
    failures = [record["reason"] for outcome in outcomes for record in outcome.records if record["event"] == "failed"]
    given_up = {o.unit: (o.reason, o.attempts) for o in outcomes if not isinstance(o, Done)}
    done = sorted(outcome.unit for outcome in outcomes if isinstance(outcome, Done))
    files = sorted((folder / "guarded").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    guarded = [json.loads(file.read_text()) for file in files]
    for file in files:
        file.unlink()
    return Seen(done, failures, given_up, warnings, guarded, end)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    seen = [*run(8, place / "full", full_at_first), *run(2, place / "broken", first_gpu_is_broken, all_are_broken)]
    print(json.dumps({name: asdict(one) for name, one in zip(("full", "broken", "all broken"), seen, strict=True)}))
