"""The attacks of an evaluation by name, and what they cost.  Imports no torch, so that settings are checked at once.

A new one is an entry in `SINGLE`, and a case in `attack.attack_model` (docs/extending.md).
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from bat_dist.attacks.classes import CLASSES_OF_DLR, CLASSES_OF_TARGETED_DLR, check_classes

CLEAN = "clean"
PROBE = "probe"  # looks at the network itself


class SingleAttack(NamedTuple):
    """An attack whose name holds no number, and that is no part of AutoAttack.

    heading: of its column. passes: forward passes that an image costs; a backward pass counts as two. is_random: does
    it draw random numbers? has_gradient: does it ask for the network's?
    """

    heading: str
    passes: int
    is_random: bool = False
    has_gradient: bool = True


SINGLE = {
    CLEAN: SingleAttack("Clean", passes=1, has_gradient=False),
    "fgsm": SingleAttack("FGSM", passes=3),
}
"""In the order in which tables show them, before all others."""
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")  # the parts of AutoAttack, in its order
AUTOATTACK = {
    "autoattack": STANDARD,
    "autoattack_fast": STANDARD[:2],  # for tuning; never called AutoAttack
    "autoattack_rand": ("apgd-ce-eot20", "apgd-dlr-eot20"),  # for networks that draw random numbers
}
ATTACKS = {
    **{name: attack.heading for name, attack in SINGLE.items()},
    CLEAN: "no attack: the images as they are",
    "fgsm": "one step of the size of epsilon along the gradient's sign (Goodfellow et al. 2015)",
    "pgdK": "K steps on the cross-entropy from a random start, such as pgd20 (Madry et al. 2018)",
    "cwK": "K such steps on the margin of Carlini & Wagner 2017, in the l_inf ball; cw: 100 steps",
    "apgd-ce": "AutoAttack's first part: steps of adapted size on the cross-entropy (Croce & Hein 2020)",
    "apgd-t": "its second: the same on the targeted DLR loss, for each of nine wrong classes (apgd-tK: of K)",
    "fab-t": "its third: minimal changes towards each of nine wrong classes (fab-tK: of K)",
    "square": "its fourth: 5,000 random squares, without a gradient (Andriushchenko et al. 2020)",
    "apgd-dlr": "as apgd-ce, on the untargeted DLR loss",
    "autoattack": "all four parts, each on the images that are left by the one before",
    "autoattack_fast": "the first two parts, for tuning; never called AutoAttack in tables",
    "autoattack_tK": "all four parts with K wrong classes in place of nine, for fewer than ten classes",
    "autoattack_rand": "for networks that draw random numbers: apgd-ce-eot20, then apgd-dlr-eot20",
    "apgd-ce-eotN": "as apgd-ce, with gradients averaged over N draws of the network",
    "apgd-dlr-eotN": "as apgd-dlr, with gradients averaged over N draws of the network",
}
"""Every valid name, or pattern of names, and one line about it."""
NUM_TARGETS = 9  # wrong classes that apgd-t and fab-t aim at
DEFAULT_STEPS = 100  # of cw as of PGD-100, Sec. 5.1; of apgd and fab as AutoAttack's
SQUARE_QUERIES = 5000
CHECK_IMAGES = 64  # images of the hygiene checks, by default
_OTHER_PASSES = {PROBE: 20, "square": SQUARE_QUERIES, "square1000": 1000}
_EXAMPLES = (*SINGLE, "pgd20", "pgd100", "cw", *STANDARD, "apgd-dlr", *AUTOATTACK)


def check_attacks(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, each once and in order; ValueError with the nearest valid one for a name that is none."""
    for name in names:
        known = name in (*SINGLE, *STANDARD, *AUTOATTACK) or num_targets_of(name) or num_draws_of(name)
        if not known and steps_of(name) is None:
            near = get_close_matches(name.lower(), _EXAMPLES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"there is no attack {name!r}: {hint}Valid are {', '.join(ATTACKS)}")
    if not names:
        raise ValueError("name at least one attack, such as clean")
    return tuple(dict.fromkeys(names))


