"""Steps of PGD-AT and BAT of ours against the textbook loop, interleaved in one run.

    python benchmarks/adversarial_speed.py --data_dir cifar10-images.zip [--arch resnet18] [--batch 128] [--rounds 5]
    python benchmarks/adversarial_speed.py --data_dir cifar10-images.zip --accuracy --arch resnet9-w16 [--seeds 3]

Textbook: fp32, images in NCHW, an attack that calls `loss.backward()` and so computes the gradient of every parameter
at each of its steps. Ours: bf16, channels_last, parameters frozen during the attack. Both: 10 steps of 2/255 in a ball
of 8/255 from a uniform start, the same network, optimizer and batch. A round times one step of each, in turn; the first
round is not counted. With --accuracy both train for a few epochs, several seeds, and PGD-20 (fp32) judges them.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.pgd import pgd
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import Loader, dataset_loader
from bat_dist.methods.bat import Bat
from bat_dist.methods.mini_batch import MiniBatch, TrainingAttack
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.table import Method
from bat_dist.models.build import build
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Recipe, learning_rate
from bat_dist.training.step import differentiate

EPSILON, STEP_SIZE, NUM_STEPS = 8 / 255, 2 / 255, 10
ATTACK = TrainingAttack(EPSILON, STEP_SIZE, NUM_STEPS, precision="bf16")
RECIPE = Recipe(epochs=4, batch_size=128, lr=0.1, schedule="one_cycle", nesterov=True)

Step = Callable[[Tensor, Tensor, float], None]


def network(arch: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build(arch, 10, mean=(0.5,) * 3, std=(0.25,) * 3)


def textbook(arch: str, seed: int) -> tuple[nn.Module, Step]:
    model = network(arch, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def step(images: Tensor, labels: Tensor, lr: float) -> None:
        images = images.contiguous()
        model.eval()
        x_adv = (images + torch.empty_like(images).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
        for _ in range(NUM_STEPS):
            x_adv.requires_grad_()
            functional.cross_entropy(model(x_adv), labels).backward()
            assert x_adv.grad is not None
            moved = x_adv.detach() + STEP_SIZE * x_adv.grad.sign()
            x_adv = (images + (moved - images).clamp(-EPSILON, EPSILON)).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        functional.cross_entropy(model(x_adv), labels).backward()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()

    return model, step


def ours(arch: str, seed: int, method: Method) -> tuple[nn.Module, Step]:
    model = network(arch, seed).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    progress = Progress(model, RECIPE)

    def step(images: Tensor, labels: Tensor, lr: float) -> None:
        model.train()
        keys = image_keys(seed, "step", torch.arange(len(labels)))
        mem = torch.where(torch.arange(len(labels)) % 3 == 0, 0.5, 0.0)  # a third is atypical
        batch = MiniBatch(images, labels, network=model, forward=model, attack=ATTACK, keys=keys, mem=mem)
        differentiate(method, batch, progress.optimizer, "bf16")
        progress.optimizer.step(lr)

    return model, step


def speed(arch: str, batch: int, rounds: int, loader: Loader) -> None:
    images, labels, _ = next(iter(loader.eval_epoch(batch_size=batch)))
    steps = {
        "textbook": textbook(arch, 0)[1],
        "PGD-AT": ours(arch, 0, PgdAt())[1],
        "BAT": ours(arch, 0, Bat())[1],
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step(images, labels, 0.01)
            if number:
                seconds[name].append(time.perf_counter() - start)
        if number:
            print(f"round {number}: " + ", ".join(f"{name} {s[-1]:.2f} s" for name, s in seconds.items()), flush=True)
    plain, at, bat = (np.array(seconds[name]) for name in steps)
    print(f"{arch}, batch {batch}, {NUM_STEPS} attack steps, {len(os.sched_getaffinity(0))} cores")
    for name, ratio in (("PGD-AT", plain / at), ("BAT", plain / bat)):
        print(f"{name}: x{np.median(ratio):.2f} as fast as the textbook (x{ratio.min():.2f} to x{ratio.max():.2f})")
    extra = 100 * (bat / at - 1)
    print(f"BAT over PGD-AT: {np.median(extra):+.1f}% ({extra.min():+.1f}% to {extra.max():+.1f}%)")


def accuracy(arch: str, seeds: int, dataset: Dataset, loader: Loader) -> None:
    found: dict[str, list[float]] = {"textbook": [], "PGD-AT": []}
    for seed in range(seeds):
        for name, (model, step) in (("textbook", textbook(arch, seed)), ("PGD-AT", ours(arch, seed, PgdAt()))):
            found[name].append(robust_accuracy(trained(model, step, dataset, loader, seed), dataset))
            print(f"seed {seed}: {name} {found[name][-1]:.3f}", flush=True)
    print(
        f"{arch}, {RECIPE.epochs} epochs of {len(dataset.train)} images; accuracy under PGD-20 on {len(dataset.test)}:"
    )
    for name, values in found.items():
        print(f"{name}: {np.mean(values):.3f} +- {np.std(values, ddof=1):.3f} (sd of {seeds} seeds)")


def trained(model: nn.Module, step: Step, dataset: Dataset, loader: Loader, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    everyone, number = np.arange(len(dataset.train)), 0
    per_epoch = len(everyone) // RECIPE.batch_size
    for _ in range(RECIPE.epochs):
        batches = loader.train_epoch(everyone, batch_size=RECIPE.batch_size, generator=generator, drop_last=True)
        for images, labels, _ in batches:
            step(images, labels, learning_rate(RECIPE, step=number, num_steps=RECIPE.epochs * per_epoch))
            number += 1
    return model


def robust_accuracy(model: nn.Module, dataset: Dataset) -> float:
    images = torch.from_numpy(dataset.test.images).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(dataset.test.labels)
    right, generator = 0, torch.Generator().manual_seed(0)
    model.eval()
    for x, y in zip(images.split(250), labels.split(250), strict=True):
        x_adv = pgd(model, x, y, epsilon=EPSILON, step_size=STEP_SIZE, num_steps=20, generator=generator)
        with torch.no_grad():
            right += (model(x_adv).argmax(1) == y).sum().item()
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="images as for --dataset image_folder")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    dataset = load_dataset("image_folder", data_dir=Path(args.data_dir), num_train=5000, num_test=1000)
    loader = dataset_loader("memory", dataset.augmented(4, True), "train")
    if args.accuracy:
        accuracy(args.arch, args.seeds, dataset, loader)
    else:
        speed(args.arch, args.batch, args.rounds, loader)


if __name__ == "__main__":
    main()
