"""Settings of `bat-dist memorize`.  Imports neither torch nor ray, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from bat_dist.config import Group, Help
from bat_dist.models.names import AUTO
from bat_dist.settings.fields import PRECISION_HELP, Arch, ArchOrAuto, CropPadding, Flip, changed
from bat_dist.settings.sections import DataSettings, RaySettings, check_fresh
from bat_dist.training.recipe import RECIPES, PrecisionOrAuto, Recipe


@dataclass(frozen=True, kw_only=True)
class MemorizeSettings(RaySettings, DataSettings):
    """`bat-dist memorize`.  Defaults: Sec. 2.1 and Appendix A of the paper, where it says; the rest is ours."""

    score: Annotated[
        Literal["leave_out", "disagreement", "confidence"],
        Help("memorization by leave-out trials, or one of the cheaper scores from an ensemble"),
        Group("what is estimated"),
    ] = "leave_out"
    num_trials: Annotated[int, Ge(2), Help("leave-out trials"), Group("what is estimated")] = 1000
    subset_ratio: Annotated[
        float,
        Gt(0),
        Lt(1),
        Help("share of the training samples that a trial keeps"),
        Group("what is estimated"),
    ] = 0.7
    mask_plan: Annotated[
        Literal["uniform", "balanced"],
        Help("subsets drawn independently, or so that each sample is left out equally often"),
        Group("what is estimated"),
    ] = "uniform"
    num_members: Annotated[
        int, Ge(2), Help("networks in the ensemble (cheaper scores)"), Group("what is estimated")
    ] = 10
    ensemble_archs: Annotated[
        tuple[Arch, ...] | None,
        Help("their architectures, in turn; default: arch at three sizes", "NAME"),
        Group("what is estimated"),
    ] = None
    import_scores: Annotated[
        str | None,
        Help("take memorization and influence from this Feldman-Zhang .npz and run nothing", "FILE"),
        Group("what is estimated"),
    ] = None
    influence_threshold: Annotated[float, Ge(0), Lt(1), Help("pairs above it are kept"), Group("what is estimated")] = (
        0.15
    )
    influence_pairs: Annotated[
        Literal["same_class", "all"],
        Help("which pairs of train and test samples are looked at"),
        Group("what is estimated"),
    ] = "same_class"
    typicality: Annotated[
        Literal["significant", "paper"],
        Help("rule for the test sets; docs/memorization.md compares them"),
        Group("what is estimated"),
    ] = "significant"
    typicality_level: Annotated[
        float, Gt(0), Lt(0.5), Help("level of the significance test"), Group("what is estimated")
    ] = 0.001

    arch: Annotated[
        ArchOrAuto,
        Help(
            "architecture: resnet9-wW, resnet18, resnet32, wrnD-K, tinynet, ...; "
            "auto: tinynet for images up to 16x16, else resnet9",
            "NAME",
        ),
        Group("training"),
    ] = AUTO
    recipe: Annotated[
        Literal["fast", "paper"], Help("fast: one cycle; paper: 160 epochs, two drops"), Group("training")
    ] = "fast"
    epochs: Annotated[int | None, Ge(1), Help("instead of the recipe's"), Group("training")] = None
    batch_size: Annotated[int | None, Ge(2), Help("instead of the recipe's"), Group("training")] = None
    lr: Annotated[float | None, Gt(0), Help("peak learning rate, instead of the recipe's"), Group("training")] = None
    crop_padding: CropPadding = None
    flip: Flip = None
    precision: Annotated[PrecisionOrAuto, Help(PRECISION_HELP), Group("training")] = "auto"
    seed: Annotated[int, Ge(0), Help("trial t draws everything from (seed, t)"), Group("training")] = 0

    gpus_per_trial: Annotated[
        float | None,
        Ge(0),
        Help("GPUs of one worker, 0.25 shares one; default: 1 where there are any"),
        Group("Ray"),
    ] = None
    cpus_per_trial: Annotated[int, Ge(1), Help("CPU cores and threads of one worker"), Group("Ray")] = 1
    num_workers: Annotated[
        int | None, Ge(1), Help("trials at a time; default: as many as the cluster holds"), Group("Ray")
    ] = None

    status: Annotated[bool, Help("say what DIR holds, and run nothing")] = False

    def __post_init__(self) -> None:
        check_fresh(self)
        if self.gpus_per_trial and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial must be a fraction up to 1 or a whole number, got {self.gpus_per_trial}")

    @property
    def training(self) -> Recipe:
        """The recipe with what the user changed."""
        return changed(RECIPES[self.recipe], epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)
