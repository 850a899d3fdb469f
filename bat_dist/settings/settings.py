"""Settings of the programs that run on Ray.  Imports neither torch nor ray, so that `--help` answers at once."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Len, Lt
from pydantic import AfterValidator, BeforeValidator

from bat_dist.config import Group, Help
from bat_dist.data.table import check_dataset
from bat_dist.evaluation.names import check_attacks
from bat_dist.methods.table import check_method
from bat_dist.models.names import AUTO, check_arch, check_arch_or_auto
from bat_dist.settings.ray_address import host_and_port
from bat_dist.storage.places import Place
from bat_dist.training.recipe import RECIPES, Precision, PrecisionOrAuto, Recipe


def _dataset_name(name: str) -> str:
    return check_dataset(name).name


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


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which data, and where the results go: the same for every program."""

    dataset: Annotated[
        str,
        AfterValidator(_dataset_name),
        Help("digits, cifar10, cifar100, tiny_imagenet or image_folder", "NAME"),
        Group("data"),
    ]
    out: Annotated[Place, Help("result folder, or a URI such as s3://bucket/run; what it holds is resumed", "DIR")]
    data_dir: Annotated[str | None, Help("where the data lies: a folder, or a zip of one", "DIR"), Group("data")] = None
    download: Annotated[bool, Help("fetch CIFAR into data_dir if it is not there"), Group("data")] = False
    num_train: Annotated[
        int | None, Ge(1), Help("take the first N/classes training samples of each class"), Group("data")
    ] = None
    num_test: Annotated[int | None, Ge(1), Help("the same for test samples"), Group("data")] = None
    num_classes: Annotated[int | None, Ge(2), Help("take the first N classes (tiny_imagenet: 50)"), Group("data")] = (
        None
    )
    image_size: Annotated[int | None, Ge(1), Help("resize images to N x N (image_folder)"), Group("data")] = None
    test_share: TestShare = None
    loader: Annotated[
        Literal["auto", "ffcv", "memory"],
        Help("memory holds all images, ffcv reads a .beton; equal batches; auto: ffcv for large data if installed"),
        Group("data"),
    ] = "auto"

    @property
    def data(self) -> dict[str, Any]:
        """The keyword arguments of `load_dataset`."""
        names = ("data_dir", "num_train", "num_test", "num_classes", "image_size", "test_share", "download")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Where a program that runs on Ray runs, and whether it begins anew."""

    fresh: Annotated[
        bool, Help("remove what an earlier job of this program left in the result folder, and begin anew")
    ] = False

    ray_address: Annotated[
        Annotated[str, AfterValidator(_ray_address)] | None,
        Help("local, auto or host:port; default: the cluster at hand, else local", "ADDR"),
        Group("Ray"),
    ] = None
    min_nodes: Annotated[
        int, Ge(1), Help("nodes of a cluster to wait for before work starts, the head counted"), Group("Ray")
    ] = 1
    wait_minutes: Annotated[float, Ge(0), Help("how long to wait for nodes or room on them"), Group("Ray")] = 15.0


_LATER = {"crop_padding": None, "flip": None, "test_share": None, "split": "test", "first": None}


def without_later_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that folders of earlier versions do not know, where they say what was always so."""
    return {name: value for name, value in settings.items() if name not in _LATER or value != _LATER[name]}


