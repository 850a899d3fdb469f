"""A training run: epochs, validation, checkpoints; resumed from the last epoch that was finished.

Files of a run's folder, each of which appears whole: `state.safetensors` is the truth while the run goes on (weights,
momentum, history); `last` and `best.safetensors`, `history.csv` follow from it. `run.json` with "finished" is written
last, and then the state is removed.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from bat_dist.artifacts.checkpoints import ModelSpec, load_tensors, save_model, save_tensors
from bat_dist.config import differences
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import Loader
from bat_dist.errors import WAY_OUT, UserError
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.models.own import OwnNetwork
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance
from bat_dist.training import files
from bat_dist.training.epoch import NonFiniteBatch, StepSettings, train_epoch
from bat_dist.training.files import Criterion, EpochRow, FinishedRun, RunFile
from bat_dist.training.precision import computed_on
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Recipe
from bat_dist.training.robustness import clean_and_pgd_correct
from bat_dist.training.seeding import seed_of, seeded_model
from bat_dist.training.splits import Held
from bat_dist.training.sync_batch_norm import synchronize_batch_norm
from bat_dist.training.trackers import Tracker
from bat_dist.training.watched import WatchedSets
from bat_dist.training.world import THIS_PROCESS, World

log = logging.getLogger(__name__)

NOISE = {"noise": "by sample"}
"""Part of every run's identity: attacks start from noise that each sample draws; earlier versions drew it by batch."""
_INIT, _VALIDATION = 10, 13  # streams of randomness, beside those of `epoch`


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides a run's result, beside the data, the scores and the split."""

    arch: str | OwnNetwork
    recipe: Recipe
    step: StepSettings
    validation_attack: TrainingAttack | None  # None: clean accuracy alone
    best_by: Criterion
    seed: int
    ema: float | None = None
    sync_bn: bool = False


@dataclass(frozen=True)
class TrainingData:
    """What is trained on. mem: of every training sample, None without scores. subsets: of training samples, by name.

    watched: sets whose accuracies each epoch's row tells. loaders: of the splits that these sets are of.
    """

    dataset: Dataset
    loader: Loader
    held: Held
    mem: Float[np.ndarray, " samples"] | None = None
    subsets: Mapping[str, Bool[np.ndarray, " samples"]] = field(default_factory=dict)
    watched: WatchedSets | None = None
    loaders: Mapping[str, Loader] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """Where a run is kept. identity: flat plain values that must agree for a resume. facts: go into checkpoints."""

    folder: Folder
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]


