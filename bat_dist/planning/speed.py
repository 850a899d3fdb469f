"""How fast this device is: a few timed batches of each piece of work, on random images.

The pieces are timed inside the loops that do the work (`fit`, `train_epoch`, `predicted_probabilities`), by the loader
that they ask for batches: see `stopwatch`. Images are random, for shapes decide the time.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from bat_dist.attacks.folding import faster
from bat_dist.attacks.numerics import numerics
from bat_dist.attacks.pgd import pgd
from bat_dist.data.datasets import Dataset, Split
from bat_dist.data.loaders import Loader, dataset_loader
from bat_dist.data.table import DatasetSpec
from bat_dist.errors import UserError, is_gpu_full
from bat_dist.methods.erm import Erm
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.models.own import OwnNetwork
from bat_dist.planning.stopwatch import rate_of
from bat_dist.planning.timed_operations import Piece, Rate, Speed
from bat_dist.storage.provenance import cpu_name
from bat_dist.training.correctness import predicted_probabilities
from bat_dist.training.epoch import StepSettings, train_epoch
from bat_dist.training.freed_memory import keep_freed_memory
from bat_dist.training.loop import fit
from bat_dist.training.precision import default_device
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Precision, Recipe
from bat_dist.training.seeding import seeded_model
from bat_dist.training.threads import torch_threads
from bat_dist.training.trial import EVAL_BATCH_SIZE
from bat_dist.training.world import THIS_PROCESS

log = logging.getLogger(__name__)

EXACT_STEPS = 10  # in a timed batch of attack steps, so that start and end weigh little
SHARES = {Piece.PGD_STEP: 3}  # of the time: it is the longest, and most of most plans
EPOCH_OF_CPU, EPOCH_OF_GPU = 2, 8  # full batches, of the largest kind; what is timed together is of one epoch
FOREVER = 10**6  # epochs
EXACT = (Piece.EXACT_FORWARD, Piece.EXACT_STEP)


@dataclass(frozen=True)
class Workload:
    """What is timed.

    spec: with the actual number of classes and image size. recipe, num_steps: how networks are trained, and in how many
    steps PGD attacks them. attacked_at_once: images of a batch in an evaluation. trial_arch, trial_precision: of the
    trials; None: as of the trainings.
    """

    arch: str | OwnNetwork
    spec: DatasetSpec
    trial_recipe: Recipe
    recipe: Recipe
    num_steps: int
    precision: Precision
    attacked_at_once: int
    trial_arch: str | OwnNetwork | None = None
    trial_precision: Precision | None = None

    @property
    def has_trials_apart(self) -> bool:
        """Do trials have another network than the trainings, or another precision?"""
        return self.trial_arch is not None or self.trial_precision is not None

    def of(self, piece: Piece) -> tuple[str | OwnNetwork, Precision]:
        """The network that does the piece's work, and its precision."""
        if piece in (Piece.TRIAL_STEP, Piece.TRIAL_FORWARD):
            return self.trial_arch or self.arch, self.trial_precision or self.precision
        return self.arch, self.precision

    def batch_size(self, piece: Piece) -> int:
        """How many images a batch has in the work that the piece belongs to."""
        sizes = {Piece.TRIAL_STEP: self.trial_recipe.batch_size}
        sizes |= dict.fromkeys((Piece.FORWARD, Piece.TRIAL_FORWARD), EVAL_BATCH_SIZE)
        sizes |= {Piece.PLAIN_STEP: self.recipe.batch_size, Piece.PGD_STEP: self.recipe.batch_size}
        return sizes.get(piece, self.attacked_at_once)


def measure(subject: Workload, pieces: Sequence[Piece], *, seconds: float, threads: int) -> Speed:
    """Time the pieces on the GPU, or on the CPU with that many threads, in about `seconds` of wall-clock all together.

    Where full batches would take too long, smaller ones are timed; each `Rate` says how large they were. It takes
    longer than asked where three batches of two images do. Raises UserError if a batch does not fit into memory, but
    for those of an evaluation, which would halve it.
    """
    device = default_device()
    is_gpu = device.type == "cuda"
    num_images = (EPOCH_OF_GPU if is_gpu else EPOCH_OF_CPU) * max(map(subject.batch_size, pieces))
    dataset = _random_images(subject, num_images)
    loader = dataset_loader("memory", dataset, "train", device=device)

    @cache
    def folded() -> nn.Module:
        """The form that evaluations attack; made once, for it takes many passes."""
        images = torch.from_numpy(dataset.train.images[:2]).to(device).permute(0, 3, 1, 2).float().div_(255)
        network = _network(subject.arch, dataset, device).eval()
        return faster(network, images.contiguous(memory_format=torch.channels_last))

    shares = {piece: SHARES.get(piece, 1) for piece in pieces}
    rates = {}
    keep_freed_memory()
    with torch_threads(threads):
        for piece, share in shares.items():
            rate = partial(
                rate_of,
                partial(
                    _work,
                    piece,
                    subject,
                    folded() if piece in EXACT else _network(subject.of(piece)[0], dataset, device),
                ),
                loader,
                num_images,
                seconds=seconds * share / sum(shares.values()),
                pieces=EXACT_STEPS if piece == Piece.EXACT_STEP else 1,
                wait=partial(torch.cuda.synchronize, device) if is_gpu else None,
            )
            rates[piece] = _fitting(rate, subject.batch_size(piece), may_be_halved=piece in EXACT)
    name = torch.cuda.get_device_name(device) if is_gpu else cpu_name() or "CPU"
    return Speed(name, rates, subject.num_steps)


