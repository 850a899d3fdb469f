"""One clear message for each kind of bad input, before the model is touched."""

import math

import pytest
import torch

from bat_dist.attacks.frozen import wrong
from bat_dist.attacks.linf import no_start
from bat_dist.attacks.pgd import fgsm, pgd, pgd_path
from tests.attacks.attack_nets import images, labels

GOOD = {"epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": 2, "start": no_start}


def spoiled(value):
    x = images()
    x[3, 1, 2, 2] = value
    return x


class Untouched(torch.nn.Module):
    def forward(self, x):
        raise AssertionError("the model was asked")


@pytest.mark.parametrize("attack", [pgd, pgd_path])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, r"epsilon must be in \(0, 1\], got 0: pixels are in \[0, 1\], so 8 of 255 is 8 / 255"),
        ({"epsilon": -0.1}, r"epsilon must be in \(0, 1\], got -0.1"),
        ({"epsilon": 8}, r"epsilon must be in \(0, 1\], got 8"),
        ({"epsilon": math.nan}, r"epsilon must be in \(0, 1\], got nan"),
        ({"step_size": 0.0}, r"step_size must be in \(0, 1\], got 0.0"),
        ({"step_size": 2}, r"step_size must be in \(0, 1\], got 2"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1, got 0"),
        ({"num_steps": 2.5}, "num_steps must be a whole number of at least 1, got 2.5"),
        ({"precision": "fp16"}, "precision must be one of bf16, fp32, tf32, got 'fp16'"),
        ({"mode": "train"}, "mode must be one of eval, keep, got 'train'"),
        ({"against": "logits"}, "against must be one of labels, clean_logits, got 'logits'"),
    ],
)
def test_settings(attack, settings, message):
    with pytest.raises(ValueError, match=message):
        attack(Untouched(), images(), labels(), **GOOD | settings)


def test_no_restart_at_all():
    with pytest.raises(ValueError, match="restarts must be a whole number of at least 1, got 0"):
        pgd(Untouched(), images(), labels(), **GOOD, restarts=0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (spoiled(1.01), r"x must lie in \[0, 1\], got 0 to 1.01: divide bytes by 255, normalize inside the model"),
        (spoiled(-1e-3), r"x must lie in \[0, 1\], got -0.001 to 1"),
        (spoiled(math.nan), r"x must lie in \[0, 1\], got NaN: look for it in the data"),
        (spoiled(math.inf), r"x must lie in \[0, 1\], got 0 to inf"),
        (images().mul(255).byte(), r"x must be float32 or float64 in \[0, 1\], got torch.uint8: divide by 255"),
        (images().half(), r"x must be float32 or float64 in \[0, 1\], got torch.float16: keep images in float32"),
        (images()[:0], r"x must hold at least one image, got shape \[0, 3, 4, 4\]: skip empty batches"),
    ],
)
def test_images(x, message):
    with pytest.raises(ValueError, match=message):
        pgd(Untouched(), x, labels()[: len(x)], **GOOD)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (labels().int(), r"y must be torch.int64 of shape \[6\] on cpu.*got torch.int32 of shape \[6\]"),
        (labels().float(), "got torch.float32"),
        (labels(5), r"got torch.int64 of shape \[5\] on cpu"),
        (labels()[:, None], r"got torch.int64 of shape \[6, 1\]"),
        (labels().to("meta"), "on meta"),
    ],
)
def test_labels(y, message):
    with pytest.raises(ValueError, match=message):
        fgsm(Untouched(), images(), y, epsilon=8 / 255)


def test_images_at_both_bounds_and_the_largest_ball_are_fine():
    pgd(torch.nn.Flatten(), images(), labels(), **GOOD | {"epsilon": 1, "step_size": 1.0})


@pytest.mark.parametrize("label", [-100, -1, 5])
@pytest.mark.parametrize("attack", [pgd, pgd_path, fgsm])
def test_a_label_that_names_no_class(attack, label):
    """Cross-entropy would leave -100 out in silence: the image would not be attacked."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(images()[0].numel(), 5))
    y = labels()
    y[2] = label
    settings = {"epsilon": 8 / 255} if attack is fgsm else GOOD
    with pytest.raises(ValueError, match=rf"labels must be .*, got {label}"):
        attack(model, images(), y, **settings)


def test_logits_that_are_not_numbers_are_wrong():
    """Also at label 0, which argmax would find."""
    logits = torch.tensor([[1.0, 0.0], [torch.nan, 0.0], [0.0, torch.nan], [torch.inf, 0.0]])
    assert wrong(logits, torch.zeros(4, dtype=torch.int64)).tolist() == [False, True, True, False]
