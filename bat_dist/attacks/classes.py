"""Which networks know too few classes for an attack.  Imports no torch."""

from collections.abc import Mapping

from bat_dist.errors import UserError

CLASSES_OF_DLR = 3  # logits that the DLR loss is made of
CLASSES_OF_TARGETED_DLR = 4
INSTEAD = "evaluate it with PGD, CW, APGD-CE and Square"


def check_classes(
    needed: Mapping[str, int], num_classes: int, way_out: str = INSTEAD, *, owner: str = "the model", verb: str = "need"
) -> None:
    """Raise UserError if what is named here needs more classes than its owner, the model or the data, has."""
    small = [name for name, fewest in needed.items() if num_classes < fewest]
    if small:
        fewest = max(needed[name] for name in small)
        raise UserError(f"{' and '.join(small)} {verb} at least {fewest} classes, {owner} has {num_classes}: {way_out}")


def check_targets(attack: str, num_classes: int, num_targets: int) -> None:
    """Raise UserError if a targeted attack aims at more wrong classes than the model has."""
    if num_classes <= num_targets:
        raise UserError(
            f"{attack} aims at {num_targets} wrong classes, but the model has {num_classes} in all: "
            f"AutoAttack standard needs at least 10; evaluate a smaller one with PGD, CW, APGD-CE and Square"
        )
