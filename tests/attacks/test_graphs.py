"""Recorded calls give what the calls give, bit for bit, on an emulation of CUDA graphs; tests/gpu has real ones."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bat_dist.attacks import graphs
from bat_dist.attacks.apgd import apgd, apgd_targeted
from bat_dist.attacks.fab import fab_targeted
from bat_dist.attacks.graphs import Recordings, padded_size, record_calls_of
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.pgd import pgd
from bat_dist.attacks.square import square
from bat_dist.data.datasets import load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.methods.erm import Erm
from bat_dist.models.build import build
from bat_dist.training.loop import fit
from bat_dist.training.recipe import Recipe
from tests.attacks.emulated_graphs import emulated_graphs

LABELS = torch.arange(8)
PGD = {"epsilon": 0.05, "step_size": 0.02, "num_steps": 4}


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet9-w4", 10, mean=(0.5,) * 3, std=(0.25,) * 3).eval()


def images(count: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def attacked(model: nn.Module, count: int = 8, seed: int = 0) -> Tensor:
    return pgd(model, images(count, seed), LABELS[:count], generator=image_keys(0, "a", LABELS[:count]), **PGD)


def test_a_replayed_attack_is_the_attack() -> None:
    """On other images and with other weights than when it was recorded."""
    model = network()
    expected = [attacked(model, seed=seed) for seed in range(2)]
    record_calls_of(model)
    with emulated_graphs() as recorded:
        found = [attacked(model, seed=seed) for seed in range(2)]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.9)
        moved = attacked(model)
    assert [len(recorded), recorded[0].replays] == [1, 3 * 4 - 2]
    assert all(map(torch.equal, found, expected))
    assert torch.equal(moved, attacked(model))
    assert not torch.equal(moved, expected[0])


def test_each_kind_of_call_has_a_recording_of_its_own() -> None:
    model = record_calls_of(network())
    with emulated_graphs() as recorded:
        for count in (8, 6):
            for precision in ("fp32", "bf16", "tf32"):
                pgd(model, images(count), LABELS[:count], generator=LABELS[:count], precision=precision, **PGD)
    assert len(recorded) == 6


def test_weights_that_lie_elsewhere_are_read_where_they_lie() -> None:
    model = record_calls_of(network())
    with emulated_graphs() as recorded:
        attacked(model)
        for parameter in model.parameters():
            parameter.data = parameter.data * 0.9
        found = attacked(model)
    assert len(recorded) == 2
    assert torch.equal(found, attacked(model))


def test_networks_that_nobody_has_allowed_and_losses_that_hold_something_are_not_recorded() -> None:
    model, scale = network(), 2.0
    with emulated_graphs() as recorded:
        attacked(model)
        record_calls_of(model)
        for loss in (lambda logits, y: scale * functional.cross_entropy(logits, y, reduction="none"), partial(_loss)):
            pgd(model, images(), LABELS, generator=LABELS, loss=loss, **PGD)
    assert not recorded


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


ATTACKS = {
    "apgd": partial(apgd, num_steps=12),
    "apgd-t": partial(apgd_targeted, num_targets=2, num_steps=6),
    "fab": partial(fab_targeted, num_targets=2, num_steps=6),
    "square": partial(square, num_queries=30),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_whose_batches_shrink_are_filled_up_to_few_sizes(name: str) -> None:
    model = network()
    count = 24
    x = images(count)
    y = model(x).argmax(1)
    attack = partial(ATTACKS[name], x=x, y=y, epsilon=0.004, seed=0, ids=torch.arange(count))
    expected = attack(model)
    assert 0 < expected.robust.sum() < count
    with emulated_graphs() as recorded:
        found = attack(record_calls_of(model))
    assert torch.equal(found.robust, expected.robust)
    torch.testing.assert_close(found.x_adv, expected.x_adv, rtol=0, atol=1e-5)
    assert recorded


def test_few_sizes_do_for_all_batches() -> None:
    sizes = {padded_size(count) for count in range(1, 513)}
    assert len(sizes) == 16 + 8 * 5
    assert all(count <= padded_size(count) <= count * 1.125 for count in range(1, 513))


def trained() -> tuple[list[float], nn.Module]:
    data = load_dataset("digits", num_train=100, num_test=20)
    model = network()
    losses = fit(
        model,
        dataset_loader("memory", data, "train"),
        np.arange(100),
        method=Erm(0.1),
        recipe=Recipe(epochs=4, batch_size=16, lr=0.1, schedule="one_cycle"),
        precision="fp32",
        generator=torch.Generator().manual_seed(0),
    )
    return losses, model


def test_a_trial_of_replayed_steps_is_the_trial() -> None:
    """With a learning rate that is another in each step, momentum, running statistics and a smaller last batch."""
    expected, plain = trained()
    with emulated_graphs() as recorded:
        found, model = trained()
    assert [one.replays for one in recorded] == [4 * 6 - 2, 4 - 2]
    assert found == expected
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


class Waits(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * x.mean().item()


class Counts(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1)[:, :10] * self.calls


@pytest.mark.parametrize(
    ("model", "why"), [(Waits(), "not permitted when stream is capturing"), (Counts(), "it gave something else")]
)
def test_what_cannot_be_recorded_is_done_as_before(
    model: nn.Module, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    record_calls_of(model)
    with emulated_graphs(), caplog.at_level(logging.WARNING):
        attacked(model)
        found = attacked(model)
    assert torch.equal(found, attacked(model))
    assert [why in record.getMessage() for record in caplog.records] == [True]


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on CPUs, not where the switch is off, not within somebody else's recording."""
    on_gpu = (type("OnGpu", (), {"is_cuda": True})(),)
    assert not graphs.is_worthwhile((torch.zeros(1),))
    for is_capturing, switch, worthwhile in ((False, "1", True), (False, "0", False), (True, "1", False)):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda found=is_capturing: found)
        monkeypatch.setenv(graphs.SWITCH, switch)
        assert graphs.is_worthwhile(on_gpu) == worthwhile  # pyright: ignore[reportArgumentType]


def test_a_network_that_goes_takes_its_recordings_along() -> None:
    model = record_calls_of(network())
    before = len(graphs._OF_NETWORKS)
    with emulated_graphs():
        attacked(model)
    del model
    assert len(graphs._OF_NETWORKS) == before - 1


def test_no_more_recordings_than_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    with emulated_graphs() as recorded:
        calls = Recordings()
        for size in range(1, 6):
            for _ in range(4):
                assert calls("double", lambda x: (2 * x,), torch.ones(size))[0].sum() == 2 * size
    assert len(recorded) == 2
