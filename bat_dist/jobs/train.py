"""One training run, carried out in this process, or data-parallel on Ray Train."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from bat_dist.artifacts.checkpoints import load_tensors
from bat_dist.data.loaders import Loader, check_cache, dataset_loader
from bat_dist.errors import RunError, is_gpu_full
from bat_dist.jobs.auto import decide_precision, say
from bat_dist.jobs.epochs_at_work import EpochsAtWork
from bat_dist.jobs.fresh import remove_training
from bat_dist.jobs.training_plan import OnEpoch, TrainingPlan, make_plan
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import TRAIN, note_settings
from bat_dist.training import files, run
from bat_dist.training.epoch import NonFiniteBatch
from bat_dist.training.files import EpochRow, FinishedRun
from bat_dist.training.freed_memory import keep_freed_memory
from bat_dist.training.precision import Hardware, default_device, this_hardware
from bat_dist.training.threads import torch_threads
from bat_dist.workers.gpu_share import gpu_full, part_of_gpu
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.pace import progress
from bat_dist.workers.private_ray import wants_private
from bat_dist.workers.share import HERE, ToldLoader
from bat_dist.workers.terms import PRIVATE_RAY, ClusterTerms

if TYPE_CHECKING:
    from bat_dist.workers.resources import Resources  # imports ray, which one process can do without

log = logging.getLogger(__name__)


def carry_out(
    plan: TrainingPlan,
    *,
    on_epoch: OnEpoch = lambda row: None,
    dataset_ref: Any = None,
    is_shown: bool = False,
) -> FinishedRun:
    """Train, or go on, or find that it is done; returns the run's summary.

    on_epoch: called with each epoch's row of the history, once it is on disk.
    dataset_ref: Ray's reference to the plan's dataset, if it has one already.
    is_shown: show epochs and the time left on stderr, as `pace.progress` does.
    Raises UserError for a folder that holds another run or a damaged state, RunError if the training fails.
    """
    folder = plan.record.folder
    if not plan.asked.fresh:
        run.check_identity(plan.record)
        if done := files.finished(folder):
            log.info("%s holds this run, trained to its end", folder)
            folder.remove(files.STATE)  # left by a process that was killed when `run.finish` had only this to do
            return done
        if folder.exists(files.STATE):
            load_tensors(folder, files.STATE)  # a damaged one is better found here than by each worker
    if not plan.asked.num_workers or wants_private(plan.asked.ray_address):
        on_gpu = default_device().type == "cuda" and not (plan.asked.num_workers and plan.asked.gpus_per_worker == 0)
        check_cache(plan.asked.loader, plan.dataset, ("train", "test") if plan.watched else ("train",), on_gpu=on_gpu)
    heart = Heartbeat(folder, "epochs", total=plan.settings.recipe.epochs)
    with heart, _room(plan.asked, folder) as (each, terms):
        if plan.asked.fresh:
            remove_training(folder)
            plan = dataclasses.replace(plan, asked=dataclasses.replace(plan.asked, fresh=False))
        plan = _decided(plan, each)
        say(plan.chosen)
        workers, wanted = max(1, plan.asked.num_workers), plan.asked.cpus_per_worker
        threads = run.begin(plan.record, workers=workers, threads=wanted, chosen=plan.chosen).threads
        if threads != wanted:  # sums in another order have other last bits
            text = "going on with %d threads, as the run was begun, not with the %d of cpus_per_worker"
            log.info(text, threads, wanted)
        note_settings(folder, TRAIN, plan.asked)
        epochs = EpochsAtWork(plan, heart, on_epoch)
        try:
            with progress(epochs.pace) if is_shown else nullcontext():
                if each:
                    from bat_dist.jobs.train_on_ray import train_on_ray

                    history = train_on_ray(plan, each, terms, threads, epochs, dataset_ref)
                else:
                    history = _train_here(plan, threads, epochs)
        except NonFiniteBatch as error:
            raise RunError(f"{error} (its samples are named in {folder}/{files.NON_FINITE})") from None
        except RuntimeError as error:
            if isinstance(error, RunError) or not is_gpu_full(error):
                raise
            raise RunError(gpu_full(error, plan.asked.gpus_per_worker or 1)) from error
    return run.finish(plan.record, plan.settings, history)


def _decided(plan: TrainingPlan, each: "Resources | None") -> TrainingPlan:
    """The plan in the precision of those who will carry it out: workers with these resources, or this process."""

    def hardware() -> Sequence[Hardware]:
        if each is None:
            return [this_hardware()]
        from bat_dist.workers.hardware import hardware_of_workers

        return hardware_of_workers(each)

    precision, chosen = decide_precision(plan.asked.precision, hardware, of_attack=plan.asked.attack_precision)
    if plan.asked.precision == precision:
        return plan
    asked = dataclasses.replace(plan.asked, precision=precision)
    decided = make_plan(plan.dataset, asked, find_scores=lambda *_: plan.scores)
    return dataclasses.replace(decided, chosen=plan.chosen | chosen)


def _train_here(plan: TrainingPlan, threads: int, epochs: EpochsAtWork) -> list[EpochRow]:
    device = default_device()
    how = {"device": device, "gpu_share": part_of_gpu()}

    def told(part: float) -> None:
        epochs.add(part)
        HERE.add(part / plan.settings.recipe.epochs)  # where the training is a worker's unit

    def open_loader(split: str) -> Loader:
        return ToldLoader(dataset_loader(plan.asked.loader, plan.dataset, split, **how), told, epochs=1)

    data = plan.material(open_loader)
    keep_freed_memory()
    with torch_threads(threads):
        return run.train(
            plan.settings,
            data,
            plan.record,
            device=device,
            open_trackers=plan.open_trackers,
            on_epoch=epochs.finished,
        )


@contextmanager
def _room(asked: TrainSettings, folder: Folder) -> Iterator[tuple["Resources | None", ClusterTerms]]:
    """A Ray session with room for all workers: what each occupies, and its terms; without workers there is none."""
    if not asked.num_workers:
        yield None, PRIVATE_RAY
        return
    from bat_dist.workers.nodes import job_session
    from bat_dist.workers.resources import worker_resources

    with job_session(asked, folder, all_write=True) as terms:
        each = worker_resources(
            asked.cpus_per_worker,
            asked.gpus_per_worker,
            of="worker",
            number=asked.num_workers,
            wait_minutes=terms.wait_minutes,
        )
        yield each, terms
