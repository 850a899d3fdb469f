"""A step of adversarial training: ours, the textbook's, and the network's own passes, which are the limit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bat_dist.attacks.folding import pairs_of
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.pgd import pgd
from bat_dist.attacks.prepared_weights import prepared
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import Loader, dataset_loader
from bat_dist.methods.bat import Bat
from bat_dist.methods.mini_batch import MiniBatch, TrainingAttack
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.table import Method
from bat_dist.models.build import build
from bat_dist.training.precision import autocast, this_hardware
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Precision, Recipe, learning_rate
from bat_dist.training.step import differentiate
from benchmarks.apart import apart
from benchmarks.data import CLASSES, images
from benchmarks.measurement import Context, Quantities, Side, Sides, Unavailable

EPSILON, STEP_SIZE, NUM_STEPS = 8 / 255, 2 / 255, 10
RECIPE = Recipe(epochs=3, batch_size=128, lr=0.1, schedule="one_cycle", nesterov=True)
ATYPICAL = 3  # one of so many samples

Step = Callable[[Tensor, Tensor, float], None]


def best_precision() -> Precision:
    """What `--precision auto` chooses on this machine."""
    return "bf16" if this_hardware().has_bf16 else "fp32"


def network(arch: str, seed: int) -> nn.Module:
    """With the same weights for all sides."""
    torch.manual_seed(seed)
    return build(arch, CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)


def in_channels_last(model: nn.Module) -> nn.Module:
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def textbook(arch: str, seed: int) -> tuple[nn.Module, Step]:
    """fp32, NCHW, a backward pass through all parameters at each step of the attack."""
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


def ours(arch: str, seed: int, method: Method, *, fold_batch_norm: bool = True) -> tuple[nn.Module, Step]:
    """As `train_epoch` does it."""
    model, precision = in_channels_last(network(arch, seed)), best_precision()
    progress = Progress(model, RECIPE)
    attack = TrainingAttack(EPSILON, STEP_SIZE, NUM_STEPS, precision=precision, fold_batch_norm=fold_batch_norm)

    def step(images: Tensor, labels: Tensor, lr: float) -> None:
        model.train()
        keys = image_keys(seed, "step", torch.arange(len(labels)))
        mem = torch.where(torch.arange(len(labels)) % ATYPICAL == 0, 0.5, 0.0)
        batch = MiniBatch(images, labels, network=model, forward=model, attack=attack, keys=keys, mem=mem, checked=True)
        differentiate(method, batch, progress.optimizer, precision)
        progress.optimizer.step(lr)

    return model, step


def own_passes(arch: str, *, weights_in_bf16: bool = False, folded: bool = False) -> Step:
    """The limit: ten passes forward and back to the images with frozen weights, and one that trains; nothing between.

    In channels_last and the best precision.  weights_in_bf16: weights and images are bf16, and nothing is cast; else as
    autocast has it. folded: in the ten passes convolutions have taken over the BatchNorms; weights are rounded once.
    """
    model, precision = in_channels_last(network(arch, 0)), best_precision()
    if weights_in_bf16:
        model, precision = model.to(torch.bfloat16), "fp32"

    def step(images: Tensor, labels: Tensor, lr: float) -> None:
        x = images.to(torch.bfloat16) if weights_in_bf16 else images
        model.eval().requires_grad_(False)
        pairs = pairs_of(model, x) if folded else ()
        with prepared(model, in_bf16=precision == "bf16", pairs=pairs) if folded else nullcontext():
            for _ in range(NUM_STEPS):
                leaf = x.detach().requires_grad_()
                with autocast(x.device, precision):
                    loss = functional.cross_entropy(model(leaf), labels, reduction="sum")
                torch.autograd.grad(loss, leaf)
        model.train().requires_grad_(True)
        with autocast(x.device, precision):
            loss = functional.cross_entropy(model(x), labels)
        model.zero_grad()
        loss.backward()

    return step


@contextmanager
def steps(context: Context, *, arch: str, batch: int, has_textbook: bool = True) -> Iterator[Sides]:
    """A step of each on one batch of training images."""
    torch.set_num_threads(context.cores)
    arch, batch = context.pick(arch, arch, "resnet9-w4"), context.pick(batch, max(4, batch // 8), 4)
    data = images(context, num_train=-(-batch // CLASSES) * CLASSES, num_test=CLASSES)
    with apart(context, our_sides, data, arch, batch, context.cores) as sides:
        if has_textbook:
            sides = {"textbook": step_of(data, batch, textbook(arch, 0)[1]), **sides}
        yield sides


def our_sides(data: Dataset, arch: str, batch: int, cores: int) -> Sides:
    """Our steps, and the limit."""
    torch.set_num_threads(cores)
    side = partial(step_of, data, batch)
    has_bf16 = best_precision() == "bf16"
    no_bf16 = Unavailable("this machine has no bf16 instructions")
    return {
        "PGD-AT": side(ours(arch, 0, PgdAt())[1]),
        "BAT": side(ours(arch, 0, Bat())[1]),
        "PGD-AT, BatchNorm not folded": side(ours(arch, 0, PgdAt(), fold_batch_norm=False)[1]),
        "passes": side(own_passes(arch)),
        "passes, BatchNorm folded": side(own_passes(arch, folded=True)),
        "passes, weights in bf16": side(own_passes(arch, weights_in_bf16=True)) if has_bf16 else no_bf16,
    }


def step_of(data: Dataset, batch: int, step: Step) -> Side:
    """The step on the first training images, without augmentation."""
    x, y, _ = next(iter(dataset_loader("memory", data, "train").eval_epoch(batch_size=batch)))
    return lambda number: step(x, y, 0.01)


resnet18 = partial(steps, arch="resnet18", batch=128)
wide_resnet = partial(steps, arch="wrn28-10", batch=16, has_textbook=False)
resnet9_w16 = partial(steps, arch="resnet9-w16", batch=128)
resnet9_w64 = partial(steps, arch="resnet9-w64", batch=128, has_textbook=False)


@contextmanager
def accuracy(context: Context) -> Iterator[Sides]:
    """A short training by each loop; round n has seed n."""
    torch.set_num_threads(context.cores)
    arch, num_train, num_test = context.pick(
        ("resnet9-w16", 5000, 1000), ("resnet9-w8", 1000, 200), ("tinynet", 128, 20)
    )
    data = images(context, num_train, num_test)
    loader = dataset_loader("memory", data, "train")

    def side(made: Callable[[int], tuple[nn.Module, Step]], number: int) -> Quantities:
        model, step = made(number)
        epochs = context.pick(RECIPE.epochs, 2, 1)
        return {"accuracy": robust_accuracy(trained(model, step, data, loader, seed=number, epochs=epochs), data)}

    yield {
        "textbook": partial(side, lambda seed: textbook(arch, seed)),
        "PGD-AT": partial(side, lambda seed: ours(arch, seed, PgdAt())),
    }


def trained(model: nn.Module, step: Step, data: Dataset, loader: Loader, *, seed: int, epochs: int) -> nn.Module:
    """The model after so many epochs."""
    generator = torch.Generator().manual_seed(seed)
    everyone, number = np.arange(len(data.train)), 0
    num_steps = epochs * (len(everyone) // RECIPE.batch_size)
    for _ in range(epochs):
        batches = loader.train_epoch(everyone, batch_size=RECIPE.batch_size, generator=generator, drop_last=True)
        for x, y, _ in batches:
            step(x, y, learning_rate(RECIPE, step=number, num_steps=num_steps))
            number += 1
    return model


def robust_accuracy(model: nn.Module, data: Dataset) -> float:
    """Percent of the test images that are classified right after PGD-20 in fp32."""
    x = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float() / 255
    y = torch.from_numpy(data.test.labels)
    right, generator = 0, torch.Generator().manual_seed(0)
    model.eval()
    for some, labels in zip(x.split(250), y.split(250), strict=True):
        found = pgd(model, some, labels, epsilon=EPSILON, step_size=STEP_SIZE, num_steps=20, generator=generator)
        with torch.no_grad():
            right += int((model(found).argmax(1) == labels).sum())
    return 100 * right / len(y)
