"""Settings that several programs have, with their texts and what they decide; checked without torch and ray.

One that stands under another heading in each program is declared here without one.
"""

import dataclasses
import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator, BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator

from bat_dist.config import Group, Help
from bat_dist.data.table import DATASETS, OWN_FORMS, check_dataset
from bat_dist.evaluation.names import SINGLE, check_attacks
from bat_dist.methods.table import check_method_or_own
from bat_dist.models.names import check_arch, check_arch_or_auto
from bat_dist.parts import Own, check_reference
from bat_dist.settings.decides import Decides, Later, SaidIn, SameInSweep
from bat_dist.settings.ray_address import host_and_port
from bat_dist.training.recipe import (
    ADAMW_DECAY,
    ADAMW_LR,
    OptimizerName,
    PrecisionOrAuto,
    Recipe,
    Schedule,
)
from bat_dist.wording import alternatives, bytes_of

DATA, TRAINING, RAY = Group("data", (Decides.DATA,)), Group("training"), Group("Ray", (Decides.CALL,))
ON_A_MACHINE = SameInSweep("place on a machine")
LEAST_MEMORY = "400MB"  # for scores: what a million pairs need while they are sorted, and blocks
ARCH_OF_TRIALS, ARCH_OF_TRAINING = "resnet9", "resnet18"  # what auto is for images that are not small


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


def _dataset(name: str) -> str:
    check_dataset(name)
    return name if name in DATASETS or name.startswith("hf:") else check_reference(name, what="dataset")


