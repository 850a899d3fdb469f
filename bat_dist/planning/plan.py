"""From settings to a plan: how large the data are, which jobs there are, how fast this machine is.  Never loads ray."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import joblib
import numpy as np
import torch

from bat_dist.attacks.batches import usual_batch_size
from bat_dist.data.datasets import sizes_of
from bat_dist.data.source import choose
from bat_dist.data.table import PER_CLASS, DatasetSpec, check_augmentation, check_dataset, own_name
from bat_dist.errors import UserError
from bat_dist.evaluation.names import check_classes_of_data
from bat_dist.evaluation.plan import images_at_once
from bat_dist.models.names import AUTO, check_fits, suited_arch
from bat_dist.models.own import OwnNetwork, check_takes, named_network
from bat_dist.parts import is_reference
from bat_dist.planning.cost import (
    Cost,
    PlannedJob,
    Size,
    cost,
    ensemble,
    evaluation,
    to_measure,
    total,
    training,
    trials,
)
from bat_dist.planning.speed import Workload, measure, network_bytes
from bat_dist.planning.speed_file import Measurement, read_speed, write_speed
from bat_dist.planning.timed_operations import Piece, Speed
from bat_dist.planning.workers import MeasuredMachine, PlannedWorker, planned_worker
from bat_dist.settings.fields import ARCH_OF_TRAINING, ARCH_OF_TRIALS
from bat_dist.settings.plan import PlanSettings
from bat_dist.training.precision import choose_precision, default_device, this_hardware
from bat_dist.training.recipe import Precision, PrecisionOrAuto


@dataclass(frozen=True)
class Data:
    """How many samples a dataset has.  spec: with the actual number of classes and image size."""

    spec: DatasetSpec
    num_train: int
    num_test: int


@dataclass(frozen=True)
class CostPlan:
    """What the jobs cost, and how that was found.

    arch, precision: as asked for, or what auto stands for, and why. trials: the trials' where they have others, or
    nothing. costs: one for each job. speed: of a worker that is alone. workers: how many there are; worker: what one of
    them is.
    """

    data: Data
    arch: str
    precision: str
    trials: str
    costs: tuple[Cost, ...]
    total: Cost
    speed: Speed
    workers: int
    worker: PlannedWorker

    @property
    def small_batches(self) -> bool:
        """Whether the time was too short to measure full batches."""
        return any(rate.batch_size < rate.full_batch for rate in self.speed.rates.values())


def plan(settings: PlanSettings) -> CostPlan:
    """Measure this machine, or take what was measured on another, and say what the jobs take.

    Raises UserError for settings that do not fit the data, or the machine, or what was measured.
    """
    archs = settings.arch, settings.trial_arch
    own = {arch: named_network(arch) for arch in archs if arch and is_reference(arch)}  # before the data: it is quick
    data = look_at(settings)
    size, num_classes = data.spec.image_size, data.spec.num_classes
    assert size and num_classes  # noqa: PT018  # `look_at` sees to that
    crops = {"crop_scale": settings.crop_scale, "crop_size": settings.crop_size}
    check_augmentation(crop_padding=None, **crops, image_size=size)
    arch, trial_arch = _archs(settings, size, own)
    for each in filter(None, (arch, trial_arch)):
        if isinstance(each, OwnNetwork):
            check_takes(each, num_classes, size)
        check_fits(each, settings.crop_size or size)
    given = read_speed(settings.speed) if settings.speed else None
    machine = given.machine if given else this_machine()
    cpus, gpus, gain = settings.cpus_per_worker, settings.gpus_per_worker, settings.sharing_gain
    worker = planned_worker(machine, cpus=cpus, gpus=gpus, gain=gain)
    (precision, why), trial_precision = _precisions(settings, given)
    batch_size = settings.attack_batch_size or usual_batch_size(on_gpu=machine.gpus > 0)
    subject = Workload(
        arch=arch,
        spec=replace(data.spec, **crops),
        trial_recipe=settings.trial_training,
        recipe=settings.training,
        num_steps=settings.num_steps,
        precision=precision,
        attacked_at_once=images_at_once(settings.attacks, batch_size),
        trial_arch=trial_arch,
        trial_precision=trial_precision,
    )
    forward = Piece.TRIAL_FORWARD if subject.has_trials_apart else Piece.FORWARD
    sizes = Size(data.num_train, data.num_test, num_classes, *network_bytes(subject))
    jobs = jobs_of(settings, sizes, batch_size, forward)
    speed = _speed(settings, given, subject, to_measure(jobs), machine)
    workers, slowed = settings.workers or worker.fit_into(machine), speed.slower(worker.slowdown)
    return CostPlan(
        data=data,
        arch=f"{arch} (for {size}x{size} images)" if settings.arch == AUTO else str(arch),
        precision=f"{precision} ({why})" if why else precision,
        trials=", ".join(map(str, subject.of(Piece.TRIAL_STEP))) if subject.has_trials_apart else "",
        costs=tuple(cost(job, slowed, workers=workers) for job in jobs),
        total=total(jobs, slowed, workers=workers),
        speed=speed,
        workers=workers,
        worker=worker,
    )


def this_machine() -> MeasuredMachine:
    """What this machine has: its GPUs, if torch sees any, and the cores that this process may use."""
    gpus = torch.cuda.device_count() if default_device().type == "cuda" else 0
    return MeasuredMachine(gpus, joblib.cpu_count())


def _archs(
    settings: PlanSettings, size: int, own: Mapping[str, OwnNetwork]
) -> tuple[str | OwnNetwork, str | OwnNetwork | None]:
    """The network of the trainings, and that of the trials if it is another one; that of the trials if they are all."""
    of_trials = settings.arch if settings.trial_arch is None else settings.trial_arch
    if not settings.num_seeds:
        return _network_of(of_trials, size, ARCH_OF_TRIALS, own), None
    arch = _network_of(settings.arch, size, ARCH_OF_TRAINING, own)
    if (
        not (settings.num_trials or settings.ensemble_members)
        or settings.trial_arch is None
        or of_trials == settings.arch != AUTO
    ):
        return arch, None
    trial_arch = _network_of(of_trials, size, ARCH_OF_TRIALS, own)
    return arch, None if trial_arch == arch else trial_arch


def _network_of(asked: str, size: int, auto: str, own: Mapping[str, OwnNetwork]) -> str | OwnNetwork:
    return suited_arch(size, auto) if asked == AUTO else own.get(asked, asked)


def _precisions(settings: PlanSettings, given: Measurement | None) -> tuple[tuple[Precision, str], Precision | None]:
    """The trainings' precision with the reason for it, and the trials' if it is another one; as `_archs`."""
    of_trials = settings.trial_precision or settings.precision
    if not settings.num_seeds:
        return _precision(of_trials, settings, given), None
    found = _precision(settings.precision, settings, given)
    if not (settings.num_trials or settings.ensemble_members) or of_trials == settings.precision:
        return found, None
    trial_precision, _ = _precision(of_trials, settings, given)
    return found, None if trial_precision == found[0] else trial_precision


def _precision(asked: PrecisionOrAuto, settings: PlanSettings, given: Measurement | None) -> tuple[Precision, str]:
    """What is asked for, or that of the measurement that is given, or what this machine is good at, and why."""
    if given and asked == AUTO:
        return given.precision, f"as {settings.speed} has it"
    found, why = choose_precision(asked, [] if given else [this_hardware()])
    return found, why if asked == AUTO else ""


def _speed(
    settings: PlanSettings,
    given: Measurement | None,
    subject: Workload,
    pieces: Sequence[Piece],
    machine: MeasuredMachine,
) -> Speed:
    """The speed that is given, if it is of what is planned, else that of this machine, kept if that is asked for."""
    threads = settings.cpus_per_worker
    if given:
        if misfits := given.misfits(subject, pieces, threads):
            raise UserError(
                f"speed {settings.speed} is of something else: {'; '.join(misfits)}. Measure this there: the same "
                "command with --save_speed FILE in place of --speed FILE"
            )
        return given.speed
    speed = measure(subject, pieces, seconds=settings.seconds, threads=threads)
    if settings.save_speed:
        write_speed(settings.save_speed, Measurement.of(speed, subject, machine, threads))
    return speed


def look_at(settings: PlanSettings) -> Data:
    """The data if they are at hand, else what is known of them.  Raises UserError for sizes that they do not have."""
    if settings.dataset == "digits" or settings.data_dir or own_name(settings.dataset):
        return Data(*sizes_of(settings.dataset, **settings.data))
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


def jobs_of(settings: PlanSettings, size: Size, batch_size: int, forward: Piece) -> list[PlannedJob]:
    """Trials, an ensemble, trainings by each method, evaluations of the trained, batch_size images at a time.

    forward: how a trial looks at all samples, see `cost.trials`. Raises UserError for what does not fit the data.
    """
    jobs = []
    if settings.num_trials:
        epochs, ratio = settings.trial_training.epochs, settings.subset_ratio
        jobs.append(trials(size, count=settings.num_trials, epochs=epochs, subset_ratio=ratio, forward=forward))
    if settings.ensemble_members:
        epochs = settings.trial_training.epochs
        jobs.append(ensemble(size, count=settings.ensemble_members, epochs=epochs, forward=forward))
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
                val_steps=settings.val_steps,
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
                batch_size=batch_size,
                num_seeds=settings.attack_seeds,
                restarts=settings.restarts,
            )
        )
    return jobs


def _check_trainings(settings: PlanSettings, size: Size) -> None:
    if settings.num_val is not None and settings.num_val >= size.num_train:
        raise UserError(f"num_val must be less than the {size.num_train} training samples, got {settings.num_val}")
    check_classes_of_data(settings.attacks, size.num_classes, "plan")
