"""The attacks of an evaluation by name.  Imports no torch, so that settings are checked at once."""

import re
from difflib import get_close_matches

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")  # the parts of AutoAttack, in its order
AUTOATTACK = {
    "autoattack": STANDARD,
    "autoattack_fast": STANDARD[:2],  # for tuning; never called AutoAttack
}
TARGETED = {"apgd-t": 9, "fab-t": 9}  # how many wrong classes each aims at
DEFAULT_STEPS = 100  # of cw as of PGD-100, Sec. 5.1; of apgd and fab as AutoAttack's
SQUARE_QUERIES = 5000
_EXAMPLES = ("clean", "fgsm", "pgd20", "pgd100", "cw", *STANDARD, *AUTOATTACK)


def check_attacks(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, each once and in order; ValueError with the nearest valid one for a name that is none."""
    for name in names:
        if name not in ("clean", "fgsm", *STANDARD, *AUTOATTACK) and steps_of(name) is None:
            near = get_close_matches(name.lower(), _EXAMPLES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            valid = ", ".join(("clean", "fgsm", "pgdK", "cwK", *STANDARD, *AUTOATTACK))
            raise ValueError(f"there is no attack {name!r}: {hint}Valid are {valid}")
    if not names:
        raise ValueError("name at least one attack, such as clean")
    return tuple(dict.fromkeys(names))


def steps_of(name: str) -> int | None:
    """K of pgdK or cwK (cw: 100); None for other names."""
    if name == "cw":
        return DEFAULT_STEPS
    match = re.fullmatch(r"(?:pgd|cw)([1-9][0-9]{0,3})", name)
    return int(match[1]) if match else None


def fewest_classes(name: str) -> int:
    """How many classes a network must have for the attack to be defined."""
    parts = AUTOATTACK.get(name, (name,))
    return max(TARGETED.get(part, 1) + 1 for part in parts)


def is_random(name: str) -> bool:
    """Does the attack draw random numbers?  Only then another seed is another run."""
    return name not in ("clean", "fgsm", "fab-t")
