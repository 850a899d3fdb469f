"""Which architectures exist, by name, and which images they take; without torch, so that settings are checked fast."""

import difflib
import re
from typing import Literal, NamedTuple

from bat_dist.errors import UserError
from bat_dist.parts import Own, check_reference, is_reference

Family = Literal["resnet", "cifar_resnet", "preact_resnet", "wide_resnet", "resnet9", "tinynet"]

ARCHITECTURES: dict[str, str] = {
    "resnet18": "CIFAR form: 3x3 stem, widths 64..512 (also resnet34)",
    "resnet34": "as resnet18, with [3, 4, 6, 3] blocks",
    "resnet20": "6n+2 layers, widths 16, 32, 64, shortcuts without weights (also 32, 44, 56, 110)",
    "resnet32": "6n+2 with n = 5",
    "resnet44": "6n+2 with n = 7",
    "resnet56": "6n+2 with n = 9",
    "resnet110": "6n+2 with n = 18",
    "preactresnet18": "pre-activation blocks, no final BatchNorm",
    "wrnD-K": "wide ResNet of depth D (10, 16, 22, 28, ...) and width K, such as wrn28-10",
    "resnet9": "fast net for trials, width 64",
    "resnet9-wW": "the same with width W, such as resnet9-w32",
    "tinynet": "a few thousand parameters, for 8x8 digits",
}
"""Every valid name, or pattern of names, and one line about it."""

DEFAULT_RESNET9_WIDTH = 64

AUTO = "auto"
SMALL_IMAGE = 16
"""The largest side of images for which `tinynet` is enough."""

SMALLEST_IMAGE = {"resnet9": 8}
"""The smallest side of images, by family: `resnet9` halves them three times, the others take images of every side."""

_NUMBER = r"([1-9][0-9]{0,3})"
_RESNET_DEPTHS = (9, 18, 20, 32, 34, 44, 56, 110)
_EXAMPLES = [name for name in ARCHITECTURES if name not in ("wrnD-K", "resnet9-wW")]
_EXAMPLES += ["resnet9-w32", "resnet9-w64", "wrn16-4", "wrn28-10", "wrn34-10", "wrn40-2"]


class Arch(NamedTuple):
    """A parsed name; `depth` and `width` are 0 where the family has no such dial."""

    family: Family
    depth: int = 0
    width: int = 0


def check_arch(name: str) -> str:
    """The name, if it is valid (`resnet9-w64` becomes `resnet9`); else ValueError with the nearest one.

    FILE.py:NAME, package.module:NAME, timm:NAME and torchvision:NAME are valid by their form.
    """
    if is_reference(name):
        return check_reference(name, what="arch")
    family, _, width = parse_arch(name)
    return "resnet9" if family == "resnet9" and width == DEFAULT_RESNET9_WIDTH else name


def check_arch_or_auto(name: str) -> str:
    """The name, checked as by `check_arch`; `auto` is valid too."""
    return name if name == AUTO else check_arch(name)


def suited_arch(image_size: int, usual: str) -> str:
    """What `auto` stands for: a function of the data alone, so that it is the same on every machine."""
    return "tinynet" if image_size <= SMALL_IMAGE else usual


def check_fits(name: str | Own, image_size: int) -> None:
    """Raise UserError if the network shrinks images of this side to nothing.

    One of the user's own must be tried for that: `own.check_takes`.
    """
    if isinstance(name, Own):
        return
    smallest = SMALLEST_IMAGE.get(parse_arch(name).family, 1)
    if image_size < smallest:
        size, least = (f"{side}x{side}" for side in (image_size, smallest))
        raise UserError(
            f"arch {name} does not fit images of {size}: it takes those from {least} on; "
            "take tinynet, or a larger image_size"
        )


def parse_arch(name: str) -> Arch:
    """Family and numbers of a name; ValueError as `check_arch`."""
    if name == "tinynet":
        return Arch("tinynet")
    if name == "resnet9":
        return Arch("resnet9", width=DEFAULT_RESNET9_WIDTH)
    if match := re.fullmatch(rf"resnet9-w{_NUMBER}", name):
        return Arch("resnet9", width=int(match[1]))
    if match := re.fullmatch(rf"wrn{_NUMBER}-{_NUMBER}", name):
        depth, width = int(match[1]), int(match[2])
        if (
            depth >= 10 and (depth - 4) % 6 == 0
        ):  # three groups of blocks of two convolutions, a stem, three projections
            return Arch("wide_resnet", depth, width)
    elif name in ARCHITECTURES and (match := re.fullmatch(rf"(preact)?resnet{_NUMBER}", name)):
        depth = int(match[2])
        return Arch("preact_resnet" if match[1] else "resnet" if depth in (18, 34) else "cifar_resnet", depth)
    nearest = _nearest(name)
    rule = " (D of wrnD-K must be 6n + 4: 10, 16, 22, 28, ...)" if nearest.startswith("wrn") else ""
    hint = f"; did you mean {nearest!r}?{rule}" if nearest else ";"
    raise ValueError(f"there is no architecture {name!r}{hint} valid: {', '.join(ARCHITECTURES)}, or FILE.py:NAME")


def _nearest(name: str) -> str:
    """The valid name closest to `name` (of two equally close depths the smaller), "" if none is close."""
    plain = re.sub(r"wide-?resnet|wrn-", "wrn", name.strip().lower().replace("_", "-"))
    if match := re.fullmatch(rf"wrn-?([0-9]{{1,3}})[-x]{_NUMBER}", plain):
        return f"wrn{4 + 6 * max(1, (int(match[1]) - 2) // 6)}-{match[2]}"
    if match := re.fullmatch(rf"resnet-?{_NUMBER}", plain):
        return f"resnet{min(_RESNET_DEPTHS, key=lambda depth: abs(depth - int(match[1])))}"
    return next(iter(difflib.get_close_matches(plain, _EXAMPLES, n=1, cutoff=0.5)), "")
