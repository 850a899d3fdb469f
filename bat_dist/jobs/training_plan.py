"""What a training run will be, worked out and checked before anything is written."""

import dataclasses
import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from bat_dist.artifacts.scores import read_indices, read_subsets
from bat_dist.config import to_dict
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import Loader
from bat_dist.data.table import AUGMENTATION, augmentation_of
from bat_dist.errors import UserError
from bat_dist.jobs.auto import Chosen, check_network, without_auto
from bat_dist.jobs.own_parts import method_of
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.own import OwnMethod
from bat_dist.methods.table import Method, build_method
from bat_dist.models.names import AUTO
from bat_dist.results.rows import flat
from bat_dist.settings.decides import facts_as_asked
from bat_dist.settings.fields import ARCH_OF_TRAINING
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.files import Folder, split_location
from bat_dist.training import files
from bat_dist.training.epoch import StepSettings, batch_sizes
from bat_dist.training.run import NOISE, Record, TrainingData, TrainingSettings
from bat_dist.training.score_file import TrainingScores, read_scores
from bat_dist.training.splits import Held, default_num_val, hold_out
from bat_dist.training.trackers import Tracker, open_trackers
from bat_dist.training.watched import WatchedSets
from bat_dist.wording import counted

log = logging.getLogger(__name__)

T = TypeVar("T", TrainingAttack, StepSettings, TrainingSettings)
OnEpoch = Callable[[Mapping[str, Any]], None]  # is given each epoch's row of the history


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
    watched: WatchedSets | None = None

    @property
    def record(self) -> Record:
        """Where the run is kept, and as what."""
        return Record(Folder(self.asked.out), self.identity, self.facts)

    def material(self, open_loader: Callable[[str], Loader]) -> TrainingData:
        """What the network is trained on; open_loader: makes the loader of a split."""
        mem, subsets = (self.scores.values, self.scores.subsets) if self.scores else (None, {})
        splits = {"train", *(self.watched.splits if self.watched else ())}
        loaders = {name: open_loader(name) for name in sorted(splits)}
        return TrainingData(self.dataset, loaders["train"], self.held, mem, subsets, self.watched, loaders)

    def open_trackers(self, first_epoch: int) -> list[Tracker]:
        """The trackers that were asked for; first_epoch: the first that they will hear of, counted from 1."""
        name = f"{self.facts['method']}-{self.settings.arch}-{self.dataset.name}-seed{self.settings.seed}"
        asked = self.asked
        return open_trackers(
            asked.track, out=asked.out, settings=to_dict(asked), run_name=name, first_epoch=first_epoch
        )


def scores_of(dataset: Dataset, asked: TrainSettings) -> TrainingScores | None:
    """The scores that the settings name, read from their file, if they name one.  Raises UserError as `read_scores`."""
    if asked.scores:
        return read_scores(
            asked.scores,
            dataset,
            score=asked.score,
            sigma=asked.sigma,
            atypical_share=asked.atypical_share,
            undefined=asked.undefined,
        )
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
    place, dataset = Folder(asked.out), dataset.augmented(**augmentation_of(asked))
    asked, chosen = without_auto(asked, lambda: files.begun_identity(place), dataset, ARCH_OF_TRAINING)
    asked = dataclasses.replace(asked, method=method_of(asked.method))
    check_network(asked.arch, dataset, features=asked.method == "bat", is_saved=True)
    precision = "fp32" if asked.precision == AUTO else asked.precision
    scores = find_scores(dataset, asked)
    try:
        method = _method(asked, scores)
        held = hold_out(dataset.train.labels, asked.num_val or default_num_val(len(dataset.train)), seed=asked.val_seed)
        if asked.train_subset:
            held = held._replace(train=np.intersect1d(held.train, read_indices(asked.train_subset, dataset)))
        _check_batches(asked, dataset, held, scores)
    except ValueError as error:
        raise UserError(str(error)) from None
    attack = with_settings(
        TrainingAttack,
        asked,
        epsilon=asked.epsilon or dataset.spec.epsilon,
        step_size=asked.step_size or dataset.spec.step_size,
        precision=asked.attack_precision or precision,
        mode=asked.attack_mode,
    )
    val_steps = asked.num_steps if asked.val_steps is None else asked.val_steps
    judge = dataclasses.replace(attack, num_steps=val_steps, mode="eval", random_start=True) if val_steps else None
    settings = with_settings(
        TrainingSettings,
        asked,
        recipe=asked.training,
        step=with_settings(
            StepSettings,
            asked,
            method=method,
            attack=attack,
            precision=precision,
            awp_from=asked.awp_from - 1,
            smallest_batch=_smallest_batch(asked),
        ),
        validation_attack=judge,
        best_by=asked.best_by or ("val_clean" if asked.method == "erm" or judge is None else "val_pgd"),
    )
    facts = _facts(asked, dataset, settings, held, scores)
    watched = _watched(asked, dataset, attack, held)
    identity = {**flat(facts), "num_workers": asked.separate_batch_norms, **NOISE}
    if watched:  # which columns the history has; no fact of the network
        identity["watch"] = watched.digest
    return TrainingPlan(asked, settings, dataset, held, scores, identity, facts, chosen, watched)


