"""What Ray and the store cost: trials of a known length through workers, driver and store, against their own time.

    python benchmarks/overhead.py [--trials 60] [--seconds 1.0] [--workers 2]

Each trial sleeps for `seconds` and returns a row of CIFAR's size (50,000 + 10,000 answers and the mask). The time from
the first finished trial to the last is compared with what the trials themselves took.
"""

import argparse
import platform
import tempfile
import time

import numpy as np

from bat_dist.workers.private_ray import prepare_environment

prepare_environment("local")

import ray  # noqa: E402

from bat_dist.storage.files import Folder  # noqa: E402
from bat_dist.storage.rows import Field, RowStore  # noqa: E402
from bat_dist.workers.pool import Done, Resources, run_units  # noqa: E402
from bat_dist.workers.session import ray_session  # noqa: E402

FIELDS = {
    "mask": Field("bool", (50_000,)),
    "train_correct": Field("bool", (50_000,)),
    "test_correct": Field("bool", (10_000,)),
}


def sleeper(seconds: float):
    def work(unit: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(unit)
        row = {name: rng.random(field.shape) < 0.7 for name, field in FIELDS.items()}
        time.sleep(seconds)
        return row

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with ray_session("local"), tempfile.TemporaryDirectory() as place:
        ray.cloudpickle.register_pickle_by_value(__import__("__main__"))
        store = RowStore.open(Folder(place), fields=FIELDS, identity={}, num_rows=args.trials)
        arrivals, writing = [], 0.0
        outcomes = run_units(
            range(args.trials), sleeper, [args.seconds], resources=Resources(), num_workers=args.workers
        )
        for outcome in outcomes:
            assert isinstance(outcome, Done)
            arrivals.append(time.perf_counter())
            store.write(outcome.unit, outcome.row)
            writing += time.perf_counter() - arrivals[-1]
        assert store.status().complete.all()
    waves = args.trials // args.workers - 1  # the first wave's arrival starts the clock
    wall, own = arrivals[-1] - arrivals[args.workers - 1], waves * args.seconds
    print(f"{args.trials} trials of {args.seconds} s on {args.workers} workers, rows of 110,000 answers")
    print(f"their own time {own:.2f} s, measured {wall:.2f} s: overhead {wall / own - 1:.2%}")
    print(f"writing a row: {1000 * writing / args.trials:.1f} ms")
    print(f"Python {platform.python_version()}, Ray {ray.__version__}, {platform.processor() or platform.machine()}")


if __name__ == "__main__":
    main()
