"""How fast this device is: a few timed batches of each piece of work, on random images.

The pieces are timed inside the loops that do the work (`fit`, `train_epoch`, `predicted_probabilities`): a loader
hands out batches and looks at the clock when the next one is asked for. Images are random, for shapes decide the time.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from bat_dist.attacks.folding import faster
from bat_dist.attacks.pgd import pgd
from bat_dist.data.datasets import Dataset, Split
from bat_dist.data.loaders import Batch, Loader, dataset_loader
from bat_dist.data.table import DatasetSpec
from bat_dist.errors import UserError, is_gpu_full
from bat_dist.evaluation.names import BATCH_SIZE
from bat_dist.methods.erm import Erm
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.planning.timed_operations import Piece, Rate, Speed
from bat_dist.storage.provenance import cpu_name
from bat_dist.training.correctness import predicted_probabilities
from bat_dist.training.epoch import StepSettings, train_epoch
from bat_dist.training.loop import fit
from bat_dist.training.precision import default_device
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Precision, Recipe
from bat_dist.training.seeding import seeded_model
from bat_dist.training.threads import torch_threads
from bat_dist.training.trial import EVAL_BATCH_SIZE
from bat_dist.training.world import THIS_PROCESS

EXACT_STEPS = 10  # in a timed batch of attack steps, so that start and end weigh little
SMALLEST_BATCH, GROWTH = 2, 4  # the first batch tried; BatchNorm wants two images
FEWEST, MOST = 3, 200  # timed batches: for a standard error, and so that a small network does not take all the time
SHARES = {Piece.PGD_STEP: 3}  # of the time: it is the longest, and most of most plans
FOREVER = 10**6  # epochs


@dataclass(frozen=True)
class Workload:
    """What is timed.

    spec: with the actual number of classes and image size. recipe, num_steps: how networks are trained, and in how many
    steps PGD attacks them.
    """

    arch: str
    spec: DatasetSpec
    trial_recipe: Recipe
    recipe: Recipe
    num_steps: int
    precision: Precision

    def batch_size(self, piece: Piece) -> int:
        """How many images a batch has in the work that the piece belongs to."""
        sizes = {Piece.TRIAL_STEP: self.trial_recipe.batch_size, Piece.FORWARD: EVAL_BATCH_SIZE}
        sizes |= {Piece.PLAIN_STEP: self.recipe.batch_size, Piece.PGD_STEP: self.recipe.batch_size}
        return sizes.get(piece, BATCH_SIZE)


def measure(subject: Workload, pieces: Sequence[Piece], *, seconds: float, threads: int) -> Speed:
    """Time the pieces on the GPU, or on the CPU with that many threads, in about `seconds` of wall-clock all together.

    Where full batches would take too long, smaller ones are timed; each `Rate` says how large they were. It takes
    longer than asked where three batches of two images do. Raises UserError if a batch does not fit into memory.
    """
    device = default_device()
    num_images = 2 * max(map(subject.batch_size, pieces))
    dataset = _random_images(subject, num_images)
    loader = dataset_loader("memory", dataset, "train", device=device)

    @cache
    def folded() -> nn.Module:
        """The form that evaluations attack; made once, for it takes many passes."""
        images = torch.from_numpy(dataset.train.images[:2]).to(device).permute(0, 3, 1, 2).float().div_(255)
        network = _network(subject, dataset, device).eval()
        return faster(network, images.contiguous(memory_format=torch.channels_last))

    shares = {piece: SHARES.get(piece, 1) for piece in pieces}
    rates = {}
    with torch_threads(threads):
        for piece, share in shares.items():
            exact = piece in (Piece.EXACT_FORWARD, Piece.EXACT_STEP)
            run = partial(_work, piece, subject, folded() if exact else _network(subject, dataset, device))
            rates[piece] = _rate(
                run,
                loader,
                num_images,
                subject.batch_size(piece),
                seconds=seconds * share / sum(shares.values()),
                pieces=EXACT_STEPS if piece == Piece.EXACT_STEP else 1,
            )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name() or "CPU"
    return Speed(name, rates, subject.num_steps)


def network_bytes(subject: Workload) -> tuple[int, int]:
    """Bytes of weights and buffers, as a checkpoint has them, and of the parameters alone, as the momentum has them."""
    network = _network(subject, _random_images(subject, 1), torch.device("cpu"))
    return _bytes(network.state_dict().values()), _bytes(network.parameters())


Run = Callable[[Loader, np.ndarray, int], Any]  # work on these samples of the loader, in batches of that size


def _work(
    piece: Piece, subject: Workload, network: nn.Module, loader: Loader, indices: np.ndarray, batch_size: int
) -> None:
    """Do the piece's work in the loop in which it is done in earnest; it goes on until the loader ends it."""
    spec, precision = subject.spec, subject.precision
    generator = torch.Generator().manual_seed(0)
    match piece:
        case Piece.TRIAL_STEP:  # as `run_trial` does it
            torch.backends.cudnn.deterministic = True
            recipe = _endless(subject.trial_recipe, batch_size)
            method = Erm(recipe.label_smoothing)
            fit(network, loader, indices, method=method, recipe=recipe, precision=precision, generator=generator)
        case Piece.PLAIN_STEP | Piece.PGD_STEP:  # as `run.train` does it
            torch.backends.cudnn.deterministic = True
            recipe = _endless(subject.recipe, batch_size)
            attack = TrainingAttack(spec.epsilon, spec.step_size, subject.num_steps, precision)
            settings = StepSettings(PgdAt() if piece == Piece.PGD_STEP else Erm(), attack, precision)
            progress = Progress(network, recipe)
            train = partial(train_epoch, progress, network, loader, indices, recipe=recipe, settings=settings)
            while True:
                train(mem=None, seed=0, world=THIS_PROCESS)
        case Piece.FORWARD:  # as the end of a trial does it
            while True:
                predicted_probabilities(network, loader, batch_size=batch_size, precision=precision)
        case Piece.EXACT_FORWARD:  # as Square asks a network
            with torch.inference_mode():
                while True:
                    for images, _, _ in loader.eval_epoch(indices, batch_size=batch_size):
                        network(images)
        case Piece.EXACT_STEP:  # as attacks with gradients do
            attack = partial(pgd, epsilon=spec.epsilon, step_size=spec.step_size, num_steps=EXACT_STEPS)
            while True:
                for images, labels, _ in loader.eval_epoch(indices, batch_size=batch_size):
                    attack(network, images, labels, generator=generator)
        case _:
            raise ValueError(f"there is no way to time a {piece} by itself")


