"""An evaluation that is begun on a machine of one kind and goes on on one of the other: same flags, nothing twice.

No GPU is needed: what decides is how many images suit a device, and that is asked for in one place.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.attacks.batches import usual_batch_size
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.evaluation.ledger import cut_for
from bat_dist.evaluation.plan import Unit
from bat_dist.jobs import evaluate_here as evaluation
from bat_dist.jobs.attacked_network import AttackedNetwork
from bat_dist.models.build import build
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.storage.files import Folder

Work = Callable[[Unit], Mapping[str, object]]
ATTACKS = ("clean", "fgsm", "pgd100")  # the last in units of up to 64 images for a CPU, of up to 512 for a GPU


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_test=200)


@pytest.fixture(scope="module")
def subject(digits: Dataset) -> AttackedNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build("tinynet", 10, mean=digits.spec.mean, std=digits.spec.std)
    x, y = torch.from_numpy(digits.train.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(digits.train.labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x[step::10]), y[step::10]).backward()
        optimizer.step()
    return AttackedNetwork(network.eval(), {}, "digest")


@dataclasses.dataclass
class Machine:
    """Attacks on this CPU as a machine of either kind would; batches: those of each unit that it has done."""

    digits: Dataset
    subject: AttackedNetwork
    monkeypatch: pytest.MonkeyPatch
    batches: list[tuple[str, int, int]]

    def evaluate(self, out: Path, *, on_gpu: bool, units: int = 10**6, batch_size: int | None = None) -> np.ndarray:
        """Flags by attack and image; it is broken off after so many units."""
        settings = EvaluateSettings(
            dataset="digits", out=str(out), model="x.py:y", attacks=ATTACKS, check_images=0, batch_size=batch_size
        )
        with self.monkeypatch.context() as patched:
            patched.setattr(evaluation, "usual_batch_size", lambda **_: usual_batch_size(on_gpu=on_gpu))
            patched.setattr(evaluation, "build_work", self._watched(evaluation.build_work, units))
            found = evaluation.evaluate_here(Folder(out), self.digits, settings, self.subject)
        return np.array([row.robust for row in found.rows])

    def _watched(self, build: Callable[..., Work], units: int) -> Callable[..., Work]:
        def watched(*args: object, **settings: object) -> Work:
            work = build(*args, **settings)

            def do(unit: Unit) -> Mapping[str, object]:
                if len(self.batches) >= units:
                    raise KeyboardInterrupt
                self.batches.append((unit.stage.attack, len(unit.images), unit.batch_size))
                return work(unit)

            return do

        return watched


@pytest.fixture
def machine(digits: Dataset, subject: AttackedNetwork, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(digits, subject, monkeypatch, [])


@pytest.fixture(scope="module")
def on_cpu(digits: Dataset, subject: AttackedNetwork, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return Machine(digits, subject, monkeypatch, []).evaluate(tmp_path_factory.mktemp("cpu"), on_gpu=False)


def lengths(machine: Machine, attack: str) -> list[int]:
    """How many images the units of an attack had."""
    return [length for name, length, _ in machine.batches if name == attack]


def batches(machine: Machine) -> set[tuple[int, int]]:
    """Lengths of units, and how many images were attacked at once."""
    return {(length, batch) for _, length, batch in machine.batches}


def test_each_kind_has_units_that_suit_it(on_cpu: np.ndarray, machine: Machine, tmp_path: Path) -> None:
    """A number of units is even, so that two workers end together: a GPU has two, four hold at most 64 images."""
    standing = int(on_cpu[0].sum())
    assert 128 < standing <= 200
    machine.evaluate(tmp_path / "cpu", on_gpu=False)
    assert (len(lengths(machine, "pgd100")), sum(lengths(machine, "pgd100"))) == (4, standing)
    assert all(batch == min(64, length) for length, batch in batches(machine))
    machine.batches = []
    np.testing.assert_array_equal(machine.evaluate(tmp_path / "gpu", on_gpu=True), on_cpu)
    assert (len(lengths(machine, "pgd100")), sum(lengths(machine, "pgd100"))) == (2, standing)
    assert all(batch == length for length, batch in batches(machine))


@pytest.mark.parametrize(("begun_on_gpu", "cut", "units"), [(False, 64, 4), (True, 512, 2)])
def test_a_machine_of_the_other_kind_goes_on(
    begun_on_gpu: bool, cut: int, units: int, on_cpu: np.ndarray, machine: Machine, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        machine.evaluate(tmp_path, on_gpu=begun_on_gpu, units=5)
    assert len(machine.batches) == 5
    machine.batches = []
    flags = machine.evaluate(tmp_path, on_gpu=not begun_on_gpu)
    np.testing.assert_array_equal(flags, on_cpu)
    assert 0 < flags[2].mean() < flags[0].mean()
    assert len(lengths(machine, "pgd100")) == units - 1
    assert all(batch == min(64 if begun_on_gpu else 512, length) for length, batch in batches(machine))
    assert cut_for(Folder(tmp_path)) == cut
    machine.batches = []
    np.testing.assert_array_equal(machine.evaluate(tmp_path, on_gpu=begun_on_gpu), on_cpu)
    assert not machine.batches, "what is there was done again"


def test_what_is_asked_for_is_what_is_done_in_units_that_are_there(
    on_cpu: np.ndarray, machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "bat_dist"):
        with pytest.raises(KeyboardInterrupt):
            machine.evaluate(tmp_path, on_gpu=True, units=3, batch_size=100)
        flags = machine.evaluate(tmp_path, on_gpu=False, batch_size=30)
    np.testing.assert_array_equal(flags, on_cpu)
    assert [batch for _, _, batch in machine.batches[:2]] == [100, 100]
    assert {batch for _, _, batch in machine.batches[3:]} == {30}
    assert cut_for(Folder(tmp_path)) == 100
    assert not [message for message in caplog.messages if message.startswith("batch_size")]
    with caplog.at_level(logging.INFO, "bat_dist"):
        machine.evaluate(tmp_path, on_gpu=True)
    assert "batch_size 512 (for CPUs)" in caplog.messages  # which this one is
