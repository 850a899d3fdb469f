"""What a worker does: an image's fate depends on nothing but the image, and the network has the last word."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from bat_dist.attacks.losses import margin
from bat_dist.attacks.noise import image_keys, uniform
from bat_dist.attacks.pgd import fgsm, pgd
from bat_dist.attacks.standing import AttackOutcome
from bat_dist.evaluation import attack as module
from bat_dist.evaluation.attack import LARGE_EPSILON, Networks, Settings, attack_images, largest_move, prepare
from bat_dist.evaluation.names import PROBE
from bat_dist.evaluation.plan import CHECKS, Stage, Unit
from bat_dist.evaluation.work import build_work
from tests.helpers import rounding
from tests.helpers.gpu_errors import BROKEN, FULL, NEITHER
from tests.helpers.rounding import EXACT, opposite

notes = rounding.notes

SETTINGS = Settings(epsilon=0.12, step_size=0.03, restarts=2)
ATTACKS = ["clean", "fgsm", "pgd5", "cw5", "apgd-ce", *CHECKS]


@pytest.fixture
def networks(trained, images) -> Networks:
    return prepare(trained, images[0][:4], torch.device("cpu"))


def run(networks, images, attack, batch_size=64, **changes):
    _, x, y = images
    settings = {"attack": attack, "seed": 0, "settings": SETTINGS} | changes
    batches = zip(*(part.split(batch_size) for part in (x, y, torch.arange(len(x)))), strict=True)
    outcomes = [attack_images(networks, *batch, **settings) for batch in batches]
    return AttackOutcome(*map(torch.cat, zip(*outcomes, strict=True)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_falls_fools_the_network_inside_the_ball(attack, networks, images, trained):
    _, x, y = images
    robust, x_adv = run(networks, images, attack)
    assert torch.equal(trained(x_adv).argmax(1) == y, robust)
    assert torch.equal(x_adv[robust], x[robust])
    epsilon = LARGE_EPSILON if "large" in attack else 0.12
    assert largest_move(x, run(networks, images, attack)) <= epsilon + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    if attack not in ("clean", "pgd100-large"):
        assert 0 < robust.sum() < len(x), "an epsilon at which the flags say something"


@pytest.mark.parametrize("attack", ["pgd5", "cw5", "apgd-ce", "apgd-t3", "square1000"])
def test_batches_and_order_change_nothing(attack, networks, images):
    images = tuple(part[:30] for part in images)
    whole, parts = run(networks, images, attack), run(networks, images, attack, batch_size=7)
    assert torch.equal(whole.robust, parts.robust)
    assert 0 < whole.robust.sum() < 30
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    _, x, y = images
    shuffled = attack_images(networks, x[order], y[order], order, attack=attack, seed=0, settings=SETTINGS)
    assert torch.equal(shuffled.robust, whole.robust[order])


def test_fgsm_is_fgsm(networks, images, trained):
    _, x, y = images
    assert torch.equal(run(networks, images, "fgsm").robust, trained(fgsm(trained, x, y, epsilon=0.12)).argmax(1) == y)


def test_cw_is_pgd_on_the_margin(images, trained):
    _, x, y = images
    noise = 2 * uniform(image_keys(0, "cw5 0", torch.arange(len(x))), 0, *x.shape[1:]) - 1

    def start(x, *, epsilon, generator):
        return (x + epsilon * noise).clamp(0, 1)

    expected = pgd(trained, x, y, epsilon=0.12, step_size=0.03, num_steps=5, loss=margin, start=start)
    changes = {"settings": Settings(0.12, 0.03, restarts=1), "batch_size": len(x)}
    robust, x_adv = run(Networks(trained, trained), images, "cw5", **changes)
    assert torch.equal(robust, trained(expected).argmax(1) == y)
    assert torch.equal(x_adv[~robust], expected[~robust])


def test_another_seed_is_another_start(networks, images):
    one, other = (run(networks, images, "pgd5", seed=seed) for seed in (0, 1))
    both = one.robust | other.robust
    assert not torch.equal(one.x_adv[~both], other.x_adv[~both])


def test_more_restarts_leave_less(networks, images):
    few, many = (run(networks, images, "pgd5", settings=Settings(0.12, 0.03, restarts)).robust for restarts in (1, 6))
    assert (many <= few).all()
    assert many.sum() < few.sum()


class Liar(nn.Module):
    """Says that everything is wrong."""

    def __init__(self, model, y):
        super().__init__()
        self.model, self.y = model, y

    def forward(self, x):
        return -self.model(x)


@pytest.mark.parametrize("attack", ["fgsm", "pgd5", "apgd-ce", "square1000"])
def test_a_faster_form_that_is_wrong_changes_no_flag(attack, images, trained):
    """What does not fool the network itself does not count, and such images are attacked on the network itself."""
    alone = run(Networks(trained, trained), images, attack)
    misled = run(Networks(trained, Liar(trained, images[2])), images, attack)
    assert torch.equal(misled.robust, alone.robust)


CLASSES = {cls.__name__: cls for cls in (torch.OutOfMemoryError, torch.AcceleratorError, RuntimeError, MemoryError)}
CLASSES["DistBackendError"] = torch.distributed.DistBackendError


@pytest.mark.parametrize(("kind", "message"), [*FULL, ("MemoryError", "")])
def test_out_of_memory_halves_the_batch(kind, message, networks, images, monkeypatch, caplog):
    whole, real, sizes = run(networks, images, "pgd5", batch_size=60), module.attack_batch, []

    def small_memory(networks, x, *args, **kwargs):
        sizes.append(len(x))
        if len(x) > 20:
            raise CLASSES[kind](message)
        return real(networks, x, *args, **kwargs)

    monkeypatch.setattr(module, "attack_batch", small_memory)
    with caplog.at_level(logging.WARNING):
        outcome = run(networks, images, "pgd5", batch_size=60)
    assert torch.equal(outcome.robust, whole.robust)
    assert sizes == [60, 30, 15, 15, 30, 15, 15, 36, 18, 18]
    assert "out of memory with 60 images" in caplog.text


@pytest.mark.parametrize(("kind", "message"), [*BROKEN, NEITHER[0]])
def test_what_is_not_for_want_of_memory_is_not_halved(kind, message, networks, images, monkeypatch):
    sizes = []

    def broken(networks, x, *args, **kwargs):
        sizes.append(len(x))
        raise CLASSES[kind](message)

    monkeypatch.setattr(module, "attack_batch", broken)
    with pytest.raises(CLASSES[kind]):
        run(networks, images, "pgd5", batch_size=60)
    assert sizes == [60]


def test_one_image_that_does_not_fit_is_an_error(networks, images, monkeypatch):
    def no_memory(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "attack_batch", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run(networks, images, "pgd5", batch_size=3)


class WantsContiguous(nn.Module):
    """As many a published network: `view` fails on channels_last."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 10)

    def forward(self, x):
        x.view(len(x), -1)
        return self.linear(self.conv(x).view(len(x), -1))