def _endless(recipe: Recipe, batch_size: int) -> Recipe:
    """The recipe without an end, and learning so slowly that random labels do not make the loss infinite."""
    return replace(recipe, epochs=FOREVER, lr=1e-6, batch_size=batch_size)


def _rate(run: Run, loader: Loader, num_images: int, batch_size: int, *, seconds: float, pieces: int) -> Rate:
    """Let the batch grow to its full size, or as far as the time reaches; that warms up. Then time it."""
    size = min(SMALLEST_BATCH, batch_size)
    # The very first batch loads libraries, which is paid once in a worker's life: it does not count.
    _, *found = _times(run, loader, num_images, size, fewest=3, end=0)
    if FEWEST * min(found) > seconds:
        return Rate.of(found, size, pieces=pieces)
    end = time.perf_counter() + seconds
    # The shortest batch decides: another process may have come between. Mostly the larger one takes less than that.
    while size < batch_size and FEWEST * GROWTH * min(found) < seconds:
        size = min(GROWTH * size, batch_size)
        found = _times(run, loader, num_images, size, fewest=2, end=0)
    found = found[1:] + _times(run, loader, num_images, size, fewest=FEWEST - 1, end=end)
    return Rate.of(found, size, pieces=pieces)


def _times(run: Run, loader: Loader, num_images: int, size: int, *, fewest: int, end: float) -> list[float]:
    """Seconds of each batch: at least `fewest` batches, then until `end` (of time.perf_counter), at most MOST."""
    indices = np.arange(num_images // size * size)
    watch = _Stopwatch(loader, indices, fewest, end)
    try:
        run(watch, indices, size)
    except _Enough:
        return watch.times
    except RuntimeError as error:
        if not is_gpu_full(error):
            raise
        raise UserError(
            f"{size} images at a time do not fit into this GPU's memory: lower batch_size or trial_batch_size"
        ) from None
    raise AssertionError("what is timed goes on until the loader ends it")


class _Enough(Exception):
    """Ends the loop that is timed."""


class _Stopwatch:
    """A `Loader` whose batches are timed, from when one is read to when the next is asked for."""

    def __init__(self, loader: Loader, indices: np.ndarray, fewest: int, end: float) -> None:
        self.times: list[float] = []
        self._loader, self._indices, self._fewest, self._end = loader, indices, fewest, end

    def train_epoch(self, indices: Any, **how: Any) -> Iterator[Batch]:
        """See `Loader`."""
        return self._watched(self._loader.train_epoch(indices, **how))

    def eval_epoch(self, indices: Any = None, *, batch_size: int) -> Iterator[Batch]:
        """See `Loader`; without indices those that fill whole batches."""
        return self._watched(
            self._loader.eval_epoch(self._indices if indices is None else indices, batch_size=batch_size)
        )

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        start = _now()
        for batch in batches:
            yield batch
            now = _now()
            self.times.append(now - start)
            if len(self.times) >= MOST or (len(self.times) >= self._fewest and now >= self._end):
                raise _Enough
            start = now


def _now() -> float:
    """The time in seconds when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _network(subject: Workload, dataset: Dataset, device: torch.device) -> nn.Module:
    return seeded_model(subject.arch, dataset, device, key=(0,))


def _random_images(subject: Workload, number: int) -> Dataset:
    spec, rng = subject.spec, np.random.default_rng(0)
    assert spec.num_classes and spec.image_size  # noqa: PT018
    images = rng.integers(0, 256, (number, spec.image_size, spec.image_size, 3), np.uint8)
    split = Split(images, rng.integers(0, spec.num_classes, number), np.arange(number).astype(np.str_))
    return Dataset(spec.name, split, split, tuple(map(str, range(spec.num_classes))), "random", spec)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
