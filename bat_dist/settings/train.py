"""Settings of `bat-dist train`.  Imports neither torch nor ray, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from bat_dist.config import Group, Help
from bat_dist.data.table import check_augmentation
from bat_dist.methods.table import METHODS
from bat_dist.models.names import AUTO
from bat_dist.settings.decides import Decides, Later, SaidIn, SameInSweep
from bat_dist.settings.fields import (
    ON_A_MACHINE,
    RAY,
    TRAINING,
    ArchOrAuto,
    CheaperScore,
    CpusPerWorker,
    CropPadding,
    CropScale,
    CropSize,
    Epochs,
    Epsilon,
    Flip,
    GpusOfOne,
    Optimizer,
    OwnOrMethod,
    PeakRate,
    Pixels,
    RateSchedule,
    ScoreFile,
    SomePrecision,
    Status,
    WarmupEpochs,
    changed,
)
from bat_dist.settings.sections import DataSettings, RaySettings, check_fresh
from bat_dist.training.recipe import RECIPES, Precision, Recipe
from bat_dist.wording import alternatives

METHOD, ATTACK, VALIDATION = Group("method"), Group("attack"), Group("validation")
HYPER, WATCH, SPLIT = SaidIn("method_settings"), SaidIn("watch"), SameInSweep("validation split")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RaySettings, DataSettings):
    """`bat-dist train`.  Defaults: Sec. 5 of the paper, where it says; the rest is ours."""

    method: Annotated[
        OwnOrMethod, Help(f"{alternatives(METHODS)}, or a class of your own: FILE.py:NAME", "NAME"), METHOD
    ]
    scores: Annotated[
        ScoreFile | None,
        Help(
            "memorization.npz of these data or its folder, ensemble_scores.npz, a Feldman-Zhang .npz; for bat",
            "FILE",
        ),
        METHOD,
        Decides.CONTENT,
    ] = None
    score: Annotated[
        CheaperScore,
        Help("which of an ensemble's scores"),
        METHOD,
        SaidIn("scores"),
    ] = "disagreement"
    alpha: Annotated[
        float | None, Ge(0), Help("bat: strength of the reweighting; 0 is none, 1 the default"), METHOD, HYPER
    ] = None
    beta: Annotated[
        float | None,
        Ge(0),
        Help("bat: weight of the discrimination loss, 0.2; trades, mart: of the divergence, 5"),
        METHOD,
        HYPER,
    ] = None
    sigma: Annotated[float | None, Help("a sample with a larger score is atypical; 0.15"), METHOD, HYPER] = None
    atypical_share: Annotated[
        float | None, Gt(0), Lt(1), Help("choose sigma so that this share is atypical"), METHOD, SaidIn("scores")
    ] = None
    undefined: Annotated[
        Literal["neutral", "typical"],
        Help("samples without a defined score: neither typical nor atypical, or typical"),
        METHOD,
        SaidIn("scores"),
    ] = "neutral"
    hyper: Annotated[
        tuple[str, ...],
        Help("further hyper-parameters of the method: tau=0.5 denominator=supcon", "NAME=VALUE"),
        METHOD,
        HYPER,
    ] = ()

    train_subset: Annotated[
        str | None,
        Help("train on these samples of the training split alone: a .npz with `indices` and `fingerprint`", "FILE"),
        TRAINING,
        Decides.CONTENT,
    ] = None

    epsilon: Annotated[Epsilon, ATTACK] = None
    step_size: Annotated[Pixels | None, Help("default: the dataset's"), ATTACK] = None
    num_steps: Annotated[int, Ge(1), Help("PGD steps in training"), ATTACK] = 10
    random_start: Annotated[bool, Help("start in the ball, not at the image"), ATTACK] = True
    attack_mode: Annotated[
        Literal["eval", "keep"], Help("the network's mode while it is attacked; keep: train"), ATTACK
    ] = "eval"
    fold_batch_norm: Annotated[
        bool | None,
        Help("on CPUs, fold BatchNorm into convolutions during attacks; default: true, or as the folder has it"),
        ATTACK,
        Later(was=False),
    ] = None
    attack_precision: Annotated[Precision | None, Help("default: as precision"), ATTACK] = None

    arch: Annotated[
        ArchOrAuto,
        Help(
            "architecture: resnet18, resnet32, wrnD-K, resnet9-wW, tinynet, ...; auto: tinynet for images up to 16x16, "
            "else resnet18; or FILE.py:NAME, package.module:NAME, timm:NAME, torchvision:NAME",
            "NAME",
        ),
        TRAINING,
    ] = AUTO
    recipe: Annotated[
        Literal["paper", "study", "fast"],
        Help("paper: 160 epochs, two drops (Sec. 5); study: 200, one drop (Sec. 3); fast: one cycle"),
        TRAINING,
    ] = "paper"
    epochs: Annotated[Epochs, TRAINING] = None
    batch_size: Annotated[
        int | None, Ge(2), Help("over all workers, instead of the recipe's"), TRAINING, SaidIn("recipe")
    ] = None
    lr: PeakRate = None
    weight_decay: Annotated[float | None, Ge(0), Help("instead of the recipe's"), TRAINING, SaidIn("recipe")] = None
    optimizer: Optimizer = None
    schedule: RateSchedule = None
    warmup_epochs: WarmupEpochs = None
    crop_padding: CropPadding = None
    flip: Flip = None
    crop_scale: CropScale = None
    crop_size: CropSize = None
    precision: SomePrecision = "auto"
    ema: Annotated[
        float | None, Gt(0), Lt(1), Help("average the weights with this decay, and judge and keep those"), TRAINING
    ] = None
    awp: Annotated[
        float | None, Gt(0), Help("adversarial weight perturbation of this relative size, 0.005"), TRAINING
    ] = None
    awp_from: Annotated[int, Ge(1), Help("first epoch with it"), TRAINING] = 1
    clip_norm: Annotated[float | None, Gt(0), Help("clip the gradient to this norm"), TRAINING] = None
    seed: Annotated[int, Ge(0), Help("weights, order, augmentation and noise"), TRAINING] = 0

    num_val: Annotated[
        int | None,
        Ge(1),
        Help("samples held out of the training set; default: a tenth, at most 1000"),
        VALIDATION,
        SPLIT,
    ] = None
    val_seed: Annotated[int, Ge(0), Help("which samples"), VALIDATION, SPLIT] = 0
    val_steps: Annotated[int | None, Ge(0), Help("PGD steps; 0: clean only; default: num_steps"), VALIDATION, SPLIT] = (
        None
    )
    best_by: Annotated[
        Literal["val_pgd", "val_clean"] | None,
        Help("what the best checkpoint is best in; default: val_pgd, val_clean for erm"),
        VALIDATION,
    ] = None
    watch: Annotated[
        str | None,
        Help("typicality.npz: tell the accuracies on the atypical sets and the test typical set after epochs", "FILE"),
        VALIDATION,
        Decides.CONTENT,
    ] = None
    watch_steps: Annotated[
        int, Ge(0), Help("PGD steps on watched sets (20 in App. B); 0: clean only"), VALIDATION, WATCH, Later()
    ] = 20
    watch_every: Annotated[int, Ge(1), Help("epochs between two looks at watched sets"), VALIDATION, WATCH, Later()] = 1
    track: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb"], ...], Help("log epochs there too"), VALIDATION, Decides.WORKING
    ] = ()

    num_workers: Annotated[
        int, Ge(0), Help("data-parallel workers on Ray; 0: this process, without Ray"), TRAINING, ON_A_MACHINE
    ] = 0
    gpus_per_worker: Annotated[GpusOfOne, Help("default: 1 where the cluster has any"), RAY, ON_A_MACHINE] = None
    cpus_per_worker: CpusPerWorker = 1
    sync_bn: Annotated[bool, Help("BatchNorm over the batch of all workers"), TRAINING] = False
    max_failures: Annotated[
        int, Ge(0), Help("lost workers or machines to start again after, from the last epoch"), RAY
    ] = 3

    status: Status = False

    @property
    def separate_batch_norms(self) -> int:
        """Into how many parts a batch is cut for BatchNorm, which all architectures have; it decides the result."""
        return 1 if self.sync_bn else max(1, self.num_workers)

    def __post_init__(self) -> None:
        check_fresh(self)
        check_augmentation(crop_padding=self.crop_padding, crop_scale=self.crop_scale, crop_size=self.crop_size)
        _ = self.training
        if self.method == "bat" and not self.scores:
            raise ValueError("method bat needs --scores: run bat-dist memorize first, and give its memorization.npz")
        if self.sigma is not None and self.atypical_share is not None:
            raise ValueError("give sigma or atypical_share, not both")
        if self.num_workers and self.training.batch_size % self.num_workers:
            raise ValueError(
                f"batch_size must be divisible by num_workers, got {self.training.batch_size} for {self.num_workers}"
            )
        if self.num_workers and (self.gpus_per_worker or 0) % 1:
            raise ValueError(
                f"gpus_per_worker must be 1 (or 0: CPUs) with num_workers, got {self.gpus_per_worker:g}: NCCL, which "
                "brings their gradients together, wants a GPU of its own for each"
            )
        if self.best_by == "val_pgd" and self.val_steps == 0:
            raise ValueError("best_by val_pgd needs val_steps of at least 1, got 0")

    @property
    def training(self) -> Recipe:
        """The recipe with what the user changed."""
        names = ("epochs", "batch_size", "lr", "weight_decay", "optimizer", "schedule", "warmup_epochs")
        return changed(RECIPES[self.recipe], **{name: getattr(self, name) for name in names})

    @property
    def hyper_parameters(self) -> dict[str, float | str]:
        """The method's, as far as the user gave any.  Raises ValueError unless `hyper` reads NAME=VALUE."""
        numbers = {"alpha": self.alpha, "beta": self.beta}
        given: dict[str, float | str] = {name: value for name, value in numbers.items() if value is not None}
        for words in self.hyper:
            name, equals, value = words.partition("=")
            if not equals or name in given:
                raise ValueError(f"hyper wants NAME=VALUE, each name once, got {words!r}")
            given[name] = value
        return given