def steps_of(name: str) -> int | None:
    """K of pgdK or cwK (cw: 100); None for other names."""
    if name == "cw":
        return DEFAULT_STEPS
    match = re.fullmatch(r"(?:pgd|cw)([1-9][0-9]{0,3})", name)
    return int(match[1]) if match else None


def parts_of(name: str) -> tuple[str, ...]:
    """The attacks of a chain, each on what the one before it leaves: of `autoattack`, and of `autoattack_tK`.

    The latter is AutoAttack with K targets in place of nine, for networks of fewer than ten classes, and has a name of
    its own. Of a single attack it is the attack alone.
    """
    if name.startswith("autoattack_t") and (targets := num_targets_of(name)):
        return tuple(f"{part}{targets}" if part.endswith("-t") else part for part in STANDARD)
    return AUTOATTACK.get(name, (name,))


def num_targets_of(name: str) -> int:
    """How many wrong classes apgd-t, fab-t, apgd-tK, fab-tK or autoattack_tK aims at; 0 for other names."""
    match = re.fullmatch(r"(apgd-t|fab-t|autoattack_t)([1-8]?)", name)
    if not match or name == "autoattack_t":
        return 0
    return int(match[2] or NUM_TARGETS)


def num_draws_of(name: str) -> int:
    """N of apgd-ce-eotN and apgd-dlr-eotN, 1 of these without it; 0 for other names."""
    match = re.fullmatch(r"(?:apgd-ce|apgd-dlr)(?:-eot([1-9][0-9]{0,2}))?", name)
    return int(match[1] or 1) if match else 0


def fewest_classes(name: str) -> int:
    """How many classes a network must have for the attack to be defined."""
    targets = {part: num_targets_of(part) for part in parts_of(name)}
    of_losses = [
        CLASSES_OF_TARGETED_DLR if part.startswith("apgd-t") else CLASSES_OF_DLR if "-dlr" in part else 2
        for part in targets
    ]
    return max(*of_losses, *(number + 1 for number in targets.values()))


def check_classes_of_data(attacks: Sequence[str], num_classes: int, deed: str) -> None:
    """Raise UserError if the data has too few classes for an attack. deed: what is to be done with others instead."""
    needed = {name: fewest_classes(name) for name in attacks}
    check_classes(needed, num_classes, f"{deed} with {for_few_classes(num_classes)}", owner="the data")


def for_few_classes(num_classes: int) -> str:
    """What to give in place of AutoAttack where there are fewer than ten classes."""
    if num_classes < CLASSES_OF_TARGETED_DLR:
        return "pgd100, cw, apgd-ce and square"
    return f"autoattack_t{num_classes - 1}, which aims at the {num_classes - 1} wrong classes that there are"


def is_random(name: str) -> bool:
    """Does the attack draw random numbers?  Only then another seed is another run."""
    return SINGLE[name].is_random if name in SINGLE else not name.startswith("fab-t")


def has_gradient(name: str) -> bool:
    """Does the attack, or one of a hygiene check, ask for the network's gradient?"""
    return SINGLE[name].has_gradient if name in SINGLE else name not in ("square", "square1000")


def passes(name: str) -> int:
    """Forward passes of an image that survives an attack, or one of a hygiene check; a backward pass counts as two."""
    base, _, variant = name.partition("-")
    if (steps := steps_of(base)) is not None and variant in ("", "rescaled", "large"):
        return 3 * steps
    if draws := num_draws_of(name):
        return 3 * DEFAULT_STEPS * draws
    if targets := num_targets_of(name):
        return (3 if name.startswith("apgd") else 4) * DEFAULT_STEPS * targets
    return SINGLE[name].passes if name in SINGLE else _OTHER_PASSES[name]
