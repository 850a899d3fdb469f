"""Which attack meets which images, in what order, cut into units of work.  Imports no torch.

A stage is one attack on the images that still stand after the stage before it; AutoAttack is a chain of four. Where a
unit begins and ends depends on which images stand, not on how many workers there are, so that every image meets the
same network in the same company on one worker and on forty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from bat_dist.evaluation.names import (
    CLEAN,
    PROBE,
    STANDARD,
    fewest_classes,
    is_random,
    parts_of,
    passes,
)

PASSES_PER_UNIT = 300  # times the batch size: what a unit costs at least, if there are so many images
SMALLEST_SHARE = 2  # a unit has at least half a batch
FEWEST_IMAGES = 8  # of a unit that is cut for no other reason than to have more units
ALL_IMAGES = 2**31
Among = Literal["all", "checked"]

CHECKS = ("fgsm", "pgd100", "cw100", "apgd-t3", "square1000", "pgd100-rescaled", "pgd100-large")
"""The attacks of the hygiene checks: variants that no evaluation asks for by name; see `attack` and `hygiene`."""


def checks_of(num_classes: int) -> tuple[str, ...]:
    """The attacks of the hygiene checks that are defined for a network of so many classes."""
    return tuple(name for name in CHECKS if num_classes >= fewest_classes(name))


class Stage(NamedTuple):
    """One attack on the images that still stand.

    attacks: the chain, this stage's own last. seed: None where nothing is random. among: which images.
    """

    attacks: tuple[str, ...]
    seed: int | None = None
    among: Among = "all"

    @property
    def attack(self) -> str:
        """The attack itself, the last of the chain."""
        return self.attacks[-1]

    @property
    def before(self) -> "Stage | None":
        """Whose survivors it attacks; None: all images."""
        if self.attack in (CLEAN, PROBE):
            return None
        return self._replace(attacks=self.attacks[:-1]) if len(self.attacks) > 1 else CLEAN_STAGE

    @property
    def chain(self) -> "tuple[Stage, ...]":
        """The stages of its attacks so far, itself the last."""
        return tuple(self._replace(attacks=self.attacks[: n + 1]) for n in range(len(self.attacks)))

    @property
    def passes(self) -> int:
        """What an image costs at most, in forward passes; a backward pass counts as two."""
        return passes(self.attack)

    def __str__(self) -> str:
        """Its name, also as a folder: `apgd-ce+apgd-t@0`."""
        seed = "" if self.seed is None else f"@{self.seed}"
        return ("" if self.among == "all" else "check-") + "+".join(self.attacks) + seed


CLEAN_STAGE = Stage((CLEAN,))


def is_whole_autoattack(stage: Stage) -> bool:
    """Has an image that survives it survived AutoAttack standard?"""
    return len(stage.attacks) == len(STANDARD)


@dataclass(frozen=True)
class EvaluationPlan:
    """What an evaluation does and reports.

    rows: what is reported, each the stages that an image must survive to count. stages: all, first ones first.
    """

    rows: Mapping[str, tuple[Stage, ...]]
    stages: tuple[Stage, ...]

    def after(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages that attack its survivors."""
        return tuple(other for other in self.stages if other.before == stage)

    def weight(self, stage: Stage) -> int:
        """Passes of an image on the longest way from this stage to an end: what should not wait."""
        return stage.passes + max(map(self.weight, self.after(stage)), default=0)


class Unit(NamedTuple):
    """Some images of a stage, attacked `batch_size` at a time."""

    stage: Stage
    number: int
    images: tuple[int, ...]
    batch_size: int

    @property
    def passes(self) -> int:
        """What it costs at most."""
        return self.stage.passes * len(self.images)

    def at_once(self, batch_size: int) -> "Unit":
        """The same unit, attacked so many images at a time."""
        return self._replace(batch_size=min(batch_size, len(self.images)))

    def __str__(self) -> str:
        return f"{self.stage} {self.number}"


def make_plan(attacks: Sequence[str], seeds: Sequence[int], *, checks: Sequence[str] = CHECKS) -> EvaluationPlan:
    """Rows and stages of the attacks. Of several seeds each has a row, `pgd20@1`, and so has the worst, `pgd20@worst`.

    `autoattack` has a row for what stands after each of its parts, then the whole. The last row is the worst case
    over all, if there is more than one attack. checks: attacks of the hygiene checks; with any there is a probe too.
    """
    rows: dict[str, tuple[Stage, ...]] = {}
    for name in attacks:
        of_seeds = [rows_of(name, seed) for seed in seeds]
        if len(of_seeds) == 1 or not is_random(name):
            rows |= of_seeds[0]
            continue
        for seed, of_seed in zip(seeds, of_seeds, strict=True):
            rows |= {f"{row}@{seed}": stages for row, stages in of_seed.items()}
        rows[f"{name}@worst"] = tuple(of_seed[name][0] for of_seed in of_seeds)
    asked = dict.fromkeys(stage for stages in rows.values() for stage in stages if stage != CLEAN_STAGE)
    if len([name for name in attacks if name != CLEAN]) > 1:
        rows["worst_case"] = tuple(asked)
    checked = [Stage((name,), None if name == "fgsm" else 0, "checked") for name in checks]
    probe = [Stage((PROBE,), None, "checked")] if checks else []
    chains = [link for stage in asked for link in stage.chain]
    return EvaluationPlan(rows, tuple(dict.fromkeys([CLEAN_STAGE, *chains, *probe, *checked])))


def rows_of(name: str, seed: int) -> dict[str, tuple[Stage, ...]]:
    """The rows of an attack with one seed, each with the stages that an image must survive."""
    if name == CLEAN:
        return {name: (CLEAN_STAGE,)}
    parts = parts_of(name)
    if len(parts) == 1:
        return {name: (Stage((name,), seed if is_random(name) else None),)}
    whole = Stage(parts, seed)
    return {f"{name}:{part.attack}": (part,) for part in whole.chain} | {name: (whole,)}


def cut(images: Int64[np.ndarray, " images"], stage: Stage, batch_size: int) -> list[Int64[np.ndarray, " unit"]]:
    """The images of each unit of a stage, every image once.

    Units of a stage differ by one image; those of other attacks cost as much within a factor of 9. Their number is even
    where that is no waste. Each takes every k-th image, so that hard and easy ones mix. A probe is not cut.
    """
    count = -(-len(images) // unit_size(stage, batch_size))
    if stage.attack != PROBE and count % 2 and len(images) // (count + 1) >= FEWEST_IMAGES:
        count += 1  # so that two, or any even number of workers, end together
    return [images[first::count] for first in range(count)]


def unit_size(stage: Stage, batch_size: int) -> int:
    """How many images a unit has at most."""
    if stage.attack == PROBE:
        return ALL_IMAGES
    return max(batch_size * PASSES_PER_UNIT // stage.passes, batch_size // SMALLEST_SHARE, 1)


def images_at_once(attacks: Sequence[str], batch_size: int) -> int:
    """How many images are attacked at once in the dearest stage, where most of the time goes: a unit may hold fewer."""
    dearest = max(make_plan(attacks, (0,), checks=()).stages, key=lambda stage: stage.passes)
    return min(batch_size, unit_size(dearest, batch_size))


def spread(images: Int64[np.ndarray, " images"], count: int) -> Int64[np.ndarray, " chosen"]:
    """Not more than `count` of the images, evenly over all."""
    return images[np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64))]
