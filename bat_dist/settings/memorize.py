"""Settings of `bat-dist memorize`.  Imports neither torch nor ray, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Len, Lt

from bat_dist.config import Group, Help
from bat_dist.data.table import check_augmentation
from bat_dist.models.names import AUTO
from bat_dist.settings.decides import Decides, GivenWith, Later
from bat_dist.settings.fields import (
    RAY,
    TRAINING,
    Arch,
    ArchOrAuto,
    BatchSize,
    CheaperScore,
    CropPadding,
    CropScale,
    CropSize,
    Epochs,
    Flip,
    GpusOfOne,
    Memory,
    Optimizer,
    PeakRate,
    RateSchedule,
    SomePrecision,
    Status,
    SubsetRatio,
    WarmupEpochs,
    changed,
)
from bat_dist.settings.sections import DataSettings, RaySettings, check_fresh
from bat_dist.training.recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from bat_dist.memorization.stopping import StoppingRule

ESTIMATED = Group("what is estimated")
MAX_TRIALS = 1000  # of num_trials auto: the paper's number


@dataclass(frozen=True, kw_only=True)
class MemorizeSettings(RaySettings, DataSettings):
    """`bat-dist memorize`.  Defaults: Sec. 2.1 and Appendix A of the paper, where it says; the rest is ours."""

    score: Annotated[
        Literal["leave_out", CheaperScore],
        Help(
            "memorization by leave-out trials, or one of the cheaper scores from an ensemble; one ensemble gives them "
            "all, self_influence (TRAK; the extra attribution) if it is begun with that"
        ),
        ESTIMATED,
    ] = "leave_out"
    num_trials: Annotated[
        Annotated[int, Ge(2)] | Literal["auto"],
        Help("leave-out trials; auto: until they are enough by stop_when", "N"),
        ESTIMATED,
    ] = 1000
    stop_when: Annotated[
        Literal["undecided", "reliability", "width"] | None,
        Help(
            "what is to reach precision_target: share of samples undecided about mem > 0.15 (default), split-half "
            "reliability of mem, median width of its intervals"
        ),
        ESTIMATED,
        GivenWith("num_trials"),
    ] = None
    precision_target: Annotated[
        float | None,
        Gt(0),
        Help("at most, for reliability at least; default: 0.25 undecided, reliability 0.9, width 0.15"),
        ESTIMATED,
        GivenWith("num_trials"),
    ] = None
    max_trials: Annotated[
        int | None,
        Ge(2),
        Help("trials after which auto ends in any case; default: 1000"),
        ESTIMATED,
        GivenWith("num_trials"),
    ] = None
    first_trial: Annotated[
        int,
        Ge(0),
        Help("number of the first of them: another cluster's share of the same trials begins elsewhere (see merge)"),
        ESTIMATED,
        Decides.WORKING,
    ] = 0
    subset_ratio: Annotated[SubsetRatio, ESTIMATED] = 0.7
    mask_plan: Annotated[
        Literal["uniform", "balanced"],
        Help("subsets drawn independently, or so that each sample is left out equally often"),
        ESTIMATED,
    ] = "uniform"
    num_members: Annotated[int, Ge(2), Help("networks in the ensemble (cheaper scores)"), ESTIMATED] = 10
    ensemble_archs: Annotated[
        tuple[Arch, ...] | None,
        Help(
            "their architectures, in turn; default: arch, resnet9-w16 and resnet20, or with tinynet resnet9-w8 "
            "and resnet9-w4",
            "NAME",
        ),
        ESTIMATED,
    ] = None
    keep: Annotated[
        Literal["probability"] | None,
        Help("keep in trials/, beside correctness, the probability of each sample's own class in each trial"),
        ESTIMATED,
        Decides.WORKING,
    ] = None
    import_scores: Annotated[
        str | None,
        Help("take memorization and influence from this Feldman-Zhang .npz and run nothing", "FILE"),
        ESTIMATED,
    ] = None
    merge: Annotated[
        tuple[str, ...] | None,
        Len(1),
        Help("join the trials (or members) of these result folders in --out, and run nothing", "DIR"),
        ESTIMATED,
        Decides.CALL,
    ] = None
    influence_threshold: Annotated[float, Ge(0), Lt(1), Help("pairs above it are kept"), ESTIMATED] = 0.15
    influence_pairs: Annotated[
        Literal["same_class", "all"], Help("which pairs of train and test samples are looked at"), ESTIMATED
    ] = "same_class"
    influence_top: Annotated[
        int | None,
        Ge(1),
        Help("also keep, for each test sample, the N training samples of the largest influence", "N"),
        ESTIMATED,
        Later(),
    ] = None
    scores_memory: Annotated[
        Memory,
        Help("memory for the scores, such as 500MB: trials that do not fit are read from scratch files", "SIZE"),
        ESTIMATED,
        Decides.WORKING,
    ] = "4GB"
    typicality: Annotated[
        Literal["significant", "paper"], Help("rule for the test sets; docs/memorization.md compares them"), ESTIMATED
    ] = "significant"
    typicality_level: Annotated[float, Gt(0), Lt(0.5), Help("level of the significance test"), ESTIMATED] = 0.001

    arch: Annotated[
        ArchOrAuto,
        Help(
            "architecture: resnet9-wW, resnet18, resnet32, wrnD-K, tinynet, ...; auto: tinynet for images up to 16x16, "
            "else resnet9; or FILE.py:NAME, package.module:NAME, timm:NAME, torchvision:NAME",
            "NAME",
        ),
        TRAINING,
    ] = AUTO
    recipe: Annotated[Literal["fast", "paper"], Help("fast: one cycle; paper: 160 epochs, two drops"), TRAINING] = (
        "fast"
    )
    epochs: Annotated[Epochs, TRAINING] = None
    batch_size: Annotated[BatchSize, TRAINING] = None
    lr: PeakRate = None
    optimizer: Optimizer = None
    schedule: RateSchedule = None
    warmup_epochs: WarmupEpochs = None
    crop_padding: CropPadding = None
    flip: Flip = None
    crop_scale: CropScale = None
    crop_size: CropSize = None
    precision: SomePrecision = "auto"
    seed: Annotated[int, Ge(0), Help("trial t draws everything from (seed, t)"), TRAINING] = 0

    gpus_per_trial: Annotated[
        GpusOfOne, Help("GPUs of one worker, 0.25 shares one; default: 1 where there are any"), RAY
    ] = None
    cpus_per_trial: Annotated[int, Ge(1), Help("CPU cores and threads of one worker"), RAY] = 1
    num_workers: Annotated[int | None, Ge(1), Help("trials at a time; default: as many as the cluster holds"), RAY] = (
        None
    )

    status: Status = False

    def __post_init__(self) -> None:
        check_fresh(self)
        check_augmentation(crop_padding=self.crop_padding, crop_scale=self.crop_scale, crop_size=self.crop_size)
        if self.keep and (self.score != "leave_out" or self.import_scores):
            raise ValueError("keep is of leave-out trials: leave it out with another score or imported ones")
        if self.first_trial and self.score != "leave_out":
            raise ValueError("first_trial is of leave-out trials: leave it out with another score")
        if self.merge and self.import_scores:
            raise ValueError("merge joins what was run and import_scores takes what others ran: give one of them")
        self._check_stopping()
        _ = self.training

    def _check_stopping(self) -> None:
        if self.num_trials == AUTO and (self.score != "leave_out" or self.import_scores):
            raise ValueError(
                "num_trials auto is of leave-out trials: with another score, or imported ones, give a number or nothing"
            )
        if self.num_trials == AUTO and self.first_trial:
            raise ValueError(
                f"num_trials auto counts the trials from number 0 on, and first_trial is {self.first_trial}: give a "
                "number for num_trials, or first_trial 0"
            )
        if self.num_trials == AUTO and self.merge:
            raise ValueError(
                "merge takes all trials that are there and runs none, which leaves num_trials auto nothing to decide: "
                "leave num_trials out, and give auto to a later call with the same out"
            )
        alone = [name for name in ("stop_when", "precision_target", "max_trials") if getattr(self, name) is not None]
        if alone and self.num_trials != AUTO:
            raise ValueError(f"{' and '.join(alone)} must be given with num_trials auto alone, got {self.num_trials}")
        _ = self.stopping_rule

    @property
    def stopping_rule(self) -> "StoppingRule | None":
        """When there are enough trials; None where their number is given."""
        if self.num_trials != AUTO:
            return None
        from bat_dist.memorization.stopping import TARGETS, StoppingRule  # here: it needs scipy

        criterion = self.stop_when or "undecided"
        return StoppingRule(criterion, self.precision_target or TARGETS[criterion], self.max_trials or MAX_TRIALS)

    @property
    def most_trials(self) -> int:
        """How many trials there can be in the end."""
        return (self.max_trials or MAX_TRIALS) if self.num_trials == "auto" else self.num_trials

    @property
    def training(self) -> Recipe:
        """The recipe with what the user changed."""
        names = ("epochs", "batch_size", "lr", "optimizer", "schedule", "warmup_epochs")
        return changed(RECIPES[self.recipe], **{name: getattr(self, name) for name in names})
