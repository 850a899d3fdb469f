"""The attacks of an evaluation by name.  Imports no torch, so that settings are checked at once."""

import re
from difflib import get_close_matches

AUTOATTACK = {
    "autoattack": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "autoattack_fast": ("apgd-ce", "apgd-t"),  # for tuning; never called AutoAttack
}
DEFAULT_CW_STEPS = 100  # as PGD-100, Sec. 5.1
_EXAMPLES = ("clean", "fgsm", "pgd20", "pgd100", "cw", *AUTOATTACK)


def check_attacks(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, each once and in order; ValueError with the nearest valid one for a name that is none."""
    for name in names:
        if name not in ("clean", "fgsm", *AUTOATTACK) and steps_of(name) is None:
            near = get_close_matches(name.lower(), _EXAMPLES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"there is no attack {name!r}: {hint}Valid are clean, fgsm, pgdK, cwK, {', '.join(AUTOATTACK)}"
            )
    if not names:
        raise ValueError("name at least one attack, such as clean")
    return tuple(dict.fromkeys(names))


def steps_of(name: str) -> int | None:
    """K of pgdK or cwK (cw: 100); None for other names."""
    if name == "cw":
        return DEFAULT_CW_STEPS
    match = re.fullmatch(r"(?:pgd|cw)([1-9][0-9]{0,3})", name)
    return int(match[1]) if match else None


def rows_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """The rows of flags that the attacks give: of AutoAttack one per stage (what is left after it), then the whole."""
    rows: list[str] = []
    for name in names:
        rows += [f"{name}:{stage}" for stage in AUTOATTACK.get(name, ())]
        rows.append(name)
    return tuple(rows)
