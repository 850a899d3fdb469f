"""Types and texts of settings that several programs share, checked without torch and ray."""

import dataclasses
import re
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, BeforeValidator

from bat_dist.config import Group, Help
from bat_dist.data.table import check_dataset
from bat_dist.models.names import check_arch, check_arch_or_auto
from bat_dist.settings.ray_address import host_and_port
from bat_dist.training.recipe import Recipe


def _dataset_name(name: str) -> str:
    return check_dataset(name).name


DatasetName = Annotated[str, AfterValidator(_dataset_name)]


def _pixels(value: Any) -> Any:
    """`8/255` as a number; all else as it is. Raises ValueError for 1 and more, which is meant to be divided by 255."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*/\s*(\d+\.?\d*|\.\d+)\s*", value) if isinstance(value, str) else None
    if match and float(match[2]):
        return float(match[1]) / float(match[2])
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return value
    if not isinstance(value, bool) and 1 <= number <= 255:
        raise ValueError(f"must be a number in (0, 1), got {value}; did you mean {value}/255?")
    return value


Pixels = Annotated[float, Gt(0), Lt(1), BeforeValidator(_pixels)]  # how far, in [0, 1] pixels


def _ray_address(address: str) -> str:
    if address not in ("auto", "local"):
        host_and_port(address)
    return address


RayAddress = Annotated[str, AfterValidator(_ray_address)]
Arch = Annotated[str, AfterValidator(check_arch)]
ArchOrAuto = Annotated[str, AfterValidator(check_arch_or_auto)]
CropPadding = Annotated[
    int | None,
    Ge(0),
    Help("random crops of images with so many zeros around them; default: the dataset's, in proportion to the size"),
    Group("training"),
]
Flip = Annotated[
    bool | None,
    Help("mirror half of the images; default: the dataset's, and not if an image_folder shows characters"),
    Group("training"),
]
TestShare = Annotated[
    float | None,
    Gt(0),
    Lt(1),
    Help("this share of each class becomes the test split (image_folder without one)"),
    Group("data"),
]
ARCH_OF_TRIALS, ARCH_OF_TRAINING = "resnet9", "resnet18"  # what auto is for images that are not small
ATTACKS_HELP = (
    "clean, fgsm, pgdK, cwK (cw: cw100), autoattack, autoattack_fast, apgd-ce, apgd-t, fab-t, square; "
    "autoattack_tK: K targets, for fewer than ten classes; autoattack_rand: for randomized networks"
)
PRECISION_HELP = "of convolutions and products; auto: bf16 where all workers' hardware has it, else fp32"


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with the changes that are not None."""
    return dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
