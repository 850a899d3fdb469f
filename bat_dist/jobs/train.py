"""One training run: settings to a plan, then in this process, or data-parallel on Ray Train."""

import dataclasses
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bat_dist.artifacts.checkpoints import load_tensors
from bat_dist.config import to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import Loader, check_cache, dataset_loader
from bat_dist.errors import RunError, UserError
from bat_dist.jobs.auto import Chosen, as_begun, decide_precision, say, with_arch
from bat_dist.jobs.fresh import remove_training
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.table import build_method
from bat_dist.models.names import AUTO
from bat_dist.settings.fields import ARCH_OF_TRAINING
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import TRAIN, note_settings
from bat_dist.training import files, run
from bat_dist.training.epoch import NonFiniteBatch, StepSettings
from bat_dist.training.files import EpochRow, FinishedRun
from bat_dist.training.precision import Hardware, default_device, this_hardware
from bat_dist.training.run import Record, TrainingData, TrainingSettings
from bat_dist.training.score_file import TrainingScores, read_scores
from bat_dist.training.splits import Held, default_num_val, hold_out
from bat_dist.training.step import batch_sizes
from bat_dist.training.threads import torch_threads
from bat_dist.training.trackers import Tracker, open_trackers
from bat_dist.training.world import World
from bat_dist.wording import counted
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.private_ray import wants_private
from bat_dist.workers.running import Running

if TYPE_CHECKING:
    from bat_dist.workers.resources import Resources  # imports ray, which one process can do without

log = logging.getLogger(__name__)

EPOCHS = "epochs"  # the units are called, in the driver's sign of life
FOLLOW_SECONDS = 1.0

OnEpoch = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class TrainingPlan:
    """A run, worked out from what the user asked for; plain enough to travel to workers.

    asked: what the user set, without auto, but for a precision that its workers are yet to decide; till then the rest
    has fp32. chosen: what auto stands for, and why.
    """

    asked: TrainSettings
    settings: TrainingSettings
    dataset: Dataset
    held: Held
    scores: TrainingScores | None
    identity: dict[str, Any]
    facts: dict[str, Any]
    chosen: Chosen

    @property
    def record(self) -> Record:
        """Where it is kept."""
        return Record(Folder(self.asked.out), self.identity, self.facts)

    def material(self, loader: Loader) -> TrainingData:
        """What it is trained on."""
        mem, subsets = (self.scores.values, self.scores.subsets) if self.scores else (None, {})
        return TrainingData(self.dataset, loader, self.held, mem, subsets)


def scores_of(dataset: Dataset, asked: TrainSettings) -> TrainingScores | None:
    """The scores that the settings name, read from their file.  Raises UserError as `read_scores`."""
    if asked.scores:
        chosen: dict[str, Any] = {"score": asked.score, "sigma": asked.sigma, "atypical_share": asked.atypical_share}
        return read_scores(asked.scores, dataset, **chosen, undefined=asked.undefined)
    if asked.sigma is not None or asked.atypical_share is not None:
        raise UserError("sigma and atypical_share say which scores are atypical: give --scores too")
    return None


def make_plan(
    dataset: Dataset,
    asked: TrainSettings,
    *,
    find_scores: Callable[[Dataset, TrainSettings], TrainingScores | None] = scores_of,
) -> TrainingPlan:
    """Check everything that can be checked before anything is written.

    Raises UserError for hyper-parameters, scores or a validation split that do not fit.
    """
    asked, chosen = _settled(dataset, asked)
    dataset = dataset.augmented(asked.crop_padding, asked.flip)
    precision = "fp32" if asked.precision == AUTO else asked.precision
    scores = find_scores(dataset, asked)
    try:
        given = asked.hyper_parameters
        if asked.method == "bat" and scores is not None:
            given = {"sigma": scores.sigma, **given}
        method = build_method(asked.method, given)
        method.check_attack(asked.num_steps)
        held = hold_out(dataset.train.labels, asked.num_val or default_num_val(len(dataset.train)), seed=asked.val_seed)
        _check_batches(asked, dataset, held, scores)
    except ValueError as error:
        raise UserError(str(error)) from None
    attack = TrainingAttack(
        epsilon=asked.epsilon or dataset.spec.epsilon,
        step_size=asked.step_size or dataset.spec.step_size,
        num_steps=asked.num_steps,
        precision=asked.attack_precision or precision,
        mode=asked.attack_mode,
        random_start=asked.random_start,
    )
    val_steps = asked.num_steps if asked.val_steps is None else asked.val_steps
    judge = dataclasses.replace(attack, num_steps=val_steps, mode="eval", random_start=True) if val_steps else None
    step = StepSettings(method, attack, precision, asked.awp, asked.awp_from - 1, asked.clip_norm)
    settings = TrainingSettings(
        arch=asked.arch,
        recipe=asked.training,
        step=step,
        validation_attack=judge,
        best_by=asked.best_by or ("val_clean" if asked.method == "erm" or judge is None else "val_pgd"),
        seed=asked.seed,
        ema=asked.ema,
        sync_bn=asked.sync_bn,
    )
    facts = _facts(asked, dataset, settings, held, scores)
    identity = _flat(facts) | {"num_workers": asked.separate_batch_norms}
    return TrainingPlan(asked, settings, dataset, held, scores, identity, facts, chosen)