def check_fresh(settings: RaySettings) -> None:
    """Raise ValueError for one who wants to see what is there, and to have it removed."""
    if settings.fresh and getattr(settings, "status", False):
        raise ValueError("status says what the folder holds and fresh would remove it: give one of them")


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
        return _changed(RECIPES[self.recipe], epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)


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
        int, Ge(0), Help("data-parallel workers on Ray; 0: this process, without Ray"), Group("Ray")
    ] = 0
    gpus_per_worker: Annotated[float | None, Ge(0), Help("default: 1 where the cluster has any"), Group("Ray")] = None
    cpus_per_worker: Annotated[int, Ge(1), Help("CPU cores and threads of one worker"), Group("Ray")] = 1
    sync_bn: Annotated[bool, Help("BatchNorm over the batch of all workers"), Group("training")] = False
    max_failures: Annotated[
        int, Ge(0), Help("lost workers or machines to start again after, from the last epoch"), Group("Ray")
    ] = 3

    status: Annotated[bool, Help("say what DIR holds, and run nothing")] = False

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
        return _changed(RECIPES[self.recipe], **{name: getattr(self, name) for name in names})

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


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(RaySettings, DataSettings):
    """`bat-dist evaluate`.  Defaults: Sec. 5.1 of the paper (PGD and CW with steps of 2/255 from a random start)."""

    checkpoint: Annotated[
        str | None,
        Help("folder of bat-dist train or export, or a file of weights (.safetensors, .pt)", "DIR"),
        Group("what is evaluated"),
    ] = None
    which: Annotated[
        Literal["best", "last"] | None, Help("of a run's folder; default: best"), Group("what is evaluated")
    ] = None
    model: Annotated[
        str | None,
        Help("a network of your own: NAME() gives it; checkpoint then names its weights", "FILE.py:NAME"),
        Group("what is evaluated"),
    ] = None
    mean: Annotated[
        tuple[float, float, float] | None,
        Help("of a network of your own that wants normalized images; its input is (x - mean) / std", "R G B"),
        Group("what is evaluated"),
    ] = None
    std: Annotated[tuple[float, float, float] | None, Help("the same", "R G B"), Group("what is evaluated")] = None
    weights_key: Annotated[
        str | None,
        Help("which of the sets of weights in a torch file, such as model_ema; default: the first that fits", "KEY"),
        Group("what is evaluated"),
    ] = None
    allow_pickle: Annotated[
        bool, Help("read a checkpoint that can run any code while it is read"), Group("what is evaluated")
    ] = False
    attacks: Annotated[
        tuple[str, ...],
        AfterValidator(check_attacks),
        Help(ATTACKS_HELP, "NAME"),
        Group("attacks"),
    ] = ("clean", "fgsm", "pgd20", "cw", "autoattack")
    epsilon: Annotated[
        Pixels | None,
        Help("radius of the ball in [0, 1] pixels, such as 8/255; default: the dataset's"),
        Group("attacks"),
    ] = None
    step_size: Annotated[
        Pixels | None,
        Help("of pgd and cw; default: the dataset's"),
        Group("attacks"),
    ] = None
    restarts: Annotated[int, Ge(1), Help("of pgd and cw; the worst counts"), Group("attacks")] = 1
    seeds: Annotated[
        tuple[Annotated[int, Ge(0)], ...],
        Len(1),
        Help("of the attacks' random numbers; with several, a row for each and one for the worst"),
        Group("attacks"),
    ] = (0,)
    check_images: Annotated[
        int, Ge(0), Help("rightly classified images for the hygiene checks; 0 leaves them out"), Group("attacks")
    ] = 64
    split: Annotated[
        Literal["test", "train", "validation"],
        Help("which images; validation: those that the checkpoint's training held out"),
        Group("what is evaluated"),
    ] = "test"
    first: Annotated[
        int | None,
        Ge(1),
        Help("only the first N images of the split, as they come (num_test takes equally many of each class)"),
        Group("what is evaluated"),
    ] = None
    scores: Annotated[
        str | None,
        Help("typicality.npz of these data: accuracies of typical and atypical images too", "FILE"),
        Group("what is evaluated"),
    ] = None
    keep_adversarial: Annotated[bool, Help("keep the images that fooled the network"), Group("what is evaluated")] = (
        False
    )

    batch_size: Annotated[int, Ge(1), Help("images attacked at once"), Group("attacks")] = 64
    gpus_per_worker: Annotated[float | None, Ge(0), Help("default: 1 where there are any"), Group("Ray")] = None
    cpus_per_worker: Annotated[int, Ge(1), Help("CPU cores and threads of one worker"), Group("Ray")] = 1
    num_workers: Annotated[
        int | None, Ge(1), Help("units at a time; default: as many as the cluster holds"), Group("Ray")
    ] = None

    status: Annotated[bool, Help("say what DIR holds, and run nothing")] = False

    def __post_init__(self) -> None:
        """What only makes sense together."""
        check_fresh(self)
        if self.checkpoint is None and self.model is None:
            raise ValueError("what is to be evaluated? Give --checkpoint DIR, or --model FILE.py:NAME")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, three numbers each")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {' '.join(map(str, self.seeds))}")


@dataclass(frozen=True, kw_only=True)
class CollectSettings:
    """`bat-dist collect`."""

    cluster: Annotated[str, Help("the file that `ray up` was given; may stand first without --cluster", "FILE.yaml")]
    out: Annotated[str, Help("local folder; each run gets a folder in it", "DIR")]
    runs: Annotated[
        tuple[str, ...], Help("result folders on the head, or URIs; default: all that ran on it", "DIR")
    ] = ()
    checkpoints: Annotated[bool, Help("weights too")] = False


def _changed(recipe: Recipe, **changes: Any) -> Recipe:
    return dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
