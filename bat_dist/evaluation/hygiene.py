"""Can this evaluation be trusted?  What the probe and the attacks of the checks found, judged.  Imports no torch.

The signs of masked gradients are those of Carlini et al. 2019 (arXiv:1902.06705) and Athalye et al. 2018
(arXiv:1802.00420); the rest is AutoAttack's own checks and common mistakes. A sign is not a proof: it says
that the network may be less robust than its row says, and what to try.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from bat_dist.evaluation.statistics import mcnemar

WANTED_IMAGES = {
    "as_given": "",
    "normalized": "images normalized with the data set's mean and std: give --mean and --std",
    "imagenet": "images normalized with ImageNet's mean and std: give --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225",
    "minus_one_to_one": "images in [-1, 1]: give --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5",
    "bytes": "images in [0, 255]: give --mean 0 0 0 --std 0.00392157 0.00392157 0.00392157",
    "denormalized": "images whose normalization is undone: it normalizes twice; leave out --mean and --std",
}
"""What a network may have been trained on, by the names of `probe`'s preprocessings, and the way out."""
FOUND = (
    *("random_difference", "company_difference", "optimizes", "state_changed", "is_probability", "not_finite"),
    *("zero_gradient", "gradient_not_finite"),
    *(f"right_{name}" for name in WANTED_IMAGES),
)
"""What `probe.probe` tells."""

SIGNIFICANT = 0.01
GREAT = 0.1  # a difference of robust accuracies that is a sign
FEW, FEW_IMAGES = 0.02, 2  # a share, and a number, of images that may be an accident
LARGE_BALL = 0.05  # what may stay robust where no network is


class Check(NamedTuple):
    """One check. evidence: the numbers it was judged by. message: empty if passed."""

    name: str
    passed: bool
    message: str
    evidence: dict[str, float]

    @classmethod
    def of(cls, name: str, passed: bool, message: str, evidence: dict[str, float]) -> "Check":
        """A check whose message is given for both cases, and left out where it passed."""
        return cls(name, passed, "" if passed else message, evidence)


def judge(
    found: Mapping[str, float] | None,
    robust: Mapping[str, Bool[np.ndarray, " images"]],
    *,
    epsilon: float,
    max_delta: float,
) -> list[Check]:
    """All checks of an evaluation.

    found: what the probe found. robust: by the names of `plan.CHECKS`, of the images that are right when clean.
    max_delta: the largest change of a pixel in an image that fooled the network, as the network was given it.
    """
    inside = not max_delta > epsilon + 1e-6
    message = f"an adversarial image is {max_delta:g} away from its original, more than epsilon {epsilon:g}"
    return [
        *(judge_network(found) if found else ()),
        *judge_attacks(robust),
        check_epsilon(epsilon),
        Check.of("inside_the_ball", inside, message, {"max_delta": max_delta}),
    ]


def check_epsilon(epsilon: float) -> Check:
    """Is epsilon not a rounded one?  0.031 is smaller than 8/255, and a network's robust accuracy larger there."""
    steps = 255 * epsilon
    passed = abs(steps - round(steps)) < 1e-4 or round(steps) < 1
    message = (
        f"epsilon {epsilon:g} is {steps:.3f}/255, not {round(steps)}/255 = {round(steps) / 255:.5f}: numbers at one "
        f"cannot be compared with numbers at the other; give --epsilon {round(steps)}/255"
    )
    return Check.of("epsilon", passed, message, {"of_255": steps})


