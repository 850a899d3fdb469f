"""Leave-out trials: ours against the same recipe written plainly, and ways to run many small ones at once."""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import fmean

import torch

from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.training.freed_memory import keep_freed_memory
from bat_dist.training.precision import autocast
from bat_dist.training.recipe import RECIPES, Precision, Recipe
from bat_dist.training.trial import EVAL_BATCH_SIZE, TrialSettings, run_trial
from benchmarks.adversarial import best_precision, in_channels_last, network
from benchmarks.data import digits, images
from benchmarks.measurement import Context, Quantities, Sides
from benchmarks.rivals import plain_trial

CPU = torch.device("cpu")
KEPT = 0.7  # of the training images
_WORK = {}  # of a process of a pool


def set_up(dataset: Dataset, arch: str, recipe: Recipe, precision: Precision, threads: int) -> None:
    """Once in each process: loaders, and settings of its trials."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    loaders = {f"{name}_loader": dataset_loader("memory", dataset, name) for name in ("train", "test")}
    settings = TrialSettings(arch, recipe, precision, KEPT, "uniform", 0)
    _WORK.update(settings=settings, dataset=dataset, device=CPU, **loaders)


def our_trial(trial: int) -> float:
    """Accuracy on the test split in percent."""
    return 100 * float(run_trial(trial, **_WORK)["test_correct"].mean())


def passes_of_a_trial(work: tuple[str, Recipe, int, int]) -> float:
    """Seconds of a trial's passes alone: the network's, forward and back for each batch, then forward for each image.

    work: architecture, recipe, and how many images are trained on and asked about.  In the precision and layout that
    trials have; no loader, no optimizer.
    """
    arch, recipe, num_train, num_asked = work
    precision, model = best_precision(), in_channels_last(network(arch, 0))
    x, y = torch.rand(max(recipe.batch_size, EVAL_BATCH_SIZE), 3, 32, 32), torch.arange(recipe.batch_size) % 10
    x = x.contiguous(memory_format=torch.channels_last)
    start = time.perf_counter()
    for _ in range(recipe.epochs * -(-num_train // recipe.batch_size)):
        with autocast(CPU, precision):
            logits = model(x[: recipe.batch_size])
        torch.nn.functional.cross_entropy(logits.float(), y).backward()
        model.zero_grad()
    model.eval()
    with torch.inference_mode(), autocast(CPU, precision):
        for _ in range(-(-num_asked // EVAL_BATCH_SIZE)):
            model(x[:EVAL_BATCH_SIZE])
    return time.perf_counter() - start


def ready(_: int) -> None:
    """Long enough that each process of a pool does one."""
    time.sleep(0.5)


@contextmanager
def pool(
    context: Context, dataset: Dataset, arch: str, recipe: Recipe, *, processes: int, threads: int
) -> Iterator[Executor]:
    """Processes that are set up and have started, as Ray's workers are; in the tiny size this process."""
    of_trials = (dataset, arch, recipe, best_precision(), threads)
    if context.size == "tiny":
        set_up(*of_trials)
        with ThreadPoolExecutor(1) as made:
            yield made
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # for the new processes, as Ray's workers have it
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=set_up, initargs=of_trials) as made:
        list(made.map(ready, range(processes)))
        yield made


@contextmanager
def against_plain(context: Context, *, arch: str, epochs: int, num_images: int = 5000) -> Iterator[Sides]:
    """A plain trial by all cores, a trial of ours by each, and the passes of one by each; seconds are per trial."""
    torch.set_num_threads(context.cores)
    arch = context.pick(arch, arch, "resnet9-w4")
    data = images(context, *context.pick((num_images, 1000), (500, 100), (40, 20)))
    recipe = dataclasses.replace(RECIPES["fast"], epochs=context.pick(epochs, 1, 1))
    with pool(context, data, arch, recipe, processes=context.cores, threads=1) as processes:

        def ours(number: int) -> Quantities:
            start, first = time.perf_counter(), context.cores * number
            right = list(processes.map(our_trial, range(first, first + context.cores)))
            return {"seconds": (time.perf_counter() - start) / context.cores, "accuracy": fmean(right)}

        def passes(number: int) -> Quantities:
            kept = round(KEPT * len(data.train))
            work = (arch, recipe, kept, len(data.train) + len(data.test))
            return {"seconds": max(processes.map(passes_of_a_trial, [work] * context.cores)) / context.cores}

        def plain(number: int) -> Quantities:
            return {"accuracy": plain_trial(data, arch, recipe, number)}

        yield {"plain": plain, "ours": ours, "passes": passes}


width_16 = partial(against_plain, arch="resnet9-w16", epochs=5)
width_32 = partial(against_plain, arch="resnet9-w32", epochs=2)
width_64 = partial(against_plain, arch="resnet9-w64", epochs=1, num_images=2500)


@contextmanager
def packings(context: Context) -> Iterator[Sides]:
    """The same trials of the digits' network, by so many processes with so many threads; seconds are per trial."""
    recipe = dataclasses.replace(RECIPES["fast"], epochs=context.pick(20, 2, 1))
    each = context.pick(4, 2, 1)  # trials of a core in a round
    packed = {
        "one after another": (1, 1),
        "one process, a thread per core": (1, context.cores),
        "a process per core": (context.cores, 1),
        "two processes per core": (2 * context.cores, 1),
    }
    with ExitStack() as stack:
        data = digits()

        def side(processes: int, threads: int) -> partial[Quantities]:
            made = stack.enter_context(pool(context, data, "tinynet", recipe, processes=processes, threads=threads))
            return partial(round_of, made)

        def round_of(made: Executor, number: int) -> Quantities:
            start, count = time.perf_counter(), each * 2 * context.cores
            list(made.map(our_trial, range(count * number, count * (number + 1))))
            return {"seconds": (time.perf_counter() - start) / count}

        yield {name: side(*how) for name, how in packed.items()}
