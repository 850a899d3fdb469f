"""A data-parallel training on Ray Train.  Imported only where there are workers: one process can do without ray."""

import dataclasses
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device

from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.data.table import augmentation_of
from bat_dist.errors import RunError, UserError, is_gpu_full
from bat_dist.jobs.epochs_at_work import EpochsAtWork
from bat_dist.jobs.training_plan import TrainingPlan
from bat_dist.training import files, run
from bat_dist.training.epoch import NonFiniteBatch
from bat_dist.training.files import EpochRow
from bat_dist.training.freed_memory import keep_freed_memory
from bat_dist.training.precision import check_tf32, this_hardware
from bat_dist.training.world import World
from bat_dist.workers.gpu_share import gpu_full, part_of_gpu
from bat_dist.workers.metrics import CountedLoader, EpochTracker, keep_telling, tell_gpu_memory
from bat_dist.workers.resources import Resources
from bat_dist.workers.restarts import RestartNotes, Restarts
from bat_dist.workers.session import ray_storage
from bat_dist.workers.share import HERE, EpochShares, ToldLoader, forget, told_share
from bat_dist.workers.terms import ClusterTerms

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0


def train_on_ray(
    plan: TrainingPlan, each: Resources, terms: ClusterTerms, threads: int, epochs: EpochsAtWork, dataset_ref: Any
) -> list[EpochRow]:
    """Data-parallel training; a lost worker or machine costs the epoch it was in.

    each: what a worker occupies. terms: what it must meet; UserError, naming its host, is raised if one does not.
    """
    # A worker is in a folder of Ray's, where a relative name would lead elsewhere.
    asked = dataclasses.replace(plan.asked, out=plan.record.folder.absolute_location)
    plan = dataclasses.replace(plan, asked=asked)
    config = {
        "dataset": dataset_ref or ray.put(plan.dataset),
        "plan": ray.put(dataclasses.replace(plan, dataset=None)),
        "threads": threads,
        "terms": terms,
    }
    with ray_storage(plan.record.folder) as storage, _followed(plan, epochs):
        trainer = TorchTrainer(
            _train_rank,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(
                num_workers=plan.asked.num_workers, use_gpu=bool(each.gpus), resources_per_worker=each.bundle
            ),
            run_config=ray.train.RunConfig(
                **storage._asdict(),
                failure_config=ray.train.FailureConfig(max_failures=plan.asked.max_failures),
                callbacks=[RestartNotes(asked.out)],
            ),
        )
        try:
            outcome = trainer.fit().return_value or {}
        except ray.train.TrainingFailedError as error:
            raise RunError(f"{error}\nfinished epochs are kept; the same command goes on from there") from None
    if "refused" in outcome:
        raise UserError(outcome["refused"])
    if "non_finite" in outcome:
        raise NonFiniteBatch(outcome["non_finite"], [])
    return outcome["history"]


def _train_rank(config: dict[str, Any]) -> dict[str, Any]:
    """What each rank does; rank 0's answer reaches the driver."""
    logging.getLogger("bat_dist").setLevel(logging.INFO)
    world = World.current()
    said = world.concatenate(_refused(config["terms"]))
    if refused := "\n".join(dict.fromkeys(filter(None, said))):  # ranks of one machine say the same
        return {"refused": refused}  # by all ranks, and not raised: Ray would start them again, on the same machines
    torch.set_num_threads(config["threads"])
    keep_freed_memory()
    bare: Any = ray.get(config["plan"])
    dataset: Dataset = ray.get(config["dataset"])
    plan: TrainingPlan = dataclasses.replace(bare, dataset=dataset.augmented(**augmentation_of(bare.asked)))
    device = get_device()
    if "tf32" in (plan.settings.step.precision, plan.settings.step.attack.precision):  # a late node was not asked
        check_tf32([this_hardware()])

    def open_loader(split: str) -> ToldLoader:
        how = {"device": device, "gpu_share": part_of_gpu()}
        loader = CountedLoader(dataset_loader(plan.asked.loader, plan.dataset, split, **how), "training")
        return ToldLoader(loader, HERE.add, epochs=1)

    if device.type == "cuda":
        keep_telling(partial(tell_gpu_memory, "training"))
    try:
        history = run.train(
            plan.settings,
            plan.material(open_loader),
            plan.record,
            device=device,
            world=world,
            open_trackers=lambda first: [
                *plan.open_trackers(first),
                EpochTracker(first),
                EpochShares(first, plan.asked.out),
            ],
        )
    except NonFiniteBatch as error:  # returned, not raised: Ray would train it again, to the same end
        return {"non_finite": str(error)}
    except RuntimeError as error:  # Ray tries again, max_failures times
        if not is_gpu_full(error):
            raise
        raise RunError(gpu_full(error, 1)) from error
    return {"history": history}


def _refused(terms: ClusterTerms) -> str:
    """Why this machine, which may have joined late, cannot train; empty if it can.  A rank reads and writes the run."""
    try:
        terms.check_here()
    except UserError as error:
        return str(error)
    return ""


@contextmanager
def _followed(plan: TrainingPlan, epochs: EpochsAtWork) -> Iterator[None]:
    """Log and tell the epochs that appear in the folder's history while the block runs."""
    folder = plan.record.folder
    done, stop = len(files.read_history(folder)), threading.Event()
    restarts = Restarts(folder.absolute_location, plan.asked.max_failures)

    def follow() -> None:
        seen = done
        ending = False
        while not ending:
            ending = stop.wait(FOLLOW_SECONDS)  # and one last look
            restarts.tell()
            try:
                rows = files.read_history(folder)
            except Exception as error:  # of any file system; the training has its own word on it
                log.warning("%s cannot be read: %s", folder, error)
                continue
            for row in rows[seen:]:
                log.info(files.epoch_line(row, plan.settings.recipe.epochs, is_last_word=False))
                epochs.finished(row)
            seen = max(seen, len(rows))
            epochs.reached(told_share(folder.absolute_location, epochs.now))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        forget(folder.absolute_location)
        restarts.forget()
