"""What `auto` stands for, once the data, the folder and the workers are known: from there on settings are concrete."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from bat_dist.models.names import AUTO, check_fits, suited_arch
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.provenance import without_passwords
from bat_dist.storage.rows import RowStore
from bat_dist.training.precision import Hardware, choose_precision
from bat_dist.training.recipe import Precision, PrecisionOrAuto

S = TypeVar("S", MemorizeSettings, TrainSettings)
Chosen = dict[str, str]  # by setting what was chosen and why: `tinynet (for 8x8 images)`

log = logging.getLogger(__name__)


def as_begun(settings: S, begun: Mapping[str, Any]) -> tuple[S, Chosen]:
    """The settings, but where they say auto, what the folder's results were begun with, on whatever machine.

    begun: the identity of these results, empty if there are none.
    """
    found = {name: begun[name] for name in ("arch", "precision") if getattr(settings, name) == AUTO and name in begun}
    why = {name: f"{value} (as {without_passwords(settings.out)} has it)" for name, value in found.items()}
    return dataclasses.replace(settings, **found), why


def with_arch(settings: S, image_size: int, usual: str) -> tuple[S, Chosen]:
    """The settings with the network that suits images of this side; usual: for all that are not small.

    Raises UserError for a network that they do not fit.
    """
    arch = suited_arch(image_size, usual) if settings.arch == AUTO else settings.arch
    check_fits(arch, image_size)
    if settings.arch != AUTO:
        return settings, {}
    return dataclasses.replace(settings, arch=arch), {"arch": f"{arch} (for {image_size}x{image_size} images)"}


def decide_precision(asked: PrecisionOrAuto, ask_workers: Callable[[], Sequence[Hardware]]) -> tuple[Precision, Chosen]:
    """The precision that the workers compute in, and what was chosen if it was left to us.

    Warns of bf16 that a worker must emulate, whoever has asked for it.
    """
    if asked == "fp32":
        return asked, {}
    precision, why = choose_precision(asked, ask_workers())
    return precision, {"precision": f"{precision} ({why})"} if asked == AUTO else {}


def say(chosen: Chosen) -> None:
    """In one line of the log; nothing where nothing was chosen."""
    if chosen:
        log.info("%s", ", ".join(f"{name} {value}" for name, value in chosen.items()))


def identity_in(store: RowStore | None) -> Mapping[str, Any]:
    """What the rows of a store were begun with: nothing if it holds none.  Of an ensemble the first of its networks."""
    if store is None or not store.is_begun():
        return {}
    archs = store.identity.get("archs")
    return {**store.identity, **({"arch": archs[0]} if archs else {})}
