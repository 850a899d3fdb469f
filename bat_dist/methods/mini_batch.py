"""A mini-batch as a method sees it: images, labels, scores, the network, and the attack it trains against."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from jaxtyping import Float, Int64
from torch import Tensor, nn

from bat_dist.attacks.frozen import Mode
from bat_dist.attacks.linf import Images, Start, no_start, uniform_start
from bat_dist.attacks.losses import Loss, cross_entropy
from bat_dist.attacks.noise import Keys
from bat_dist.attacks.numerics import Precision
from bat_dist.attacks.pgd import Against, PgdPath, pgd, pgd_path
from bat_dist.methods.parallel import ALONE, Ranks


class PgdSettings(TypedDict):
    """The keyword arguments of `pgd` and `pgd_path` that an attack in training sets."""

    epsilon: float
    step_size: float
    num_steps: int
    precision: Precision
    mode: Mode
    fold_batch_norm: bool


@dataclass(frozen=True)
class TrainingAttack:
    """PGD in the l_inf ball, as adversarial training uses it; epsilon and step_size in [0, 1] pixels.

    random_start: False begins at the image where the method would begin uniformly in the ball. fold_batch_norm: on
    CPUs, convolutions take over the BatchNorms behind them while the network is attacked.
    """

    epsilon: float
    step_size: float
    num_steps: int = 10
    precision: Precision = "fp32"
    mode: Mode = "eval"
    random_start: bool = True
    fold_batch_norm: bool = True

    def settings(self) -> PgdSettings:
        """The keyword arguments of `pgd`, but for the start."""
        return {
            "epsilon": self.epsilon,
            "step_size": self.step_size,
            "num_steps": self.num_steps,
            "precision": self.precision,
            "mode": self.mode,
            "fold_batch_norm": self.fold_batch_norm,
        }


@dataclass(frozen=True)
class MiniBatch:
    """One rank's rows of a mini-batch, and all that a loss may need.

    network: the bare network, for attacks. forward: what the loss calls, `forward(images)` -> logits or
    `forward(images, with_features=True)` -> (logits, features); under data parallelism DDP around the network.
    mem: memorization of the rows' samples, None without scores. progress: the finished share of the epochs.
    keys: of the rows' samples (`noise.image_keys`), from which random starts and drawn negatives come; the same for any
    number of ranks. checked: images and labels come from a loader, and attacks need not look at them again.
    Attacks are computed once: asked again with the same settings, the same images come back.
    """

    images: Images
    labels: Int64[Tensor, " batch"]
    network: nn.Module
    forward: Callable[..., Any]
    attack: TrainingAttack | None = None
    keys: Keys | None = None
    mem: Float[Tensor, " batch"] | None = None
    progress: float = 0.0
    ranks: Ranks = ALONE
    checked: bool = False
    _attacked: dict[Any, PgdPath | Images] = field(default_factory=dict, repr=False)

    def adversarial(
        self, *, loss: Loss = cross_entropy, against: Against = "labels", start: Start = uniform_start
    ) -> Images:
        """x_adv of the method's attack (see `pgd`): by default cross-entropy PGD from a uniform start."""
        key = ("pgd", loss, against, start)
        if key not in self._attacked:
            self._attacked[key] = pgd(
                self.network,
                self.images,
                self.labels,
                loss=loss,
                against=against,
                start=self._start(start),
                generator=self.keys,
                checked=self.checked,
                **self._settings(),
            )
        return self._attacked[key]  # pyright: ignore[reportReturnType]

    def adversarial_path(self) -> PgdPath:
        """The images of `adversarial()` and kappa, the number of iterates that are classified right (GAIRAT)."""
        if "path" not in self._attacked:
            self._attacked["path"] = pgd_path(
                self.network,
                self.images,
                self.labels,
                start=self._start(uniform_start),
                generator=self.keys,
                checked=self.checked,
                look_at_last=False,
                **self._settings(),
            )
        return self._attacked["path"]  # pyright: ignore[reportReturnType]

    @property
    def num_steps(self) -> int:
        """The number of the attack's steps."""
        return self._settings()["num_steps"]

    def _settings(self) -> PgdSettings:
        if self.attack is None:
            raise ValueError("this method trains on adversarial images: give the mini-batch an attack")
        return self.attack.settings()

    def _start(self, start: Start) -> Start:
        if self.attack and not self.attack.random_start and start is uniform_start:
            return no_start  # a Gaussian start stays: the gradient of KL is 0 at the image
        return start
