"""A leave-out trial of ours against the same recipe written plainly, interleaved in one run.

    python benchmarks/trial_speed.py --data_dir cifar10-images.zip [--arch resnet9-w32] [--epochs 8] [--rounds 3]

Plain: one process with all cores as torch threads, fp32, torchvision's transforms and DataLoader in its usual form
(two worker processes), the same network, subset, optimizer and schedule. Ours: as many single-thread processes as
cores, each running whole trials (bf16, channels_last, data in memory). A round times one plain trial and one trial per
process of ours; what counts is seconds per trial. Start-up is left out on both sides.
"""

import argparse
import dataclasses
import multiprocessing
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms

from bat_dist.data.datasets import Dataset, Split, load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.models.build import build
from bat_dist.training.recipe import RECIPES, Recipe, learning_rate
from bat_dist.training.trial import TrialSettings, run_trial

CPU = torch.device("cpu")


class PlainSplit(torch.utils.data.Dataset):
    """Images one by one, as PIL, through torchvision's transforms."""

    def __init__(self, split: Split, indices: np.ndarray, *, augment: bool):
        self.split, self.indices = split, indices
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([transforms.ToPILImage(), *steps, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        index = self.indices[place]
        return self.transform(self.split.images[index]), int(self.split.labels[index])


def plain_trial(dataset: Dataset, arch: str, recipe: Recipe, trial: int) -> float:
    """Accuracy on the test split."""
    torch.manual_seed(trial)
    order = np.random.default_rng([0, trial]).permutation(len(dataset.train))
    subset = order[: round(0.7 * len(order))]
    model = build(arch, len(dataset.class_names), mean=dataset.spec.mean, std=dataset.spec.std)
    train = DataLoader(
        PlainSplit(dataset.train, subset, augment=True), recipe.batch_size, shuffle=True, num_workers=2, drop_last=False
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    num_steps, step = recipe.epochs * len(train), 0
    for _ in range(recipe.epochs):
        for images, labels in train:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step=step, num_steps=num_steps)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            step += 1
    model.eval()
    plain_accuracy(model, dataset.train)
    return plain_accuracy(model, dataset.test)


@torch.no_grad()
def plain_accuracy(model: torch.nn.Module, split: Split) -> float:
    loader = DataLoader(PlainSplit(split, np.arange(len(split)), augment=False), 500, num_workers=2)
    right = [(model(images).argmax(1) == labels).float().sum().item() for images, labels in loader]
    return sum(right) / len(split)


_WORK = {}


def set_up(dataset: Dataset, arch: str, recipe: Recipe) -> None:
    torch.set_num_threads(1)
    loaders = {
        f"{name}_loader": dataset_loader("memory", dataset.augmented(4, True), name) for name in ("train", "test")
    }
    settings = TrialSettings(arch, recipe, "bf16", 0.7, "uniform", 0)
    _WORK.update(settings=settings, dataset=dataset, device=CPU, **loaders)


def our_trial(trial: int) -> float:
    return float(run_trial(trial, **_WORK)["test_correct"].mean())


def ready(_: int) -> None:
    time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="images as for --dataset image_folder")
    parser.add_argument("--arch", default="resnet9-w32")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    dataset = load_dataset("image_folder", data_dir=Path(args.data_dir), num_train=5000, num_test=1000)
    recipe = dataclasses.replace(RECIPES["fast"], epochs=args.epochs)
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    plain, ours, plain_right, our_right = [], [], [], []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        cores, mp_context=spawn, initializer=set_up, initargs=(dataset, args.arch, recipe)
    ) as pool:
        list(pool.map(ready, range(cores)))
        for number in range(args.rounds):
            start = time.perf_counter()
            plain_right.append(plain_trial(dataset, args.arch, recipe, number))
            plain.append(time.perf_counter() - start)
            start = time.perf_counter()
            our_right += pool.map(our_trial, range(cores * number, cores * number + cores))
            ours.append((time.perf_counter() - start) / cores)
            ratio = plain[-1] / ours[-1]
            print(f"round {number}: plain {plain[-1]:.1f} s, ours {ours[-1]:.1f} s a trial: x{ratio:.2f}", flush=True)
    ratios = np.array(plain) / np.array(ours)
    print(f"{args.arch}, {args.epochs} epochs of 3,500 images, {cores} cores, {platform.processor() or 'x86-64'}")
    print(f"torch {torch.__version__}: x{np.median(ratios):.2f} (x{ratios.min():.2f} to x{ratios.max():.2f})")
    for name, right in (("plain", plain_right), ("ours", our_right)):
        print(f"test accuracy {name}: {np.mean(right):.3f} +- {np.std(right, ddof=1):.3f} (sd of {len(right)} trials)")


if __name__ == "__main__":
    main()