def _settled(dataset: Dataset, asked: TrainSettings) -> tuple[TrainSettings, Chosen]:
    """The settings without auto, as far as the folder and the data tell; and what was chosen."""
    wanted = AUTO in (asked.arch, asked.precision) and not asked.fresh
    asked, as_before = as_begun(asked, files.begun_identity(Folder(asked.out)) if wanted else {})
    asked, suited = with_arch(asked, dataset.train.images.shape[1], ARCH_OF_TRAINING)
    return asked, as_before | suited


def _decided(plan: TrainingPlan, each: "Resources | None") -> TrainingPlan:
    """The plan in the precision of those who will carry it out."""
    precision, chosen = decide_precision(plan.asked.precision, partial(_hardware, each))
    if plan.asked.precision == precision:
        return plan
    asked = dataclasses.replace(plan.asked, precision=precision)
    decided = make_plan(plan.dataset, asked, find_scores=lambda *_: plan.scores)
    return dataclasses.replace(decided, chosen=plan.chosen | chosen)


def _hardware(each: "Resources | None") -> Sequence[Hardware]:
    if each is None:
        return [this_hardware()]
    from bat_dist.workers.hardware import hardware_of_workers

    return hardware_of_workers(each)


def _check_batches(asked: TrainSettings, dataset: Dataset, held: Held, scores: TrainingScores | None) -> None:
    """Raise ValueError if a batch can never hold what the method needs; warn if it will seldom."""
    size, workers = asked.training.batch_size, max(1, asked.num_workers)
    if not batch_sizes(len(held.train), size, workers):
        raise ValueError(
            f"{counted(len(held.train), 'training sample')} are too few for {counted(workers, 'worker')}: "
            "each needs two at least; lower num_workers"
        )
    if asked.method != "bat" or scores is None or asked.beta == 0:
        return
    if size < 3:
        raise ValueError(f"batch_size must be at least 3 for the discrimination loss, got {size}: or set beta 0")
    typical = np.bincount(dataset.train.labels[held.train][scores.values[held.train] < scores.sigma])
    share = typical / max(1, len(held.train))  # of a batch, by class
    partners = 1 - (1 - share) ** (size - 1)  # chance that a sample of the class has another one beside it
    paired = float((share * partners).sum() / share.sum()) if share.sum() else 0.0
    if paired < 0.5:
        log.warning(
            "batch_size %d: only %.0f%% of the typical samples will find another of their class in their batch, "
            "which the discrimination loss needs; a larger batch_size would help",
            size,
            100 * paired,
        )


def carry_out(plan: TrainingPlan, *, on_epoch: OnEpoch = lambda row: None, dataset_ref: Any = None) -> FinishedRun:
    """Train, or go on, or find that it is done; returns the run's summary.

    on_epoch: called with each epoch's row of the history, once it is on disk.
    dataset_ref: Ray's reference to the plan's dataset, if it has one already.
    Raises UserError for a folder that holds another run or a damaged state, RunError if the training fails.
    """
    folder = plan.record.folder
    if not plan.asked.fresh:
        run.check_identity(plan.record)
        if done := files.finished(folder):
            log.info("%s holds this run, trained to its end", folder)
            return done
        if folder.exists(files.STATE):
            load_tensors(folder, files.STATE)  # a damaged one is better found here than by each worker
    if not plan.asked.num_workers or wants_private(plan.asked.ray_address):
        check_cache(plan.asked.loader, plan.dataset, ("train",))
    heart = Heartbeat(folder, EPOCHS, total=plan.settings.recipe.epochs)
    with heart, _room(plan.asked, folder) as each:
        if plan.asked.fresh:
            remove_training(folder)
            plan = dataclasses.replace(plan, asked=dataclasses.replace(plan.asked, fresh=False))
        plan = _decided(plan, each)
        record = plan.record
        say(plan.chosen)
        workers = max(1, plan.asked.num_workers)
        begun = run.begin(record, workers=workers, threads=plan.asked.cpus_per_worker, chosen=plan.chosen)
        threads = _as_begun(begun.threads, plan.asked.cpus_per_worker)
        note_settings(folder, TRAIN, plan.asked)
        told = _told(plan, heart, on_epoch)
        try:
            if each:
                history = _train_on_ray(plan, each, threads, told, dataset_ref)
            else:
                history = _train_here(plan, threads, told)
        except NonFiniteBatch as error:
            raise RunError(f"{error} (its samples are named in {folder}/{files.NON_FINITE})") from None
    return run.finish(record, plan.settings, history)


