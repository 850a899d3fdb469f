"""AutoAttack standard by plain pyautoattack in one process, against the flags of `bat-dist evaluate`.

    python benchmarks/autoattack_agreement.py --checkpoint RUN_FOLDER --data_dir cifar10-images.zip
        --evaluation EVALUATION_FOLDER --out pyautoattack.npz [--batch_size 100] [--threads 1] [--seed 0]

Both see the same network, test images and epsilon. pyautoattack gets the network as it is and a batch of images at a
time; the file --out keeps what is done, so that the same command resumes. At the end: both accuracies, and on how many
images they agree.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from pyautoattack import AutoAttack

from bat_dist.artifacts.checkpoints import load_model
from bat_dist.data.datasets import load_dataset
from bat_dist.evaluation.statistics import mcnemar


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--which", default="best")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--dataset", default="image_folder")
    parser.add_argument("--num_train", type=int, default=5000)
    parser.add_argument("--num_test", type=int, default=1000)
    parser.add_argument("--evaluation", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epsilon", type=float, default=8, help="of 255")
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = options()
    torch.set_num_threads(args.threads)
    dataset = load_dataset(args.dataset, data_dir=args.data_dir, num_train=args.num_train, num_test=args.num_test)
    x = torch.from_numpy(dataset.test.images).permute(0, 3, 1, 2).float().div(255).contiguous()
    y, model = torch.from_numpy(dataset.test.labels), load_model(args.checkpoint, args.which)
    robust, seconds = np.zeros(0, bool), 0.0
    if args.out.exists():
        with np.load(args.out) as kept:
            robust, seconds = kept["robust"], float(kept["seconds"])
    while len(robust) < len(x):
        rows = slice(len(robust), len(robust) + args.batch_size)
        start = time.process_time()
        rival = AutoAttack(model, eps=args.epsilon / 255, seed=args.seed, version="standard")
        x_adv, _ = rival.run_standard_evaluation(x[rows], y[rows], batch_size=args.batch_size)
        with torch.no_grad():
            found = (model(x_adv).argmax(1) == y[rows]).numpy()
        seconds += time.process_time() - start
        robust = np.concatenate([robust, found])
        np.savez(args.out, robust=robust, seconds=seconds)
        print(f"{len(robust)} images, {robust.sum()} robust, {seconds:.0f} s of processor time", flush=True)
    print(f"pyautoattack: robust accuracy {robust.mean():.2%} of {len(robust)} images, {seconds:.0f} s")
    if args.evaluation:
        with np.load(args.evaluation / "flags.npz") as file:
            ours = file["flags"][file["attacks"].tolist().index("autoattack")]
        print(f"bat-dist:     robust accuracy {ours.mean():.2%}; equal flags: {(ours == robust).mean():.2%}")
        print(f"only bat-dist's robust: {np.flatnonzero(ours & ~robust).tolist()}, ", end="")
        print(f"only pyautoattack's: {np.flatnonzero(robust & ~ours).tolist()}; {mcnemar(ours, robust)}")


if __name__ == "__main__":
    main()
