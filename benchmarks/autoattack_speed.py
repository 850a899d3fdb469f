"""AutoAttack standard: ours against plain pyautoattack, interleaved in one process, one thread.

    python benchmarks/autoattack_speed.py --checkpoint RUN_FOLDER --data_dir cifar10-images.zip [--images 64]
        [--chunk 32] [--epsilon 8] [--seed 0] [--attacks apgd-ce apgd-t fab-t square] [--plain_model]

Both attack the first images of the test split, a chunk at a time, in turn; each chunk is one batch of either. Ours
attacks `folding.faster` of the model (unless --plain_model), and the model itself confirms what falls. The times are of
the processor: other programs on the machine disturb them little. Every attack keeps its full budget.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from bat_dist.attacks.autoattack import STANDARD, autoattack
from bat_dist.attacks.folding import faster
from bat_dist.data.datasets import load_dataset
from bat_dist.storage.checkpoints import load_model

Flags = Tensor


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--dataset", default="image_folder")
    parser.add_argument("--num_train", type=int, default=5000)
    parser.add_argument("--num_test", type=int, default=1000)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--epsilon", type=float, default=8, help="of 255")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attacks", nargs="+", choices=list(STANDARD), default=list(STANDARD))
    parser.add_argument("--plain_model", action="store_true")
    return parser.parse_args()


def images(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    split = load_dataset(args.dataset, data_dir=args.data_dir, num_train=args.num_train, num_test=args.num_test).test
    x = torch.from_numpy(split.images[: args.images]).permute(0, 3, 1, 2).float() / 255
    return x.contiguous(), torch.from_numpy(split.labels[: args.images])


def theirs(model: nn.Module, x: Tensor, y: Tensor, args: argparse.Namespace) -> Flags:
    rival = AutoAttack(model, eps=args.epsilon / 255, seed=args.seed, version="standard")
    rival.attacks_to_run = args.attacks
    x_adv, _ = rival.run_standard_evaluation(x, y, batch_size=len(x))
    with torch.no_grad():
        return model(x_adv).argmax(1) == y


def ours(model: nn.Module, x: Tensor, y: Tensor, ids: Tensor, args: argparse.Namespace) -> Flags:
    fast = model if args.plain_model else faster(model, x[:4])
    attacks = {name: STANDARD[name] for name in args.attacks}
    settings: dict[str, Any] = {"epsilon": args.epsilon / 255, "seed": args.seed, "ids": ids, "attacks": attacks}
    x = x.contiguous(memory_format=torch.channels_last)
    x_adv = autoattack(fast, x, y, **settings, batch_size=len(x)).x_adv
    with torch.no_grad():
        return model(x_adv).argmax(1) == y


def timed(work: Callable[[], Flags]) -> tuple[float, Flags]:
    start = time.process_time()
    flags = work()
    return time.process_time() - start, flags


def main() -> None:
    args = options()
    torch.set_num_threads(1)
    model, (x, y) = load_model(args.checkpoint).eval(), images(args)
    seconds, flags = {"pyautoattack": 0.0, "ours": 0.0}, {"pyautoattack": [], "ours": []}
    for rows in torch.arange(len(x)).split(args.chunk):
        part = x[rows], y[rows]
        for name, work in (
            ("pyautoattack", lambda part=part: theirs(model, *part, args)),
            ("ours", lambda part=part, rows=rows: ours(model, *part, rows, args)),
        ):
            spent, robust = timed(work)
            seconds[name] += spent
            flags[name].append(robust)
        done = {name: f"{seconds[name]:.1f} s, {torch.cat(flags[name]).sum()} robust" for name in seconds}
        print(f"{rows[-1] + 1} images:", done, flush=True)
    rival, own = (torch.cat(flags[name]) for name in seconds)
    print(f"robust accuracy: pyautoattack {rival.float().mean():.2%}, ours {own.float().mean():.2%}")
    print(f"equal flags: {(rival == own).sum()} of {len(own)}")
    print(f"ours is {seconds['pyautoattack'] / seconds['ours']:.2f} times as fast")


if __name__ == "__main__":
    main()