def train(
    settings: TrainingSettings,
    material: TrainingData,
    record: Record,
    *,
    device: torch.device,
    world: World = THIS_PROCESS,
    open_trackers: Callable[[int], Sequence[Tracker]] = lambda first_epoch: (),
    on_epoch: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> list[EpochRow]:
    """Train from where the folder's state stands to the last epoch; returns the history, a row per epoch.

    All ranks call it; only rank 0 writes. open_trackers: called by rank 0 with the first epoch (from 1) to be run.
    on_epoch: called by rank 0 with the row of an epoch that is safe on disk; what it raises ends the training.
    Raises UserError if the folder holds a run of another identity or a damaged state; NonFiniteBatch, on all ranks,
    after the batch's indices have been written to `non_finite.json`.
    """
    network = seeded_model(settings.arch, material.dataset, device, key=(settings.seed, _INIT))
    if settings.sync_bn and world.size > 1:
        network = synchronize_batch_norm(network)
    progress = Progress(network, settings.recipe, ema=settings.ema)
    _restore(progress, record)
    forward = world.parallel(network)
    mem = None if material.mem is None else torch.as_tensor(material.mem, dtype=torch.float32, device=device)
    if progress.epoch < settings.recipe.epochs:
        hardware = world.concatenate(computed_on())
        if world.rank == 0:
            files.note_hardware(record.folder, hardware)
    trackers = open_trackers(progress.epoch + 1) if world.rank == 0 else ()
    try:
        while progress.epoch < settings.recipe.epochs:
            start = time.perf_counter()
            loss = _train_epoch(progress, forward, settings, material, record, mem, world)
            trained = time.perf_counter()
            for one in dict.fromkeys((network, progress.judged)):  # averaged weights have statistics of their own
                world.average_buffers(one)
            row: EpochRow = {
                "epoch": progress.epoch + 1,
                "lr": progress.optimizer.lr,
                "train_loss": loss,
                **_validate(progress, settings, material, world),
                "train_seconds": round(trained - start, 3),
                "validation_seconds": round(time.perf_counter() - trained, 3),
            }
            progress.history.append(row)
            if world.rank == 0:
                for tracker in trackers:  # before the save: an epoch that is run again may be logged again
                    tracker.log(progress.epoch, {name: value for name, value in row.items() if name != "epoch"})
                _save(progress, settings, material, record)
                log.info(files.epoch_line(row, settings.recipe.epochs, is_last_word=False))
                on_epoch(row)
    finally:
        for tracker in trackers:
            tracker.close()
    return progress.history


def check_identity(record: Record) -> None:
    """Raise UserError, naming what differs, if the folder holds a run of another identity, an epoch of it finished.

    What versions without `NOISE` have finished is good for what it was; what they have begun ends with them only.
    """
    begun = files.begun_identity(record.folder)
    if begun and NOISE.keys() <= record.identity.keys() - begun.keys():
        if files.finished(record.folder) is None:
            raise UserError(
                f"{record.folder} holds a run that an earlier version began, whose attacks started elsewhere: finish "
                "it with that version, use another --out, or --fresh to replace it"
            )
        begun = {**begun, **NOISE}
    if begun and (differs := differences(begun, record.identity)):
        raise UserError(f"{record.folder} holds another run; {WAY_OUT}\n" + "\n".join(differs))


def begin(record: Record, *, workers: int = 1, threads: int = 1, chosen: Mapping[str, str] | None = None) -> RunFile:
    """Write `run.json` of a run that begins or goes on; returns what it says.

    workers: how many share a batch. threads: of each worker. chosen: what `auto` stands for, and why. Of a run that
    goes on, what its first `run.json` said of threads and choices stays. What a run of another identity left without
    having finished an epoch is removed.
    """
    folder = record.folder
    there = files.read_run(folder) if folder.exists(files.RUN) else RunFile()
    if there.identity and differences(there.identity, record.identity):
        log.info("%s was made for another run, and not one epoch is finished: it is replaced", folder)
        files.remove(folder)
        there = RunFile()
    folder.remove(files.NON_FINITE)
    kept = there if files.is_begun(folder) else RunFile()
    had = list(kept.workers)
    run = RunFile(
        identity=record.identity,
        workers=had if had[-1:] == [workers] else [*had, workers],
        begun=there.begun or _now(),
        threads=kept.threads or threads,
        chosen=dict(chosen or {}) if kept.chosen is None else kept.chosen,
        computed_on=kept.computed_on,
        origin=provenance(),
    )
    files.write_run(folder, run)
    return run


def finish(record: Record, settings: TrainingSettings, history: Sequence[EpochRow]) -> FinishedRun:
    """Close a run: `run.json` says finished, and the state goes.  Returns what it says; raises as `check_last`."""
    files.check_last(record.folder)
    files.write_history(record.folder, history)
    run = FinishedRun(
        **vars(files.read_run(record.folder)),
        ended=_now(),
        best_by=settings.best_by,
        best=history[files.best_epoch(history, settings.best_by) - 1],
        last=history[-1],
        seconds=files.training_seconds(history),
    )
    files.write_run(record.folder, run)
    record.folder.remove(files.STATE)
    return run


def _restore(progress: Progress, record: Record) -> None:
    if not record.folder.exists(files.STATE):
        return
    tensors, about = load_tensors(record.folder, files.STATE)
    if differs := differences(about.get("identity", record.identity), record.identity):  # of earlier versions: unknown
        raise UserError(f"{record.folder}/{files.STATE} is of another run; {WAY_OUT}\n" + "\n".join(differs))
    try:
        progress.restore(tensors, about["history"])
    except (RuntimeError, KeyError) as error:
        raise UserError(f"{record.folder}/{files.STATE} is not the state of this run ({error}): remove it") from None
    log.info("going on after epoch %d", progress.epoch)


def _train_epoch(
    progress: Progress,
    forward: Callable[..., Any],
    settings: TrainingSettings,
    material: TrainingData,
    record: Record,
    mem: torch.Tensor | None,
    world: World,
) -> float:
    try:
        return train_epoch(
            progress,
            forward,
            material.loader,
            material.held.train,
            recipe=settings.recipe,
            settings=settings.step,
            mem=mem,
            seed=settings.seed,
            world=world,
        )
    except NonFiniteBatch as error:
        if world.rank == 0:
            ids = material.dataset.train.ids[error.indices]
            document = {"message": str(error), "indices": error.indices, "ids": ids.tolist()}
            record.folder.write_json(files.NON_FINITE, document)
        raise


def _validate(
    progress: Progress, settings: TrainingSettings, material: TrainingData, world: World
) -> dict[str, float | None]:
    """Accuracies on the validation split, on its part of each subset, and on watched sets; None: nothing to count."""
    clean, attacked = clean_and_pgd_correct(
        progress.judged,
        material.loader,
        material.held.validation,
        attack=settings.validation_attack,
        precision=settings.step.precision,
        seed=seed_of(settings.seed, _VALIDATION),
        world=world,
    )
    found: dict[str, float | None] = {}
    for name, correct in (("val_clean", clean), ("val_pgd", attacked)):
        if correct is None:
            continue
        found[name] = float(correct.mean())
        for subset, members in material.subsets.items():
            chosen = correct[members[material.held.validation]]
            found[f"{name}_{subset}"] = float(chosen.mean()) if len(chosen) else None
    if material.watched:
        found |= material.watched.accuracies(
            progress.judged,
            material.loaders,
            epoch=progress.epoch + 1,
            last=settings.recipe.epochs,
            precision=settings.step.precision,
            seed=settings.seed,
            world=world,
        )
    return found


def _save(progress: Progress, settings: TrainingSettings, material: TrainingData, record: Record) -> None:
    """The best first: should the process die between two files, the same epoch is run again and writes the same."""
    dataset, history = material.dataset, progress.history
    size = dataset.train.images.shape[1]
    spec = ModelSpec.of(settings.arch, dataset.class_names, size, dataset.spec.mean, dataset.spec.std)
    weights = progress.judged.state_dict()
    facts = {**record.facts, **{name: v for name, v in history[-1].items() if "seconds" not in name}}
    if files.best_epoch(history, settings.best_by) == progress.epoch:
        save_model(record.folder, "best", weights, spec, facts)
    save_model(record.folder, "last", weights, spec, facts)
    save_tensors(record.folder, files.STATE, progress.tensors(), {"history": history, "identity": record.identity})
    files.write_history(record.folder, history)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