def _method(asked: TrainSettings, scores: TrainingScores | None) -> Method:
    """The method with the hyper-parameters that were given, and the scores' threshold if it asks for one."""
    given, named = asked.hyper_parameters, asked.method
    has_sigma = named.has("sigma") if isinstance(named, OwnMethod) else named == "bat"
    if has_sigma and scores is not None:
        given = {"sigma": scores.sigma, **given}
    method = build_method(named, given)
    if hasattr(method, "check_attack"):
        method.check_attack(asked.num_steps)
    return method


def _watched(asked: TrainSettings, dataset: Dataset, attack: TrainingAttack, held: Held) -> WatchedSets | None:
    """The sets whose accuracies each epoch's row tells; of the training set only what is trained on."""
    if not asked.watch:
        return None
    of_train, of_test = (read_subsets(asked.watch, dataset.fingerprint, split) for split in ("train", "test"))
    members = {
        "train_atypical": of_train["atypical"],
        "test_atypical": of_test["atypical"],
        "test_typical": of_test["typical"],
    }
    sets = {name: np.flatnonzero(one) for name, one in members.items()}
    sets["train_atypical"] = np.intersect1d(sets["train_atypical"], held.train)
    steps = asked.watch_steps
    judge = dataclasses.replace(attack, num_steps=steps, mode="eval", random_start=True) if steps else None
    content = hashlib.sha256(b"".join(np.packbits(one).tobytes() for one in members.values())).hexdigest()[:16]
    return WatchedSets(sets, judge, asked.watch_every, f"{content}, {steps} steps, every {asked.watch_every}")


def with_settings(cls: type[T], asked: TrainSettings, **worked_out: Any) -> T:
    """An instance of a dataclass: what was worked out, and for each other field the setting of its name."""
    names = [field.name for field in dataclasses.fields(cls) if field.name not in worked_out]
    return cls(**worked_out, **{name: getattr(asked, name) for name in names})


def _smallest_batch(asked: TrainSettings) -> int:
    """Half a batch for a part of the training set: parts differ in size, which BatchNorm on a few images would show."""
    return asked.training.batch_size // 2 if asked.train_subset else 2


def _check_batches(asked: TrainSettings, dataset: Dataset, held: Held, scores: TrainingScores | None) -> None:
    """Raise ValueError if a batch can never hold what the method needs; warn if it will seldom."""
    size, workers = asked.training.batch_size, max(1, asked.num_workers)
    if not batch_sizes(len(held.train), size, workers, smallest=_smallest_batch(asked)):
        raise ValueError(_too_few(asked, len(held.train), workers))
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


def _too_few(asked: TrainSettings, num_train: int, workers: int) -> str:
    """Why so many training samples make no batch, and the way out."""
    samples = f"{counted(num_train, 'training sample')} {'is' if num_train == 1 else 'are'} too few"
    if num_train >= 2 * workers:  # a short last batch is left out, and here it would be the only one
        size = asked.training.batch_size
        return (
            f"{samples} for batch_size {size}: of train_subset, without the validation split, at least half a batch "
            f"is needed; lower batch_size to {2 * num_train} or less, or take a larger train_subset"
        )
    if num_train >= 2:
        return f"{samples} for {counted(workers, 'worker')}: each needs two at least; lower num_workers"
    more = "take a larger train_subset" if asked.train_subset else "raise num_train"
    return f"{samples}: a batch needs two at least; {more}, or lower num_val"


def _facts(
    asked: TrainSettings, dataset: Dataset, settings: TrainingSettings, held: Held, scores: TrainingScores | None
) -> dict[str, Any]:
    """What a checkpoint says of its making: plain values that, with the data, decide it."""
    step = settings.step
    facts = {
        "method": str(asked.method),
        "method_settings": _plain(dataclasses.asdict(step.method)),  # pyright: ignore[reportArgumentType]
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        **dataset.spec.own_augmentation,
        **({"train_subset": f"{_stem(asked.train_subset)} {_digest(held)}"} if asked.train_subset else {}),
        "num_train": len(held.train),
        "num_val": len(held.validation),
        "val_seed": asked.val_seed,
        "scores": f"{scores.name} {scores.digest}" if scores else None,
        "arch": str(settings.arch),
        "recipe": {**settings.recipe.facts, "milestones": list(settings.recipe.milestones)},
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
    unsaid_as_usual = (*AUGMENTATION, "num_workers")
    return {**facts, **facts_as_asked(asked, without={*facts, *unsaid_as_usual})}


def _stem(location: str) -> str:
    return split_location(location)[1].removesuffix(".npz")


def _digest(held: Held) -> str:
    return hashlib.sha256(np.ascontiguousarray(held.train, "<i8").tobytes()).hexdigest()[:16]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {name: str(v) if isinstance(v, float) and math.isinf(v) else v for name, v in values.items()}
