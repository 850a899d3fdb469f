"""All measurements and their goals.  Imports neither torch nor ray.

Goals are those of a machine with two cores; where bf16 instructions decide, there is one for each class of machine.
"""

from bat_dist.wording import counted
from benchmarks.measurement import Goal, Measurement, Noise, Share, Speed, Value

PASSES = ("passes", "passes, weights in bf16", "passes, BatchNorm folded")
WITHIN_NOISE = 2.0  # standard errors
TIMES_TEXTBOOK: Goal = {"amx": 4.0, "avx512": 4.0, "avx2": 1.8}
TIMES_PLAIN: Goal = {"amx": 3.5, "avx512": 3.5, "avx2": 2.5}
LIMIT_OF_SMALL_NETS = 0.85


def _of_limit(goal: float) -> tuple[Speed, ...]:
    """Figures of an adversarial step against the network's own passes, and against one of ours that folds nothing."""
    return (
        *(
            Speed(text=f"{method}, share of the limit", side=method, over=PASSES, at_least=goal)
            for method in ("PGD-AT", "BAT")
        ),
        Speed(text="folded BatchNorms over none", side="PGD-AT", over=("PGD-AT, BatchNorm not folded",)),
    )


def _times_textbook(goal: Goal | None) -> tuple[Speed, ...]:
    """Figures of an adversarial step against the textbook's loop."""
    return tuple(
        Speed(text=f"{method} over the textbook", side=method, over=("textbook",), at_least=goal)
        for method in ("PGD-AT", "BAT")
    )


def _trial(width: int, epochs: int, num_images: int, minutes: float) -> Measurement:
    return Measurement(
        name=f"trial-w{width}",
        what=f"a leave-out trial, ResNet-9 of width {width}, {counted(epochs, 'epoch')} of {num_images:,} images",
        setup=f"trials:width_{width}",
        figures=(
            Speed(text="trials per hour, ours over plain", side="ours", over=("plain",), at_least=TIMES_PLAIN),
            Speed(text="share of the limit", side="ours", over=("passes",)),
            Noise(
                text="difference of test accuracy",
                side="ours",
                other="plain",
                quantity="accuracy",
                at_most=WITHIN_NOISE,
            ),
        ),
        minutes=minutes,
        warm_up=False,
    )


def _two_workers(verb: str, setup: str, minutes: float, *, images: bool = True) -> Measurement:
    return Measurement(
        name=f"two-workers-{verb}",
        what=f"{verb} by two single-thread workers and by one",
        setup=f"parallel:{setup}",
        figures=(Speed(text="two workers over one", side="two workers", over=("one worker",), at_least=1.8),),
        minutes=minutes,
        warm_up=False,
        on_ray=True,
        images=images,
    )