def network_bytes(subject: Workload) -> tuple[int, int]:
    """Bytes of weights and buffers, as a checkpoint has them, and of the parameters alone, as the momentum has them."""
    network = _network(subject.arch, _random_images(subject, 1), torch.device("cpu"))
    saved = (part for part in network.state_dict().values() if isinstance(part, torch.Tensor))
    return _bytes(saved), _bytes(network.parameters())


def _work(
    piece: Piece, subject: Workload, network: nn.Module, loader: Loader, indices: np.ndarray, batch_size: int
) -> None:
    """Do the piece's work in the loop in which it is done in earnest; it goes on until the loader ends it."""
    spec, (_, precision) = subject.spec, subject.of(piece)
    generator = torch.Generator().manual_seed(0)
    match piece:
        case Piece.TRIAL_STEP:  # as `run_trial` does it
            recipe = _endless(subject.trial_recipe, batch_size)
            method = Erm(recipe.label_smoothing)
            fit(network, loader, indices, method=method, recipe=recipe, precision=precision, generator=generator)
        case Piece.PLAIN_STEP | Piece.PGD_STEP:  # as `run.train` does it
            recipe = _endless(subject.recipe, batch_size)
            attack = TrainingAttack(spec.epsilon, spec.step_size, subject.num_steps, precision)
            settings = StepSettings(PgdAt() if piece == Piece.PGD_STEP else Erm(), attack, precision)
            progress = Progress(network, recipe)
            train = partial(train_epoch, progress, network, loader, indices, recipe=recipe, settings=settings)
            while True:
                train(mem=None, seed=0, world=THIS_PROCESS)
        case Piece.FORWARD | Piece.TRIAL_FORWARD:  # as the end of a trial does it
            while True:
                predicted_probabilities(network, loader, batch_size=batch_size, precision=precision)
        case Piece.EXACT_FORWARD:  # as Square asks a network
            with torch.inference_mode(), numerics("fp32"):
                while True:
                    for images, _, _ in loader.eval_epoch(indices, batch_size=batch_size):
                        network(images)
        case Piece.EXACT_STEP:  # as attacks with gradients do
            attack = partial(pgd, epsilon=spec.epsilon, step_size=spec.step_size, num_steps=EXACT_STEPS)
            with numerics("fp32"):
                while True:
                    for images, labels, _ in loader.eval_epoch(indices, batch_size=batch_size):
                        attack(network, images, labels, generator=generator)
        case _:
            raise ValueError(f"there is no way to time a {piece} by itself")


def _endless(recipe: Recipe, batch_size: int) -> Recipe:
    """The recipe without an end, and learning so slowly that random labels do not make the loss infinite."""
    return replace(recipe, epochs=FOREVER, lr=1e-6, batch_size=batch_size)


def _fitting(rate: Callable[[int], Rate], batch_size: int, *, may_be_halved: bool) -> Rate:
    """The rate of batches of that size, or of half of them where they do not fit into memory, as evaluations do it."""
    try:
        return rate(batch_size)
    except RuntimeError as error:
        if not is_gpu_full(error):
            raise
        if not may_be_halved or batch_size == 1:
            raise UserError(
                f"batches of {batch_size} images do not fit into this GPU's memory: lower batch_size or "
                "trial_batch_size"
            ) from None
        log.info("out of memory with %d images: halving, as an evaluation would", batch_size)
    return _fitting(rate, batch_size // 2, may_be_halved=True)


def _network(arch: str | OwnNetwork, dataset: Dataset, device: torch.device) -> nn.Module:
    return seeded_model(arch, dataset, device, key=(0,))


def _random_images(subject: Workload, number: int) -> Dataset:
    spec, rng = subject.spec, np.random.default_rng(0)
    assert spec.num_classes and spec.image_size  # noqa: PT018
    images = rng.integers(0, 256, (number, spec.image_size, spec.image_size, 3), np.uint8)
    split = Split(images, rng.integers(0, spec.num_classes, number), np.arange(number).astype(np.str_))
    return Dataset(spec.name, split, split, tuple(map(str, range(spec.num_classes))), "random", spec)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
