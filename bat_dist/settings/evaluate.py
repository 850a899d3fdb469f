"""Settings of `bat-dist evaluate`.  Imports neither torch nor ray, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from bat_dist.attacks.batches import ON_CPU, ON_GPU
from bat_dist.config import Group, Help
from bat_dist.evaluation.names import CHECK_IMAGES
from bat_dist.settings.decides import Decides, Later
from bat_dist.settings.fields import (
    OWN,
    RAY,
    Attacks,
    CpusPerWorker,
    Epsilon,
    GpusOfOne,
    Pixels,
    Seeds,
    Status,
    TypicalityFile,
)
from bat_dist.settings.sections import DataSettings, RaySettings, check_fresh

EVALUATED, ATTACKED = Group("what is evaluated"), Group("attacks")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(RaySettings, DataSettings):
    """`bat-dist evaluate`.  Defaults: Sec. 5.1 of the paper (PGD and CW with steps of 2/255 from a random start)."""

    checkpoint: Annotated[
        str | None,
        Help("folder of bat-dist train or export, or a file of weights (.safetensors, .pt)", "DIR"),
        EVALUATED,
        Decides.CONTENT,
    ] = None
    which: Annotated[Literal["best", "last"] | None, Help("of a run's folder; default: best"), EVALUATED] = None
    model: Annotated[
        Annotated[str, OWN] | None,
        Help("a network of your own: NAME() gives it; checkpoint then names its weights", "FILE.py:NAME"),
        EVALUATED,
    ] = None
    mean: Annotated[
        tuple[float, float, float] | None,
        Help("of a network of your own that wants normalized images; its input is (x - mean) / std", "R G B"),
        EVALUATED,
    ] = None
    std: Annotated[tuple[float, float, float] | None, Help("the same", "R G B"), EVALUATED] = None
    weights_key: Annotated[
        str | None,
        Help("which of the sets of weights in a torch file, such as model_ema; default: the first that fits", "KEY"),
        EVALUATED,
    ] = None
    allow_pickle: Annotated[bool, Help("read a checkpoint that can run any code while it is read"), EVALUATED] = False
    attacks: Annotated[Attacks, ATTACKED] = ("clean", "fgsm", "pgd20", "cw", "autoattack")
    epsilon: Annotated[Epsilon, ATTACKED] = None
    step_size: Annotated[Pixels | None, Help("of pgd and cw; default: the dataset's"), ATTACKED] = None
    restarts: Annotated[int, Ge(1), Help("of pgd and cw; the worst counts"), ATTACKED] = 1
    seeds: Annotated[
        Seeds, Help("of the attacks' random numbers; with several, a row for each and one for the worst"), ATTACKED
    ] = (0,)
    check_images: Annotated[
        int, Ge(0), Help("rightly classified images for the hygiene checks; 0 leaves them out"), ATTACKED
    ] = CHECK_IMAGES
    split: Annotated[
        Literal["test", "train", "validation"],
        Help("which images; validation: those that the checkpoint's training held out"),
        EVALUATED,
        Later(),
    ] = "test"
    first: Annotated[
        int | None,
        Ge(1),
        Help("only the first N images of the split, as they come (num_test takes equally many of each class)"),
        EVALUATED,
        Later(),
    ] = None
    scores: Annotated[
        TypicalityFile | None,
        Help("typicality.npz of these data, or its folder: accuracies of typical and atypical images too", "FILE"),
        EVALUATED,
        Decides.CONTENT,
    ] = None
    keep_adversarial: Annotated[bool, Help("keep the images that fooled the network"), EVALUATED] = False

    batch_size: Annotated[
        int | None,
        Ge(1),
        Help(f"images attacked at once; default: {ON_CPU} on CPUs, {ON_GPU} on GPUs"),
        ATTACKED,
        Decides.WORKING,
    ] = None
    gpus_per_worker: Annotated[GpusOfOne, Help("default: 1 where there are any"), RAY] = None
    cpus_per_worker: CpusPerWorker = 1
    num_workers: Annotated[int | None, Ge(1), Help("units at a time; default: as many as the cluster holds"), RAY] = (
        None
    )

    status: Status = False

    def __post_init__(self) -> None:
        """What only makes sense together."""
        check_fresh(self)
        if self.checkpoint is None and self.model is None:
            raise ValueError("what is to be evaluated? Give --checkpoint DIR, or --model FILE.py:NAME")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, three numbers each")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {' '.join(map(str, self.seeds))}")