def _as_begun(threads: int, asked: int) -> int:
    """The number that the run was begun with, since sums in another order have other last bits."""
    if threads != asked:
        log.info("going on with %d threads, as the run was begun, not with the %d of cpus_per_worker", threads, asked)
    return threads


def _told(plan: TrainingPlan, heart: Heartbeat, on_epoch: OnEpoch) -> OnEpoch:
    """The function for the end of each epoch, which tells the driver's sign of life too."""
    done = len(files.read_history(plan.record.folder))
    now, since = done + 1, time.monotonic()
    workers = plan.asked.num_workers
    place = counted(workers, "worker") if workers else socket.gethostname()

    def told(row: Mapping[str, Any]) -> None:
        nonlocal now, since
        now, since = row["epoch"] + 1, time.monotonic()
        heart.step(failed=0)
        on_epoch(row)

    heart.begin(done=done)
    heart.watch(lambda: [Running(now, place, os.getpid(), time.monotonic() - since)])
    return told


def _train_here(plan: TrainingPlan, threads: int, on_epoch: OnEpoch) -> list[EpochRow]:
    device = default_device()
    material = plan.material(dataset_loader(plan.asked.loader, plan.dataset, "train", device=device))
    how: dict[str, Any] = {"device": device, "open_trackers": partial(_open_trackers, plan), "on_epoch": on_epoch}
    with torch_threads(threads):
        return run.train(plan.settings, material, plan.record, **how)


@contextmanager
def _room(asked: TrainSettings, folder: Folder) -> Iterator["Resources | None"]:
    """A Ray session with room for all workers, and what each occupies; without workers there is neither."""
    if not asked.num_workers:
        yield None
        return
    from bat_dist.workers.nodes import job_session
    from bat_dist.workers.resources import worker_resources

    with job_session(asked, folder, all_write=True) as terms:
        yield worker_resources(
            asked.cpus_per_worker,
            asked.gpus_per_worker,
            of="worker",
            number=asked.num_workers,
            wait_minutes=terms.wait_minutes,
        )


def _train_on_ray(
    plan: TrainingPlan, each: "Resources", threads: int, on_epoch: OnEpoch, dataset_ref: Any
) -> list[EpochRow]:
    """Data-parallel training; a lost worker or machine costs the epoch it was in.  each: what a worker occupies."""
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    config = {
        "dataset": dataset_ref or ray.put(plan.dataset),
        "plan": ray.put(dataclasses.replace(plan, dataset=None)),
        "threads": threads,
    }
    with ray_storage(plan.record.folder) as storage, _followed(plan, on_epoch):
        trainer = TorchTrainer(
            _worker,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(
                num_workers=plan.asked.num_workers, use_gpu=bool(each.gpus), resources_per_worker=each.bundle
            ),
            run_config=ray.train.RunConfig(
                **storage, failure_config=ray.train.FailureConfig(max_failures=plan.asked.max_failures)
            ),
        )
        try:
            outcome = trainer.fit().return_value or {}
        except ray.train.TrainingFailedError as error:
            raise RunError(f"{error}\nfinished epochs are kept; the same command goes on from there") from None
    if "non_finite" in outcome:
        raise NonFiniteBatch(outcome["non_finite"], [])
    return outcome["history"]


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """What each rank does; rank 0's answer reaches the driver."""
    import ray
    import ray.train.torch

    from bat_dist.workers.metrics import CountedLoader, EpochTracker, keep_telling, tell_gpu_memory

    logging.getLogger("bat_dist").setLevel(logging.INFO)
    torch.set_num_threads(config["threads"])
    bare: Any = ray.get(config["plan"])
    dataset: Dataset = ray.get(config["dataset"])
    plan: TrainingPlan = dataclasses.replace(bare, dataset=dataset.augmented(bare.asked.crop_padding, bare.asked.flip))
    device = ray.train.torch.get_device()
    loader = CountedLoader(dataset_loader(plan.asked.loader, plan.dataset, "train", device=device), "training")
    if device.type == "cuda":
        keep_telling(partial(tell_gpu_memory, "training"))
    try:
        history = run.train(
            plan.settings,
            plan.material(loader),
            plan.record,
            device=device,
            world=World.current(),
            open_trackers=lambda first: [*_open_trackers(plan, first), EpochTracker(first)],
        )
    except NonFiniteBatch as error:  # returned, not raised: Ray would train it again, to the same end
        return {"non_finite": str(error)}
    return {"history": history}


