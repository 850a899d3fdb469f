"""Two single-thread workers against one: train, evaluate and memorize, on a private Ray with two cores."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bat_dist.api.train import carry_out
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.evaluate import evaluate
from bat_dist.jobs.memorize import fill_trials
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder
from bat_dist.training.files import read_history, training_seconds
from bat_dist.workers.session import ray_session
from benchmarks.attacks import trained
from benchmarks.data import digits, images
from benchmarks.measurement import Context, Quantities, Sides

TWO = 2
Job = Callable[[Path, int], Quantities | None]
"""The job in a new folder by so many workers."""


def one_and_two(job: Job) -> Sides:
    """The same job by one worker and by two, each in a folder of its own."""

    def side(workers: int) -> Quantities | None:
        with tempfile.TemporaryDirectory() as place:
            return job(Path(place) / "out", workers)

    return {"one worker": lambda number: side(1), "two workers": lambda number: side(TWO)}


@contextmanager
def train(context: Context) -> Iterator[Sides]:
    """PGD-AT of ResNet-9; seconds are those of the second epoch, since kernels are made in the first."""
    data = images(context, *context.pick((2580, 100), (520, 20), (64, 10)))

    def job(out: Path, workers: int) -> Quantities:
        settings = TrainSettings(
            dataset=data.name,
            out=str(out),
            method="pgd_at",
            arch=context.pick("resnet9-w16", "resnet9-w8", "tinynet"),
            recipe="fast",
            epochs=2,
            batch_size=128,
            num_val=20,
            num_workers=workers,
        )
        carry_out(settings, data)
        return {"seconds": training_seconds(read_history(Folder(str(out)))[1:])}

    with ray_session("local", num_cpus=TWO):
        yield one_and_two(job)


@contextmanager
def evaluation(context: Context) -> Iterator[Sides]:
    """PGD-100 on a network of a short training; the start of the workers is included."""
    data = images(context, *context.pick((5000, 1500), (500, 100), (40, 20)))
    with tempfile.TemporaryDirectory() as place, ray_session("local", num_cpus=TWO):
        run = trained(context, data, Path(place) / "run", "resnet9-w16")

        def job(out: Path, workers: int) -> None:
            settings = EvaluateSettings(
                dataset=data.name,
                out=str(out),
                checkpoint=str(run),
                attacks=(context.pick("pgd100", "pgd20", "pgd2"),),
                num_workers=workers,
                check_images=0,
            )
            evaluate(Folder(str(out)), data, settings, load_subject(data, settings))

        yield one_and_two(job)


@contextmanager
def memorize(context: Context) -> Iterator[Sides]:
    """Leave-out trials of the digits; the start of the workers is included."""
    data, trials = digits(), context.pick(24, 4, 2)

    def job(out: Path, workers: int) -> None:
        settings = MemorizeSettings(
            dataset="digits",
            out=str(out),
            arch=context.pick("resnet9-w8", "tinynet", "tinynet"),
            epochs=context.pick(20, 2, 1),
            num_trials=trials,
            num_workers=workers,
        )
        fill_trials(Folder(str(out)), data, settings)

    with ray_session("local", num_cpus=TWO):
        yield one_and_two(job)