def test_a_network_that_wants_plain_memory_gets_it(images):
    torch.manual_seed(0)
    pixels, _, _ = images
    nets = prepare(WantsContiguous(), pixels[:4], torch.device("cpu"))
    assert nets.fast is nets.model
    x = nets.tensor(pixels)
    y = nets.model(x).argmax(1)
    outcome = attack_images(nets, x, y, torch.arange(96), attack="pgd5", seed=0, settings=SETTINGS)
    assert outcome.robust.sum() < 96


class Noisy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x + 0.3 * torch.randn_like(x))


def test_a_unit_of_a_randomized_network_is_the_same_whenever_it_is_run(digits, trained):
    """In any order, whatever the process drew before; and it leaves the process's own random numbers alone."""
    work = build_work(digits, Noisy(trained), SETTINGS, keep_adversarial=False, device=torch.device("cpu"))
    stage = Stage(("apgd-ce-eot2",), seed=0)
    first, second = (Unit(stage, number, tuple(range(at, at + 40)), 16) for number, at in ((0, 0), (1, 40)))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    flags = [np.asarray(work(unit)["robust"]) for unit in (first, second)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = [np.asarray(work(unit)["robust"]) for unit in (second, first)][::-1]
    for one, other in zip(flags, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert 0 < one.sum() < 40
    assert not np.array_equal(work(first._replace(stage=Stage(("apgd-ce-eot2",), seed=1)))["robust"], flags[0])


@pytest.mark.parametrize(("attack", "move"), [("clean", 0), ("pgd5", 0.12)])
def test_a_device_need_not_have_room_for_a_whole_unit(attack, move, digits, trained, monkeypatch):
    """A unit of ImageNet's clean images has all 50,000."""
    work = build_work(digits, trained, SETTINGS, keep_adversarial=True, device=torch.device("cpu"))
    unit = Unit(Stage((attack,), seed=0), 0, tuple(range(3, 80, 2)), batch_size=16)
    real, sizes = Networks.tensor, []
    monkeypatch.setattr(Networks, "tensor", lambda self, images: sizes.append(len(images)) or real(self, images))
    row = {name: np.asarray(value) for name, value in work(unit).items()}
    whole = work(unit.at_once(64))
    assert sizes == [16, 16, 7, 39]
    np.testing.assert_array_equal(row["images"], np.arange(3, 80, 2))
    np.testing.assert_array_equal(row["robust"], whole["robust"])
    moves = np.abs(row["adversarial"] - digits.test.images[3:80:2] / np.float32(255)).max(axis=(1, 2, 3))
    assert (moves[row["robust"]] == 0).all()
    assert moves.max() == pytest.approx(move, rel=1e-5) == row["spent"][1]


@pytest.mark.parametrize("attack", ["clean", "pgd2", "apgd-ce", "square1000", PROBE])
def test_a_unit_is_computed_in_fp32_backward_too(attack, digits, trained, notes):
    with opposite(EXACT):
        work = build_work(digits, trained, SETTINGS, keep_adversarial=False, device=torch.device("cpu"))
        work(Unit(Stage((attack,), seed=0), 0, (0, 1, 2), 3))
    assert {note.flags for note in notes} == {EXACT}
    assert {note.way for note in notes} == {"forward", "backward"}  # also in making the faster form