@contextmanager
def ray_storage(folder: Folder) -> Iterator[dict[str, Any]]:
    """Where Ray Train and Tune may keep their own notes: below the folder, which all machines see; removed at the end.

    A new name each time: a run that Ray has seen end it would not start again, and the resume state is ours.
    """
    import pyarrow.fs

    name = f".ray-{secrets.token_hex(4)}"
    if folder.local_path is not None:
        place = {"storage_path": str(folder.local_path.absolute())}
    else:
        handler = pyarrow.fs.FSSpecHandler(folder.fs)
        place = {"storage_path": folder.root, "storage_filesystem": pyarrow.fs.PyFileSystem(handler)}
    try:
        yield {"name": name, **place}
    finally:
        folder.remove_folder(name)


@contextmanager
def _followed(plan: TrainingPlan, on_epoch: OnEpoch) -> Iterator[None]:
    """Log and tell the epochs that appear in the folder's history while the block runs."""
    folder = plan.record.folder
    done, stop = len(files.read_history(folder)), threading.Event()

    def follow() -> None:
        seen = done
        ending = False
        while not ending:
            ending = stop.wait(FOLLOW_SECONDS)  # and one last look
            try:
                rows = files.read_history(folder)
            except Exception as error:  # of any file system; the training has its own word on it
                log.warning("%s cannot be read: %s", folder, error)
                continue
            for row in rows[seen:]:
                log.info(files.epoch_line(row, plan.settings.recipe.epochs))
                on_epoch(row)
            seen = max(seen, len(rows))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _open_trackers(plan: TrainingPlan, first_epoch: int) -> list[Tracker]:
    asked = plan.asked
    name = f"{plan.facts['method']}-{plan.settings.arch}-{plan.dataset.name}-seed{plan.settings.seed}"
    return open_trackers(asked.track, out=asked.out, settings=to_dict(asked), run_name=name, first_epoch=first_epoch)


def _facts(
    asked: TrainSettings,
    dataset: Dataset,
    settings: TrainingSettings,
    held: Held,
    scores: TrainingScores | None,
) -> dict[str, Any]:
    """What a checkpoint says of its making: plain values that, with the data, decide it."""
    step = settings.step
    return {
        "method": asked.method,
        "method_settings": _plain(dataclasses.asdict(step.method)),  # pyright: ignore[reportArgumentType]
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        **dataset.spec.own_augmentation,
        "num_train": len(held.train),
        "num_val": len(held.validation),
        "val_seed": asked.val_seed,
        "scores": f"{scores.name} {scores.digest}" if scores else None,
        "arch": settings.arch,
        "recipe": dataclasses.asdict(settings.recipe) | {"milestones": list(settings.recipe.milestones)},
        "epochs": settings.recipe.epochs,
        **{name: getattr(step.attack, name) for name in ("epsilon", "step_size", "num_steps", "random_start")},
        "attack_mode": step.attack.mode,
        "attack_precision": step.attack.precision,
        "val_steps": settings.validation_attack.num_steps if settings.validation_attack else 0,
        "best_by": settings.best_by,
        "precision": step.precision,
        "ema": settings.ema,
        **({"ema_warm_up": True} if settings.ema else {}),
        "awp": step.awp,
        "awp_from": step.awp_from + 1,
        "clip_norm": step.clip_norm,
        "sync_bn": settings.sync_bn,
        **({"num_workers": asked.separate_batch_norms} if asked.separate_batch_norms > 1 else {}),
        "seed": settings.seed,
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {name: str(v) if isinstance(v, float) and math.isinf(v) else v for name, v in values.items()}


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run: nested settings under names of their own, so that differences can be named."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return flat
