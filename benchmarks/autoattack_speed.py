"""AutoAttack standard on the same network, images and cores: plain pyautoattack against `bat-dist evaluate`.

    python benchmarks/autoattack_speed.py --checkpoint RUN_FOLDER --data_dir cifar10-images.zip
        [--images 100] [--rounds 3] [--cores 2] [--epsilon 8] [--batch_size 64] [--skip "one worker"]

In turn, --rounds times, on --images test images spread over all: pyautoattack in this process with a thread per core;
ours with a single-thread worker per core; ours with one such worker. Wall clock; for ours from the call to the flags in
an open Ray session, the start of the workers included. Every attack has its full budget in all three.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pyautoattack import AutoAttack

from bat_dist.artifacts.checkpoints import load_model
from bat_dist.data.datasets import Dataset, Split, load_dataset
from bat_dist.evaluation.result import ResultRow
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.evaluate import evaluate
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.storage.files import Folder
from bat_dist.workers.session import ray_session


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--dataset", default="image_folder")
    parser.add_argument("--num_train", type=int, default=5000)
    parser.add_argument("--num_test", type=int, default=1000)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--epsilon", type=float, default=8, help="of 255")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument(
        "--skip", choices=["pyautoattack", "one worker"], help="one of the two that ours is held against"
    )
    return parser.parse_args()


def some(dataset: Dataset, count: int) -> Dataset:
    """With `count` test images, evenly over all."""
    test, at = dataset.test, np.linspace(0, len(dataset.test) - 1, count).astype(int)
    few = Split(test.images[at], test.labels[at], test.ids[at])
    return Dataset(dataset.name, dataset.train, few, dataset.class_names, dataset.fingerprint, dataset.spec)


def theirs(dataset: Dataset, args: argparse.Namespace) -> np.ndarray:
    torch.set_num_threads(args.cores)
    x = torch.from_numpy(dataset.test.images).permute(0, 3, 1, 2).float().div(255).contiguous()
    y, model = torch.from_numpy(dataset.test.labels), load_model(args.checkpoint)
    rival = AutoAttack(model, eps=args.epsilon / 255, seed=0, version="standard")
    x_adv, _ = rival.run_standard_evaluation(x, y, batch_size=len(x))
    with torch.no_grad():
        return (model(x_adv).argmax(1) == y).numpy()


def ours(dataset: Dataset, args: argparse.Namespace, workers: int) -> ResultRow:
    with tempfile.TemporaryDirectory() as out:
        settings = EvaluateSettings(
            dataset=dataset.name,
            out=out,
            checkpoint=args.checkpoint,
            attacks=("autoattack",),
            epsilon=args.epsilon / 255,
            batch_size=args.batch_size,
            num_workers=workers,
            check_images=0,
        )
        return evaluate(Folder(out), dataset, settings, load_subject(dataset, settings)).rows[-1]


def main() -> None:
    args = options()
    dataset = load_dataset(args.dataset, data_dir=args.data_dir, num_train=args.num_train, num_test=args.num_test)
    dataset = some(dataset, args.images)
    runs = {
        "pyautoattack": lambda: theirs(dataset, args),
        "all cores": lambda: ours(dataset, args, args.cores).robust,
        "one worker": lambda: ours(dataset, args, 1).robust,
    }
    runs = {name: run for name, run in runs.items() if name != args.skip}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with ray_session("local", num_cpus=args.cores):
        for number in range(args.rounds):
            robust = {}
            for name, run in runs.items():
                start = time.perf_counter()
                robust[name] = run()
                seconds[name].append(time.perf_counter() - start)
            equal = np.mean([flags == robust["all cores"] for flags in robust.values()])
            last = {name: f"{values[-1]:.1f} s" for name, values in seconds.items()}
            print(f"round {number}: {last}, {robust['all cores'].sum()} robust, {equal:.1%} of flags equal", flush=True)
    for base in [name for name in runs if name != "all cores"]:
        ratios = sorted(b / a for a, b in zip(seconds["all cores"], seconds[base], strict=True))
        print(f"all cores: {median(ratios):.2f} times as fast as {base} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
