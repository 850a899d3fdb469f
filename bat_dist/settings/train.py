"""Settings of `bat-dist train`.  Imports neither torch nor ray, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator

from bat_dist.config import Group, Help
from bat_dist.methods.table import check_method
from bat_dist.models.names import AUTO
from bat_dist.settings.fields import PRECISION_HELP, ArchOrAuto, CropPadding, Flip, Pixels, changed
from bat_dist.settings.sections import DataSettings, RaySettings, check_fresh
from bat_dist.training.recipe import RECIPES, Precision, PrecisionOrAuto, Recipe


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RaySettings, DataSettings):
    """`bat-dist train`.  Defaults: Sec. 5 of the paper, where it says; the rest is ours."""

    method: Annotated[
        str,
        AfterValidator(check_method),
        Help("erm, pgd_at, trades, mart, gairat or bat", "NAME"),
        Group("method"),
    ]
    scores: Annotated[
        str | None,
        Help("memorization.npz, ensemble_scores.npz or a Feldman-Zhang .npz of these data (bat needs one)", "FILE"),
        Group("method"),
    ] = None
    score: Annotated[
        Literal["disagreement", "confidence", "true_class_confidence"],
        Help("which of an ensemble's scores"),
        Group("method"),
    ] = "disagreement"
    alpha: Annotated[
        float | None, Ge(0), Help("bat: strength of the reweighting; 0 is none, 1 the default"), Group("method")
    ] = None
    beta: Annotated[
        float | None,
        Ge(0),
        Help("bat: weight of the discrimination loss, 0.2; trades, mart: of the divergence, 5"),
        Group("method"),
    ] = None
    sigma: Annotated[float | None, Help("a sample with a larger score is atypical; 0.15"), Group("method")] = None
    atypical_share: Annotated[
        float | None, Gt(0), Lt(1), Help("choose sigma so that this share is atypical"), Group("method")
    ] = None
    undefined: Annotated[
        Literal["neutral", "typical"],
        Help("samples without a defined score: neither typical nor atypical, or typical"),
        Group("method"),
    ] = "neutral"
    hyper: Annotated[
        tuple[str, ...],
        Help("further hyper-parameters of the method: tau=0.5 denominator=supcon", "NAME=VALUE"),
        Group("method"),
    ] = ()

    epsilon: Annotated[
        Pixels | None,
        Help("radius of the ball in [0, 1] pixels, such as 8/255; default: the dataset's"),
        Group("attack"),
    ] = None
    step_size: Annotated[Pixels | None, Help("default: the dataset's"), Group("attack")] = None
    num_steps: Annotated[int, Ge(1), Help("PGD steps in training"), Group("attack")] = 10
    random_start: Annotated[bool, Help("start in the ball, not at the image"), Group("attack")] = True
    attack_mode: Annotated[
        Literal["eval", "keep"], Help("the network's mode while it is attacked; keep: train"), Group("attack")
    ] = "eval"
    attack_precision: Annotated[Precision | None, Help("default: as precision"), Group("attack")] = None

    arch: Annotated[
        ArchOrAuto,
        Help(
            "architecture: resnet18, resnet32, wrnD-K, resnet9-wW, tinynet, ...; "
            "auto: tinynet for images up to 16x16, else resnet18",
            "NAME",
        ),
        Group("training"),
    ] = AUTO
    recipe: Annotated[
        Literal["paper", "study", "fast"],
        Help("paper: 160 epochs, two drops (Sec. 5); study: 200, one drop (Sec. 3); fast: one cycle"),
        Group("training"),
    ] = "paper"
    epochs: Annotated[int | None, Ge(1), Help("instead of the recipe's"), Group("training")] = None
    batch_size: Annotated[int | None, Ge(2), Help("over all workers, instead of the recipe's"), Group("training")] = (
        None
    )
    lr: Annotated[float | None, Gt(0), Help("peak learning rate, instead of the recipe's"), Group("training")] = None
    weight_decay: Annotated[float | None, Ge(0), Help("instead of the recipe's"), Group("training")] = None
    crop_padding: CropPadding = None
    flip: Flip = None
    precision: Annotated[PrecisionOrAuto, Help(PRECISION_HELP), Group("training")] = "auto"
    ema: Annotated[
        float | None,
        Gt(0),
        Lt(1),
        Help("average the weights with this decay, and judge and keep those"),
        Group("training"),
    ] = None
    awp: Annotated[
        float | None, Gt(0), Help("adversarial weight perturbation of this relative size, 0.005"), Group("training")
    ] = None
    awp_from: Annotated[int, Ge(1), Help("first epoch with it"), Group("training")] = 1
    clip_norm: Annotated[float | None, Gt(0), Help("clip the gradient to this norm"), Group("training")] = None
    seed: Annotated[int, Ge(0), Help("weights, order, augmentation and noise"), Group("training")] = 0

    num_val: Annotated[
        int | None,
        Ge(1),
        Help("samples held out of the training set; default: a tenth, at most 1000"),
        Group("validation"),
    ] = None
    val_seed: Annotated[int, Ge(0), Help("which samples"), Group("validation")] = 0
    val_steps: Annotated[
        int | None, Ge(0), Help("PGD steps; 0: clean only; default: num_steps"), Group("validation")
    ] = None
    best_by: Annotated[
        Literal["val_pgd", "val_clean"] | None,
        Help("what the best checkpoint is best in; default: val_pgd, val_clean for erm"),
        Group("validation"),
    ] = None
    track: Annotated[
        tuple[Literal["tensorboard", "mlflow"], ...], Help("log epochs there too"), Group("validation")
    ] = ()

    num_workers: Annotated[
        int, Ge(0), Help("data-parallel workers on Ray; 0: this process, without Ray"), Group("training")
    ] = 0
    gpus_per_worker: Annotated[float | None, Ge(0), Help("default: 1 where the cluster has any"), Group("Ray")] = None
    cpus_per_worker: Annotated[int, Ge(1), Help("CPU cores and threads of one worker"), Group("Ray")] = 1
    sync_bn: Annotated[bool, Help("BatchNorm over the batch of all workers"), Group("training")] = False
    max_failures: Annotated[
        int, Ge(0), Help("lost workers or machines to start again after, from the last epoch"), Group("Ray")
    ] = 3

    status: Annotated[bool, Help("say what DIR holds, and run nothing")] = False

    @property
    def separate_batch_norms(self) -> int:
        """Into how many parts a batch is cut for BatchNorm, which all architectures have; it decides the result."""
        return 1 if self.sync_bn else max(1, self.num_workers)

    def __post_init__(self) -> None:
        check_fresh(self)
        if self.method == "bat" and not self.scores:
            raise ValueError("method bat needs --scores: run bat-dist memorize first, and give its memorization.npz")
        if self.sigma is not None and self.atypical_share is not None:
            raise ValueError("give sigma or atypical_share, not both")
        if self.num_workers and self.training.batch_size % self.num_workers:
            raise ValueError(
                f"batch_size must be divisible by num_workers, got {self.training.batch_size} for {self.num_workers}"
            )
        if self.best_by == "val_pgd" and self.val_steps == 0:
            raise ValueError("best_by val_pgd needs val_steps of at least 1, got 0")

    @property
    def training(self) -> Recipe:
        """The recipe with what the user changed."""
        names = ("epochs", "batch_size", "lr", "weight_decay")
        return changed(RECIPES[self.recipe], **{name: getattr(self, name) for name in names})

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Of the method, as far as the user gave any.  Raises ValueError unless `hyper` reads NAME=VALUE."""
        given = {name: value for name in ("alpha", "beta") if (value := getattr(self, name)) is not None}
        for words in self.hyper:
            name, equals, value = words.partition("=")
            if not equals or name in given:
                raise ValueError(f"hyper wants NAME=VALUE, each name once, got {words!r}")
            given[name] = value
        return given
