"""What others would do: torchvision's DataLoader, a trial written plainly, and other packages' PGD."""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from bat_dist.data.datasets import Dataset, Split
from bat_dist.models.build import build
from bat_dist.training.recipe import Recipe, learning_rate
from benchmarks.measurement import Unavailable

NUM_WORKERS = 2  # of a DataLoader
PgdOfOthers = Callable[[nn.Module, Tensor, Tensor, float, float, int], Tensor]
"""Adversarial images by (model, images, labels, epsilon, step_size, num_steps)."""


class PlainSplit(torch.utils.data.Dataset):
    """Images one by one, as PIL, through torchvision's transforms: random crop with a padding of 4 and flip."""

    def __init__(self, split: Split, indices: np.ndarray, *, augment: bool):
        self.split, self.indices = split, indices
        size = split.images.shape[1]
        steps = [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([transforms.ToPILImage(), *steps, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        index = self.indices[place]
        image: Any = self.transform(self.split.images[index])
        return image, int(self.split.labels[index])


def plain_loader(split: Split, indices: np.ndarray, *, batch_size: int, augment: bool) -> DataLoader:
    """torchvision's usual form: two worker processes, shuffled if augmented."""
    return DataLoader(PlainSplit(split, indices, augment=augment), batch_size, shuffle=augment, num_workers=NUM_WORKERS)


def plain_trial(dataset: Dataset, arch: str, recipe: Recipe, trial: int) -> float:
    """A leave-out trial in one process with torch's threads, fp32, NCHW; accuracy on the test split in percent."""
    torch.manual_seed(trial)
    order = np.random.default_rng([0, trial]).permutation(len(dataset.train))
    subset = order[: round(0.7 * len(order))]
    model = build(arch, len(dataset.class_names), mean=dataset.spec.mean, std=dataset.spec.std)
    train = plain_loader(dataset.train, subset, batch_size=recipe.batch_size, augment=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    num_steps, step = recipe.epochs * len(train), 0
    for _ in range(recipe.epochs):
        for images, labels in train:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step=step, num_steps=num_steps)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            step += 1
    model.eval()
    plain_accuracy(model, dataset.train)  # a trial asks about all training samples too
    return plain_accuracy(model, dataset.test)


@torch.no_grad()
def plain_accuracy(model: nn.Module, split: Split) -> float:
    """In percent."""
    loader = plain_loader(split, np.arange(len(split)), batch_size=500, augment=False)
    right = [(model(images).argmax(1) == labels).float().sum().item() for images, labels in loader]
    return 100 * sum(right) / len(split)


def pgd_of_torchattacks() -> PgdOfOthers | Unavailable:
    torchattacks = _installed("torchattacks", "torchattacks")
    if isinstance(torchattacks, Unavailable):
        return torchattacks

    def attack(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, step_size: float, num_steps: int) -> Tensor:
        return torchattacks.PGD(model, eps=epsilon, alpha=step_size, steps=num_steps)(x, y)

    return attack


def pgd_of_foolbox() -> PgdOfOthers | Unavailable:
    foolbox = _installed("foolbox", "foolbox")
    if isinstance(foolbox, Unavailable):
        return foolbox

    def attack(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, step_size: float, num_steps: int) -> Tensor:
        asked = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        run = foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=num_steps, random_start=True)
        return run(asked, x, y, epsilons=epsilon)[1]

    return attack


def pgd_of_art() -> PgdOfOthers | Unavailable:
    evasion = _installed("art.attacks.evasion", "adversarial-robustness-toolbox")
    classification = _installed("art.estimators.classification", "adversarial-robustness-toolbox")
    if isinstance(evasion, Unavailable) or isinstance(classification, Unavailable):
        return Unavailable("adversarial-robustness-toolbox is not installed: pip install 'bat-dist[bench]'")

    def attack(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, step_size: float, num_steps: int) -> Tensor:
        asked = classification.PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=model(x[:1]).shape[1],
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        run = evasion.ProjectedGradientDescent(
            asked,
            norm=np.inf,
            eps=epsilon,
            eps_step=step_size,
            max_iter=num_steps,
            num_random_init=1,
            batch_size=len(x),
            verbose=False,
        )
        return torch.from_numpy(run.generate(x.numpy(), y.numpy()))

    return attack


def pyautoattack() -> type[Any] | Unavailable:
    """The class `AutoAttack`."""
    module = _installed("pyautoattack", "pyautoattack")
    return module if isinstance(module, Unavailable) else module.AutoAttack


@functools.cache
def _installed(module: str, package: str) -> Any:
    """The module, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        return Unavailable(f"{package} is not installed ({error}): pip install 'bat-dist[bench]'")