def judge_network(found: Mapping[str, float]) -> list[Check]:
    """The checks of what the probe found."""
    right = {name: found[f"right_{name}"] for name in WANTED_IMAGES}
    better = max(right, key=lambda name: right[name])
    messages = {
        "randomized": (
            found["random_difference"] > 1e-4,
            "the network answers differently each time it is asked: its randomness hides gradients, and one pass "
            "does not tell what it says; autoattack_rand attacks the expectation over it (EOT)",
            ("random_difference",),
        ),
        "depends_on_company": (
            found["random_difference"] <= 1e-4 and found["company_difference"] > 1e-3,
            "an image's logits depend on the other images in the batch: in eval mode they must not",
            ("company_difference",),
        ),
        "dynamic": (
            bool(found["optimizes"] or found["state_changed"]),
            "the network optimizes or changes its own state while it is asked: a defense at test time, against which "
            "AutoAttack can be insufficient; an adaptive attack is needed",
            ("optimizes", "state_changed"),
        ),
        "probabilities": (
            bool(found["is_probability"]),
            "the network gives probabilities: attacks want logits; take the softmax off",
            ("is_probability",),
        ),
        "not_finite": (
            found["not_finite"] > 0,
            "logits are infinite or not numbers at {not_finite:.1%} of the images; an image of which one is not a "
            "number counts as wrong",
            ("not_finite",),
        ),
        "gradient_not_finite": (
            found["gradient_not_finite"] > 0,
            "cross-entropy's gradient is infinite or not a number at {gradient_not_finite:.1%} of the images, where an "
            "attack that follows it does not move or leaves the ball: their robustness is not measured",
            ("gradient_not_finite",),
        ),
        "zero_gradients": (
            found["zero_gradient"] > FEW,
            "cross-entropy has a gradient of exactly 0 at {zero_gradient:.0%} of the images: PGD cannot move there",
            ("zero_gradient",),
        ),
        "normalization": (
            right[better] > right["as_given"] + GREAT,
            f"on images in [0, 1] the network is right on {right['as_given']:.0%}, and on {right[better]:.0%} if it "
            f"gets {WANTED_IMAGES[better]}",
            tuple(f"right_{name}" for name in WANTED_IMAGES),
        ),
    }
    return [
        Check.of(name, not bad, message.format_map(found), {key: found[key] for key in keys})
        for name, (bad, message, keys) in messages.items()
    ]


def judge_attacks(robust: Mapping[str, Bool[np.ndarray, " images"]]) -> list[Check]:
    """The checks that compare attacks on the same images."""
    if not robust or not len(next(iter(robust.values()))):
        return []
    share = {name: float(flags.mean()) for name, flags in robust.items()}
    with_gradient = [robust[name] for name in ("pgd100", "cw100", "apgd-t3") if name in robust]
    by_gradient = np.all(with_gradient, axis=0)
    unseen = _more_than_few(by_gradient & ~robust["square1000"], FEW)
    single = _more_than_few(robust["pgd100"] & ~robust["fgsm"], 2 * FEW)
    others = np.all(with_gradient[1:], axis=0)
    weak = mcnemar(robust["pgd100"], others)
    scale = mcnemar(robust["pgd100"], robust["pgd100-rescaled"])
    table = {
        "square_finds_more": (
            unseen > 0,
            f"Square, which uses no gradient, fools {unseen:.0%} of the images that PGD-100, CW-100 and APGD-T leave: "
            "gradients are masked",
            {"square_alone": unseen, "square": share["square1000"], "gradient_attacks": float(by_gradient.mean())},
        ),
        "one_step_finds_more": (
            single > 0,
            f"FGSM's one step fools {single:.0%} of the images that 100 steps of PGD leave: gradients are masked",
            {"fgsm": share["fgsm"], "pgd100": share["pgd100"], "fgsm_alone": single},
        ),
        "pgd_is_weak": (
            weak.difference > GREAT and weak.p_value < SIGNIFICANT,
            f"PGD-100 leaves {share['pgd100']:.0%}, CW-100 and APGD-T {others.mean():.0%}: do not go by PGD here",
            {"pgd100": share["pgd100"], "cw_and_apgd_t": float(others.mean()), "p_value": weak.p_value},
        ),
        "logit_scale": (
            scale.difference > GREAT / 2 and scale.p_value < SIGNIFICANT,
            f"PGD-100 leaves {share['pgd100']:.0%}, and {share['pgd100-rescaled']:.0%} once the logits are scaled "
            "down: their size hides the gradient",
            {"pgd100": share["pgd100"], "rescaled": share["pgd100-rescaled"], "p_value": scale.p_value},
        ),
        "large_ball": (
            share["pgd100-large"] > LARGE_BALL,
            f"{share['pgd100-large']:.0%} stay right in a ball of radius 0.5, in which every image can be made the "
            "same grey one: the attack is stuck, or the gradient is masked",
            {"pgd100_at_half": share["pgd100-large"]},
        ),
    }
    return [Check.of(name, not bad, message, evidence) for name, (bad, message, evidence) in table.items()]


def _more_than_few(which: Bool[np.ndarray, " images"], share: float) -> float:
    """Their share; 0 if it may be an accident."""
    return float(which.mean()) if which.sum() > FEW_IMAGES and which.mean() > share else 0.0


def square_check(before: float, after: float) -> Check:
    """AutoAttack's own check, of the robust accuracies before and after Square, its last part."""
    passed = after >= before - 0.002
    message = (
        f"Square decreased AutoAttack's robust accuracy by {before - after:.2%}: the evaluation may be unreliable; try "
        "more queries or an adaptive attack"
    )
    return Check.of("square_decreases", passed, message, {"before": before, "after": after})
