"""Settings of `bat-dist plan`.  Imports neither torch nor ray, so that `--help` answers at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator

from bat_dist.attacks.batches import ON_CPU, ON_GPU
from bat_dist.config import Group, Help
from bat_dist.data.table import OWN, check_augmentation, own_name
from bat_dist.evaluation.names import CHECK_IMAGES
from bat_dist.methods.table import METHODS, check_method
from bat_dist.models.names import AUTO
from bat_dist.settings.fields import (
    DATA,
    DATASET_NAMES,
    ArchOrAuto,
    Attacks,
    BatchSize,
    DatasetName,
    Epochs,
    GpusOfOne,
    SubsetRatio,
    TestShare,
    changed,
)
from bat_dist.training.recipe import RECIPES, PrecisionOrAuto, Recipe

TRIALS, TRAININGS, EVALUATIONS, WORKERS = map(Group, ("trials", "trainings", "evaluations", "workers"))
Price = Annotated[float | None, Ge(0), Help("money for an hour of a worker"), WORKERS]
Currency = Annotated[str, Help("of the price"), WORKERS]
Seconds = Annotated[float, Gt(0), Le(3600), Help("how long to measure, in all"), WORKERS]
SavedSpeed = Annotated[str | None, Help("keep what was measured, for --speed on another machine", "FILE"), WORKERS]
GivenSpeed = Annotated[
    str | None, Help("take what --save_speed has kept on another machine, and measure nothing here", "FILE"), WORKERS
]
Gain = Annotated[
    float | None,
    Gt(0),
    Help("how many times as much a GPU does for the workers that share it as for one alone; default: 1"),
    WORKERS,
]


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """`bat-dist plan`.  What other programs have too is called as there, and has the same default."""

    dataset: Annotated[DatasetName, Help(f"{DATASET_NAMES}; the sizes of the named suffice", "NAME"), DATA]
    arch: Annotated[
        ArchOrAuto,
        Help("architecture of trials and trainings; auto: as train has it, or memorize if num_seeds is 0", "NAME"),
        DATA,
    ] = AUTO
    data_dir: Annotated[str | None, Help("look at the data there, instead of knowing their sizes", "DIR"), DATA] = None
    num_train: Annotated[int | None, Ge(2), Help("training samples"), DATA] = None
    num_test: Annotated[int | None, Ge(1), Help("test samples"), DATA] = None
    num_classes: Annotated[int | None, Ge(2), Help("classes (tiny_imagenet: 50)"), DATA] = None
    image_size: Annotated[int | None, Ge(1), Help("images are N x N"), DATA] = None
    test_share: TestShare = None

    crop_scale: Annotated[
        float | None, Gt(0), Le(1), Help("random-resized crops in trials and trainings, as train has them", "MIN"), DATA
    ] = None
    crop_size: Annotated[int | None, Ge(1), Help("and their size, N x N"), DATA] = None

    num_trials: Annotated[int, Ge(0), Help("leave-out trials; 0: none"), TRIALS] = 1000
    subset_ratio: Annotated[SubsetRatio, TRIALS] = 0.7
    trial_recipe: Annotated[Literal["fast", "paper"], Help("recipe of memorize"), TRIALS] = "fast"
    trial_epochs: Annotated[Epochs, TRIALS] = None
    trial_batch_size: Annotated[BatchSize, TRIALS] = None
    trial_arch: Annotated[
        ArchOrAuto | None,
        Help("their architecture, auto: as memorize has it; default: that of the trainings", "NAME"),
        TRIALS,
    ] = None
    trial_precision: Annotated[
        PrecisionOrAuto | None, Help("their precision; default: that of the trainings"), TRIALS
    ] = None

    ensemble_members: Annotated[
        int, Ge(0), Help("of an ensemble for the cheaper scores, each as a trial on all samples; 0: none"), TRIALS
    ] = 0

    methods: Annotated[
        tuple[Annotated[str, AfterValidator(check_method)], ...],
        Len(1),
        Help(f"{', '.join(METHODS)}; named twice, with two settings", "NAME"),
        TRAININGS,
    ] = ("pgd_at", "trades", "mart", "gairat", "bat")
    num_seeds: Annotated[int, Ge(0), Help("trainings by each; 0: neither training nor evaluation"), TRAININGS] = 3
    recipe: Annotated[Literal["paper", "study", "fast"], Help("recipe of train"), TRAININGS] = "paper"
    epochs: Annotated[Epochs, TRAININGS] = None
    batch_size: Annotated[BatchSize, TRAININGS] = None
    num_steps: Annotated[int, Ge(1), Help("PGD steps in training and validation"), TRAININGS] = 10
    val_steps: Annotated[
        int | None, Ge(0), Help("PGD steps in validation; 0: clean only; default: num_steps"), TRAININGS
    ] = None
    num_val: Annotated[int | None, Ge(1), Help("samples held out; default: a tenth, at most 1000"), TRAININGS] = None

    num_checkpoints: Annotated[int, Ge(1), Help("evaluated of each training: 2 if best and last"), EVALUATIONS] = 1
    attacks: Annotated[Attacks, EVALUATIONS] = ("clean", "fgsm", "pgd100", "cw", "autoattack")
    attack_seeds: Annotated[int, Ge(1), Help("with which the attacks are done"), EVALUATIONS] = 1
    restarts: Annotated[int, Ge(1), Help("of pgd and cw"), EVALUATIONS] = 1
    robust_share: Annotated[
        float,
        Ge(0),
        Le(1),
        Help("share of test images that AutoAttack does not fool, and attacks to the end"),
        EVALUATIONS,
    ] = 0.5
    check_images: Annotated[int, Ge(0), Help("of the hygiene checks; 0 leaves them out"), EVALUATIONS] = CHECK_IMAGES
    attack_batch_size: Annotated[
        int | None, Ge(1), Help(f"images attacked at once; default: {ON_CPU} on CPUs, {ON_GPU} on GPUs"), EVALUATIONS
    ] = None

    precision: Annotated[
        PrecisionOrAuto,
        Help(
            "of trials and trainings; auto: that of --speed, else bf16 where this machine's hardware has it, else fp32"
        ),
        WORKERS,
    ] = "auto"
    workers: Annotated[
        int | None, Ge(1), Help("at a time; default: as many as the machine that was measured holds"), WORKERS
    ] = None
    cpus_per_worker: Annotated[int, Ge(1), Help("CPU cores and threads of one"), WORKERS] = 1
    gpus_per_worker: Annotated[GpusOfOne, Help("0.25 shares a GPU; default: 1 where one was measured"), WORKERS] = None
    sharing_gain: Gain = None
    price: Price = None
    currency: Currency = "USD"
    seconds: Seconds = 20.0
    save_speed: SavedSpeed = None
    speed: GivenSpeed = None

    def __post_init__(self) -> None:
        """What only makes sense together."""
        if not (self.num_trials or self.ensemble_members or self.num_seeds):
            raise ValueError("nothing to plan: give num_trials, ensemble_members or num_seeds, of at least 1")
        check_augmentation(crop_padding=None, crop_scale=self.crop_scale, crop_size=self.crop_size)
        if self.test_share is not None and not (own_name(self.dataset) or (self.dataset == OWN.name and self.data_dir)):
            raise ValueError("test_share is for an image_folder: give its data_dir, or leave test_share out")
        if self.num_val is not None and self.num_train is not None and self.num_val >= self.num_train:
            raise ValueError(f"num_val must be less than num_train, got {self.num_val} of {self.num_train}")
        gpus = self.gpus_per_worker
        if self.sharing_gain is not None and not (gpus and gpus < 1):
            raise ValueError("sharing_gain is of workers that share a GPU: give gpus_per_worker, such as 0.25, too")
        if self.speed and self.save_speed:
            raise ValueError("speed takes a measurement, and save_speed keeps one that is made: give one of them")
        sizes = {name: getattr(self, name) for name in ("num_train", "num_test", "num_classes", "image_size")}
        if self.dataset == "image_folder" and not self.data_dir and None in sizes.values():
            missing = ", ".join(name for name, value in sizes.items() if value is None)
            raise ValueError(f"the sizes of an image_folder are known to nobody: give data_dir, or {missing}")

    @property
    def data(self) -> Mapping[str, Any]:
        """The keyword arguments of `load_dataset`."""
        names = ("data_dir", "num_train", "num_test", "num_classes", "image_size", "test_share")
        return {name: getattr(self, name) for name in names}

    @property
    def trial_training(self) -> Recipe:
        """The trials' recipe with what the user changed."""
        return changed(RECIPES[self.trial_recipe], epochs=self.trial_epochs, batch_size=self.trial_batch_size)

    @property
    def training(self) -> Recipe:
        """The trainings' recipe with what the user changed."""
        return changed(RECIPES[self.recipe], epochs=self.epochs, batch_size=self.batch_size)
