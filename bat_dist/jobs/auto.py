"""What `auto` stands for, once the data, the folder and the workers are known: from there on settings are concrete."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.jobs.own_parts import network_of
from bat_dist.models.names import AUTO, check_fits, suited_arch
from bat_dist.models.own import OwnNetwork, check_takes
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.provenance import without_passwords
from bat_dist.storage.rows import RowStore
from bat_dist.training.precision import Hardware, check_tf32, choose_precision
from bat_dist.training.recipe import Precision, PrecisionOrAuto

LEFT_TO_US = ("arch", "precision", "fold_batch_norm")  # settings that `without_auto` settles
S = TypeVar("S", MemorizeSettings, TrainSettings)
Chosen = dict[str, str]  # by setting what was chosen and why: `tinynet (for 8x8 images)`

log = logging.getLogger(__name__)


def without_auto(settings: S, begun: Callable[[], Mapping[str, Any]], dataset: Dataset, usual: str) -> tuple[S, Chosen]:
    """The settings without auto, but for a precision that the workers are to decide; and what was chosen.

    A network of the user's own is imported.

    What the folder's results were begun with goes on, on whatever machine; else the network suits the images' size, and
    attacks in training fold BatchNorm.
    begun: reads the identity of these results, empty if there are none. usual: the network for all but small images.
    Raises UserError for a network that the images do not fit.
    """
    wanted = left_to_us(settings)
    before = as_begun(begun()) if wanted and not settings.fresh else {}
    found = {name: before[name] for name in wanted if name in before}
    chosen = {name: f"{value} (as {without_passwords(settings.out)} has it)" for name, value in found.items()}
    if "fold_batch_norm" in wanted:
        found.setdefault("fold_batch_norm", True)
    size = dataset.train.images.shape[1]
    arch = found.get("arch", settings.arch)
    if arch == AUTO:
        arch = found["arch"] = suited_arch(size, usual)
        chosen["arch"] = f"{arch} (for {size}x{size} images)"
    if "arch" in found and " " in str(arch):
        raise UserError(f"{without_passwords(settings.out)} was begun with {arch}, a network of your own: give --arch")
    arch = network_of(arch)
    check_network(arch, dataset)
    return dataclasses.replace(settings, **{**found, "arch": arch}), chosen


def left_to_us(settings: MemorizeSettings | TrainSettings) -> list[str]:
    """The settings that `without_auto` is to settle."""
    return [name for name in LEFT_TO_US if getattr(settings, name, "") in (AUTO, None)]


def as_begun(identity: Mapping[str, Any], part: str = "") -> Mapping[str, Any]:
    """The identity with what earlier versions did not say; part: what stands before the names of a training's."""
    return {f"{part}fold_batch_norm": False, **identity} if identity else {}


def check_network(arch: str | OwnNetwork, dataset: Dataset, *, features: bool = False, is_saved: bool = False) -> None:
    """Raise UserError for a network that the images or the crops do not fit.

    features: or that has none. is_saved: or that no checkpoint can hold.
    """
    size = dataset.train.images.shape[1]
    for side in sorted({size, dataset.spec.crop_size or size}):
        if isinstance(arch, OwnNetwork):
            check_takes(arch, len(dataset.class_names), side, features=features, is_saved=is_saved)
        else:
            check_fits(arch, side)


def decide_precision(
    asked: PrecisionOrAuto, ask_workers: Callable[[], Sequence[Hardware]], *, of_attack: Precision | None = None
) -> tuple[Precision, Chosen]:
    """The precision that the workers compute in, and what was chosen if it was left to us.

    of_attack: that of attacks in training, if it was asked for.
    Warns of bf16 that a worker must emulate, whoever has asked for it. Raises UserError for TF32 that a worker has not.
    """
    if asked == "fp32" and of_attack != "tf32":
        return asked, {}
    workers = ask_workers()
    if of_attack == "tf32":
        check_tf32(workers)
    precision, why = choose_precision(asked, workers)
    return precision, {"precision": f"{precision} ({why})"} if asked == AUTO else {}


def say(chosen: Chosen) -> None:
    """Log in one line what was chosen, if anything was."""
    if chosen:
        log.info("%s", ", ".join(f"{name} {value}" for name, value in chosen.items()))


def identity_in(store: RowStore | None) -> Mapping[str, Any]:
    """What the rows of a store were begun with, `arch` being an ensemble's first; empty if the store holds no rows."""
    if store is None or not store.is_begun():
        return {}
    archs = store.identity.get("archs")
    return {**store.identity, **({"arch": archs[0]} if archs else {})}