MEASUREMENTS = (
    Measurement(
        name="step-resnet18",
        what="a step of adversarial training, 10 attack steps, ResNet-18, batch 128",
        setup="adversarial:resnet18",
        figures=(*_times_textbook(TIMES_TEXTBOOK), *_of_limit(0.9)),
        minutes=4,
    ),
    Measurement(
        name="step-wrn28-10",
        what="the same, WRN-28-10, batch 16",
        setup="adversarial:wide_resnet",
        figures=_of_limit(LIMIT_OF_SMALL_NETS),
        minutes=3,
    ),
    Measurement(
        name="step-resnet9-w16",
        what="the same, ResNet-9 of width 16, batch 128",
        setup="adversarial:resnet9_w16",
        figures=(*_times_textbook(None), *_of_limit(LIMIT_OF_SMALL_NETS)),
        minutes=1,
    ),
    Measurement(
        name="step-resnet9-w64",
        what="the same, ResNet-9 of width 64, batch 128",
        setup="adversarial:resnet9_w64",
        figures=_of_limit(LIMIT_OF_SMALL_NETS),
        minutes=2,
    ),
    Measurement(
        name="robust-accuracy",
        what="accuracy under PGD-20 after 3 epochs of PGD-AT, ResNet-9 of width 16, 3 seeds",
        setup="adversarial:accuracy",
        figures=(
            Noise(
                text="difference to the textbook",
                side="PGD-AT",
                other="textbook",
                quantity="accuracy",
                at_most=WITHIN_NOISE,
            ),
            Value(text="ours", side="PGD-AT", quantity="accuracy", unit="%", steady=False),
            Value(text="textbook", side="textbook", quantity="accuracy", unit="%", steady=False),
        ),
        minutes=7,
        rounds=3,
        warm_up=False,
    ),
    _trial(16, 5, 3500, 3),
    _trial(32, 2, 3500, 4),
    _trial(64, 1, 1750, 5),
    Measurement(
        name="small-trials",
        what="many trials of the digits' network",
        setup="trials:packings",
        figures=(
            Speed(
                text="a process per core over one after another",
                side="a process per core",
                over=("one after another",),
                at_least=1.8,
            ),
            Speed(
                text="two processes per core over one after another",
                side="two processes per core",
                over=("one after another",),
            ),
            Speed(
                text="a thread per core over one after another",
                side="one process, a thread per core",
                over=("one after another",),
            ),
        ),
        minutes=2,
        images=False,
    ),
    Measurement(
        name="autoattack",
        what="AutoAttack standard on 50 images, ResNet-9 of width 8",
        setup="attacks:autoattack",
        figures=(
            Speed(text="ours over pyautoattack", side="ours", over=("pyautoattack",), at_least=2.5),
            Value(text="equal flags", side="pyautoattack", quantity="equal", unit="%", at_least=99.5),
        ),
        minutes=8,
        warm_up=False,
        on_ray=True,
    ),
    Measurement(
        name="pgd20",
        what="PGD-20 in fp32 on 250 images, ResNet-9 of width 16, one process",
        setup="attacks:pgd20",
        figures=tuple(
            Speed(text=f"ours over {rival}", side="ours", over=(rival,), at_least=3.0)
            for rival in ("torchattacks", "foolbox", "ART")
        ),
        minutes=3,
    ),
    Measurement(
        name="influence",
        what="memorization and influence, 1,000 trials x 50,000 x 10,000 samples",
        setup="estimates:influence",
        figures=(
            Speed(text="ours over the dense formula in fp32", side="ours", over=("dense",), at_least=8.0),
            Value(text="peak memory", side="ours", quantity="peak", unit="GB", at_most=1.5),
            Value(text="largest error on 40 training samples", side="ours", quantity="wrong", unit="", at_most=0.0),
        ),
        minutes=2,
        images=False,
    ),
    Measurement(
        name="loaders",
        what="a batch of 128 augmented images of 32x32 pixels",
        setup="loading:loaders",
        figures=(
            Speed(text="memory over torchvision", side="memory", over=("torchvision",), at_least=20.0),
            Speed(text="FFCV over torchvision", side="ffcv", over=("torchvision",), at_least=20.0),
            Share(text="memory, of a training step", side="memory", of="training step", at_most=2.0),
            Share(text="FFCV, of a training step", side="ffcv", of="training step", at_most=2.0),
        ),
        minutes=1,
    ),
    Measurement(
        name="engine",
        what="1,024 trials of 2 s on 64 simulated slots",
        setup="engine:slots",
        figures=(
            Value(text="slots busy", side="engine", quantity="busy", unit="%", at_least=97.0),
            Value(text="driver's time per trial", side="engine", quantity="driver", unit="ms", at_most=5.0),
            Value(text="memory grown", side="engine", quantity="grown", unit="MB", at_most=10.0, steady=False),
        ),
        minutes=3,
        rounds=3,
        warm_up=False,
        on_ray=True,
        images=False,
    ),
    _two_workers("train", "train", 5),
    _two_workers("evaluate", "evaluation", 4),
    _two_workers("memorize", "memorize", 4, images=False),
    Measurement(
        name="starts",
        what="starts of new processes",
        setup="processes:starts",
        figures=tuple(
            Share(text=f"{name}, of `import torch`", side=name, of="import torch", at_most=goal)
            for name, goal in (
                ("import bat_dist", 5.0),
                ("bat-dist memorize --help", 20.0),
                ("bat-dist train --help", 20.0),
            )
        ),
        minutes=1,
        images=False,
    ),
    Measurement(
        name="sweep",
        what="a sweep of four trainings against a loop over `bat-dist train`",
        setup="processes:sweep",
        figures=(Speed(text="tune over the loop", side="bat-dist tune", over=("bat-dist train",)),),
        minutes=10,
        by_default=False,
        images=False,
    ),
)
"""In the order in which they are made."""
