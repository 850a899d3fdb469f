"""From settings to a plan: how large the data are, which jobs there are, how fast this machine is.  Never loads ray."""

from collections import Counter
from dataclasses import dataclass

import joblib
import numpy as np
import torch

from bat_dist.data.datasets import load_dataset
from bat_dist.data.source import choose
from bat_dist.data.table import PER_CLASS, DatasetSpec, check_dataset
from bat_dist.errors import UserError
from bat_dist.evaluation.names import check_classes_of_data
from bat_dist.models.names import AUTO, check_fits, suited_arch
from bat_dist.planning.cost import Cost, PlannedJob, Size, cost, evaluation, to_measure, total, training, trials
from bat_dist.planning.speed import Workload, measure, network_bytes
from bat_dist.planning.timed_operations import Speed
from bat_dist.settings.fields import ARCH_OF_TRAINING, ARCH_OF_TRIALS
from bat_dist.settings.plan import PlanSettings
from bat_dist.training.precision import choose_precision, this_hardware


@dataclass(frozen=True)
class Data:
    """How many samples a dataset has.  spec: with the actual number of classes and image size."""

    spec: DatasetSpec
    num_train: int
    num_test: int


@dataclass(frozen=True)
class CostPlan:
    """What the jobs cost, and how that was found.

    arch, precision: as asked for, or what auto stands for, and why. costs: one for each job. workers: how many there
    are. worker: what one of them is, in words. small_batches: the time was too short to measure full ones.
    """

    data: Data
    arch: str
    precision: str
    costs: tuple[Cost, ...]
    total: Cost
    speed: Speed
    workers: int
    worker: str
    on_gpu: bool
    small_batches: bool


def plan(settings: PlanSettings) -> CostPlan:
    """Measure this machine, and say what the jobs take.  Raises UserError for settings that do not fit the data."""
    data = look_at(settings)
    size, num_classes = data.spec.image_size, data.spec.num_classes
    assert size and num_classes  # noqa: PT018  # `look_at` sees to that
    suited = suited_arch(size, ARCH_OF_TRAINING if settings.num_seeds else ARCH_OF_TRIALS)
    arch = suited if settings.arch == AUTO else settings.arch
    check_fits(arch, size)
    precision, why = choose_precision(settings.precision, [this_hardware()])
    subject = Workload(
        arch=arch,
        spec=data.spec,
        trial_recipe=settings.trial_training,
        recipe=settings.training,
        num_steps=settings.num_steps,
        precision=precision,
    )
    jobs = jobs_of(settings, Size(data.num_train, data.num_test, num_classes, *network_bytes(subject)))
    speed = measure(subject, to_measure(jobs), seconds=settings.seconds, threads=settings.cpus_per_worker)
    workers = settings.workers or default_workers(settings.cpus_per_worker)
    on_gpu = torch.cuda.is_available()
    return CostPlan(
        data=data,
        arch=f"{arch} (for {size}x{size} images)" if settings.arch == AUTO else arch,
        precision=f"{precision} ({why})" if settings.precision == AUTO else precision,
        costs=tuple(cost(job, speed, workers=workers) for job in jobs),
        total=total(jobs, speed, workers=workers),
        speed=speed,
        workers=workers,
        worker="a GPU" if on_gpu else f"{settings.cpus_per_worker} CPU core" + "s" * (settings.cpus_per_worker > 1),
        on_gpu=on_gpu,
        small_batches=any(rate.batch_size < subject.batch_size(piece) for piece, rate in speed.rates.items()),
    )


def look_at(settings: PlanSettings) -> Data:
    """The data if they are at hand, else what is known of them.  Raises UserError for sizes that they do not have."""
    if settings.dataset == "digits" or settings.data_dir:
        dataset = load_dataset(settings.dataset, **settings.data)
        return Data(dataset.spec, len(dataset.train), len(dataset.test))
    spec = check_dataset(settings.dataset)
    spec = spec.of_size(settings.num_classes, settings.image_size)
    if settings.dataset == "image_folder":
        assert settings.num_train and settings.num_test  # noqa: PT018  # the settings see to that
        return Data(spec, settings.num_train, settings.num_test)
    return Data(spec, _known(spec, "num_train", settings.num_train), _known(spec, "num_test", settings.num_test))


def _known(spec: DatasetSpec, option: str, asked: int | None) -> int:
    """How many samples a split has, or has left, if `asked` for fewer; with the messages of `load_dataset`."""
    classes, num_train, num_test = PER_CLASS[spec.name]
    assert spec.num_classes
    if spec.num_classes > classes:
        raise UserError(f"num_classes must be at most {classes}, the classes of {spec.name}, got {spec.num_classes}")
    each = num_train if option == "num_train" else num_test
    labels = np.repeat(np.arange(spec.num_classes), each)
    return len(choose(labels, spec.num_classes, asked, option))


def jobs_of(settings: PlanSettings, size: Size) -> list[PlannedJob]:
    """Trials, trainings by each method, evaluations of the trained.

    Raises UserError for what does not fit the data.
    """
    jobs = []
    if settings.num_trials:
        epochs, ratio = settings.trial_training.epochs, settings.subset_ratio
        jobs.append(trials(size, count=settings.num_trials, epochs=epochs, subset_ratio=ratio))
    if settings.num_seeds:
        _check_trainings(settings, size)
        jobs += [
            training(
                size,
                method=method,
                count=settings.num_seeds * times,
                epochs=settings.training.epochs,
                num_steps=settings.num_steps,
                num_val=settings.num_val,
            )
            for method, times in Counter(settings.methods).items()
        ]
        jobs.append(
            evaluation(
                size,
                attacks=settings.attacks,
                count=settings.num_seeds * len(settings.methods) * settings.num_checkpoints,
                robust_share=settings.robust_share,
                check_images=settings.check_images,
            )
        )
    return jobs


def _check_trainings(settings: PlanSettings, size: Size) -> None:
    if settings.num_val is not None and settings.num_val >= size.num_train:
        raise UserError(f"num_val must be less than the {size.num_train} training samples, got {settings.num_val}")
    check_classes_of_data(settings.attacks, size.num_classes, "plan")


def default_workers(cpus_per_worker: int) -> int:
    """One worker for each GPU of this machine, else as many as find room on the CPU cores that this process may use."""
    return torch.cuda.device_count() or max(1, joblib.cpu_count() // cpus_per_worker)