def _own_as_it_is(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """A part of the user's own that is imported already; what names one is checked as any text."""
    return value if isinstance(value, Own) else check(value)


def _ray_address(address: str) -> str:
    if address not in ("auto", "local"):
        host_and_port(address)
    return address


def _npz_or_folder_with(name: str) -> AfterValidator:
    """An .npz as it is; in the place of a folder of `bat-dist memorize`, the file of this name in it."""

    def file(given: str) -> str:
        blank_or_file = not given.strip() or given.endswith(".npz")  # what is blank is refused as any other text
        return given if blank_or_file else f"{given.rstrip('/')}/{name}"

    return AfterValidator(file)


def _memory(text: str) -> str:
    if bytes_of(text) < bytes_of(LEAST_MEMORY):
        raise ValueError(f"must be at least {LEAST_MEMORY}, got {text}")
    return text


# --- what values may be

DatasetName = Annotated[str, AfterValidator(_dataset)]
OWN = WrapValidator(_own_as_it_is)  # the value may be an `Own` for the name of one
Arch = Annotated[str, AfterValidator(check_arch), OWN]
ArchOrAuto = Annotated[str, AfterValidator(check_arch_or_auto), OWN]
OwnOrMethod = Annotated[str, AfterValidator(check_method_or_own), OWN]
ScoreFile = Annotated[str, _npz_or_folder_with("memorization.npz")]
TypicalityFile = Annotated[str, _npz_or_folder_with("typicality.npz")]
Pixels = Annotated[float, Gt(0), Lt(1), BeforeValidator(_pixels)]  # how far, in [0, 1] pixels
Seeds = Annotated[tuple[Annotated[int, Ge(0)], ...], Len(1)]
Memory = Annotated[str, AfterValidator(_memory)]  # bytes with their unit, see `bytes_of`

# --- which data

DataDir = Annotated[
    str | None,
    Help("folder of the data, or a zip of one", "DIR"),
    DATA,
    Decides.CONTENT,
    SameInSweep("data"),
]
DATASET_NAMES = f"{', '.join(DATASETS)}; or your own: {alternatives(OWN_FORMS)}"
Download = Annotated[
    bool,
    Help("fetch CIFAR, or data of hf: or torchvision:, into data_dir if they are not there"),
    DATA,
    Decides.CALL,
    SameInSweep("data"),
]
NumTest = Annotated[int | None, Ge(1), Help("the same for test samples"), DATA]
ImageSize = Annotated[int | None, Ge(1), Help("resize images to N x N"), DATA]
TestShare = Annotated[
    float | None,
    Gt(0),
    Lt(1),
    Help("this share of each class becomes the test split (image_folder or your own, without one)"),
    DATA,
    Later(),
]

ImageStorage = Annotated[
    Literal["auto", "memory", "disk"],
    Help(
        "decoded images: in memory, or in a file in $BAT_DIST_CACHE that is mapped into it; auto: disk for more than a "
        "quarter of the memory"
    ),
    DATA,
    Decides.WORKING,
]

# --- how networks are trained

CheaperScore = Literal[
    "disagreement",
    "confidence",
    "true_class_confidence",
    "forgetting",
    "learning_time",
    "el2n",
    "self_influence",
]
"""Scores of an ensemble, by their names in `ensemble_scores.npz`; higher is more atypical."""
SubsetRatio = Annotated[float, Gt(0), Lt(1), Help("share of the training samples that a trial keeps")]
Epochs = Annotated[int | None, Ge(1), Help("instead of the recipe's")]
BatchSize = Annotated[int | None, Ge(2), Help("instead of the recipe's")]
PeakRate = Annotated[
    float | None, Gt(0), Help("peak learning rate, instead of the recipe's"), TRAINING, SaidIn("recipe")
]
Optimizer = Annotated[
    OptimizerName | None,
    Help(f"instead of the recipe's; adamw: lr {ADAMW_LR:g} and weight decay {ADAMW_DECAY:g}, unless given"),
    TRAINING,
    SaidIn("recipe"),
    Later(),
]
RateSchedule = Annotated[
    Schedule | None,
    Help("of the learning rate, instead of the recipe's; cosine: to 0 along half a wave"),
    TRAINING,
    SaidIn("recipe"),
    Later(),
]
WarmupEpochs = Annotated[
    float | None,
    Ge(0),
    Help("so many first epochs in which the learning rate rises linearly (multistep, cosine)"),
    TRAINING,
    SaidIn("recipe"),
    Later(),
]
CropPadding = Annotated[
    int | None,
    Ge(0),
    Help("random crops of images with so many zeros around them; default: the dataset's, in proportion to the size"),
    TRAINING,
    Later(),
]
Flip = Annotated[
    bool | None,
    Help("mirror half of the images; default: the dataset's, and not if an image_folder shows characters"),
    TRAINING,
    Later(),
]
CropScale = Annotated[
    float | None,
    Gt(0),
    Le(1),
    Help(
        "random-resized crops in place of padded ones: windows of MIN to all of the image's area; 0.08 is usual",
        "MIN",
    ),
    TRAINING,
    Later(),
]
CropSize = Annotated[
    int | None,
    Ge(1),
    Help("resize these crops to N x N pixels; default: the size of the images, which is that of all evaluation"),
    TRAINING,
    Later(),
]
SomePrecision = Annotated[
    PrecisionOrAuto,
    Help(
        "of convolutions and products; auto: bf16 where all workers' hardware has it, else fp32; "
        "tf32: fp32, but for factors that GPUs round to TF32"
    ),
    TRAINING,
]

# --- how they are attacked

Epsilon = Annotated[
    Pixels | None,
    Help("radius of the ball in [0, 1] pixels, such as 8/255; default: the dataset's"),
    SameInSweep("threat"),
]
Attacks = Annotated[
    tuple[str, ...],
    AfterValidator(check_attacks),
    Help(
        f"{', '.join(SINGLE)}, pgdK, cwK (cw: cw100), autoattack, autoattack_fast, apgd-ce, apgd-t, fab-t, square; "
        "autoattack_tK: K targets, for fewer than ten classes; autoattack_rand: for randomized networks",
        "NAME",
    ),
]

# --- where and how a call works

Status = Annotated[bool, Help("say what DIR holds, and run nothing"), Decides.CALL]
RayAddress = Annotated[str, AfterValidator(_ray_address)]
GpusOfOne = Annotated[float | None, Ge(0), Le(1)]  # a worker uses one GPU, or a part of it
GpusOfRun = Annotated[GpusOfOne, Help("GPUs of one worker, 0.5 shares one; default: 1 where there are any"), RAY]
RunsAtATime = Annotated[int | None, Ge(1), Help("runs at a time; default: as many as the cluster holds"), RAY]
CpusPerWorker = Annotated[int, Ge(1), Help("CPU cores and threads of one worker"), RAY, ON_A_MACHINE]


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with the changes that are not None.  Raises ValueError for a schedule that does not fit."""
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes.get("optimizer") == "adamw":
        changes = {"lr": ADAMW_LR, "weight_decay": ADAMW_DECAY, **changes}
    if changes.get("schedule", recipe.schedule) != recipe.schedule:
        if changes["schedule"] == "multistep":
            raise ValueError("schedule multistep needs a recipe with drops, such as paper")
        changes["milestones"] = ()
    return dataclasses.replace(recipe, **changes)
