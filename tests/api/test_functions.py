"""`train`, `evaluate`, `pgd` and `autoattack` from Python: the commands' own results, in this process."""

import copy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor, nn

from bat_dist import Scores, autoattack, evaluate, load_model, memorize, pgd, study, train
from bat_dist.artifacts import checkpoints
from bat_dist.attacks.pgd import pgd as pgd_of_training
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.errors import ConfigError, UserError
from bat_dist.train import main as train_command

SMALL: dict[str, Any] = {"num_train": 200, "num_test": 60}
FAST: dict[str, Any] = {"recipe": "fast", "epochs": 2, "num_steps": 2, "precision": "fp32"}
EPSILON = 16 / 255


class Net(nn.Module):
    """Four pixels' means and a linear layer."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.pool, self.linear = nn.AdaptiveAvgPool2d(2), nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(x).flatten(1))


@dataclass(frozen=True)
class Scaled:
    """Cross-entropy times a number."""

    factor: float = 1.0

    def loss(self, batch: Any) -> Tensor:
        return self.factor * nn.functional.cross_entropy(batch.forward(batch.images), batch.labels)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", **SMALL)


@pytest.fixture(scope="module")
def images(digits: Dataset) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(digits.test.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(digits.test.labels)


@pytest.fixture(scope="module")
def network() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().train()


# --- train


def test_a_training_is_that_of_the_command(tmp_path: Path) -> None:
    network = train("tinynet", "digits", method="trades", out=tmp_path / "api", beta=2.0, **SMALL, **FAST)
    words = "--dataset digits --arch tinynet --method trades --beta 2 --recipe fast --epochs 2 --num_steps 2"
    words += " --precision fp32 --num_train 200 --num_test 60 --out"
    assert train_command([*words.split(), str(tmp_path / "command")]) == 0
    for name, value in load_model(str(tmp_path / "command")).state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    assert not network.training


def test_own_network_method_and_data(tmp_path: Path, digits: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [(image, int(label)) for image, label in zip(digits.train.images, digits.train.labels, strict=True)]
    settings: dict[str, Any] = {**FAST, "val_steps": 0}
    both = [train(Net, pairs, method=Scaled(factor), out=tmp_path / f"{factor}", **settings) for factor in (1.0, 2.0)]
    assert both[0](torch.zeros(3, 3, 8, 8)).shape == (3, 10)
    weights = [next(iter(network.parameters())) for network in both]
    assert not torch.equal(*weights), "a field of the object is a hyper-parameter"
    again = train(Net, pairs, method=Scaled(1.0), out=tmp_path / "1.0", **settings)
    assert torch.equal(weights[0], next(iter(again.parameters())))
    assert torch.equal(weights[0], next(iter(load_model(str(tmp_path / "1.0"), model=Net).parameters())))


def test_an_instance_gives_its_architecture_alone(tmp_path: Path, digits: Dataset, network: Net) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(10))

        def forward(self, x: Tensor) -> Tensor:
            return self.table.expand(len(x), 10)

    before = copy.deepcopy(network.state_dict())
    train(network, digits, method="erm", out=tmp_path / "a", **FAST)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="reset_parameters"):
        train(Fixed(), digits, method="erm", out=tmp_path / "b", **FAST)
    assert not (tmp_path / "b").exists()


def test_settings_that_choose_samples_count_with_scores_of_the_same_training_set(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken: list[Dataset] = []
    monkeypatch.setattr(sys.modules["bat_dist.api.train"], "carry_out", lambda settings, dataset: taken.append(dataset))
    monkeypatch.setattr(checkpoints, "load_model", lambda *args, **kwargs: Net())
    zeros = np.zeros(len(digits.train))
    scores = Scores(
        *(zeros,) * 6, labels=digits.train.labels, ids=digits.train.ids, location=str(tmp_path / "x.npz"), data=digits
    )
    pair = digits.train.images, digits.train.labels
    asked: list[dict[str, Any]] = [{}, {"image_storage": "memory"}]
    asked += [{"num_train": 20}, {"image_size": 16}, {"num_classes": 5}]
    for settings in asked:
        train(Net, pair, scores=scores, out=tmp_path / "x", **settings)
    assert taken[0] is taken[1] is digits
    assert [len(taken[2].train), taken[3].train.images.shape[1], len(taken[4].class_names)] == [20, 16, 5]
    with pytest.raises(UserError, match="data_dir is for a dataset by name"):
        train(Net, pair, scores=scores, out=tmp_path / "x", data_dir="y")


# --- evaluate


def test_an_evaluation_counts_as_the_network_answers(network: Net, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    before, mode = copy.deepcopy(network.state_dict()), network.training
    found = evaluate(network, x, y, attacks=("clean", "fgsm"), epsilon=EPSILON, check_images=0)
    right = network(x).argmax(dim=1) == y
    assert np.array_equal(found.flags["clean"], right.numpy())
    assert found.accuracy["clean"] == pytest.approx(right.float().mean().item())
    at = x.clone().requires_grad_()
    gradient = torch.autograd.grad(nn.functional.cross_entropy(network(at), y, reduction="sum"), at)[0]
    stands = right & (network((x + EPSILON * gradient.sign()).clamp(0, 1)).argmax(dim=1) == y)
    assert np.array_equal(found.flags["fgsm"], stands.numpy())
    assert found.accuracy["fgsm"] < found.accuracy["clean"]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training == mode
    assert all(parameter.requires_grad for parameter in network.parameters())
    table = found.to_pandas().set_index("attack")
    assert table["accuracy"].to_dict() == found.accuracy
    low, high = proportion_confint(int(right.sum()), len(right), method="wilson")
    np.testing.assert_allclose(table.loc["clean", ["low", "high"]].tolist(), np.array((low, high)))
    assert f"[{low:.1%}, {high:.1%}]  of {len(right)} images" in str(found)


def test_every_form_of_images_gives_the_same(network: Net, digits: Dataset, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    bytes_of, labels = digits.test.images, digits.test.labels
    forms = [(x, y), (x.numpy(), y), (bytes_of, labels), ([(bytes_of[i], int(labels[i])) for i in range(len(y))], None)]
    forms += [(x, y.tolist()), (bytes_of, tuple(labels))]
    flags = [evaluate(network, *form, attacks=("pgd3",), epsilon=EPSILON, check_images=0).flags for form in forms]
    assert all(np.array_equal(flags[0]["pgd3"], other["pgd3"]) for other in flags[1:])


class Told(Net):
    """It has more to save than tensors: a number."""

    scale = 1.0

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.scale}

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


def test_a_state_that_is_no_tensor_is_part_of_the_network(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    network, settings = Told(), {"attacks": ("clean",), "out": tmp_path / "kept"}
    first = evaluate(network, *images, **settings)
    again = evaluate(network, *images, **settings)
    assert np.array_equal(first.flags["clean"], again.flags["clean"])
    network.scale = -1.0
    with pytest.raises(UserError, match="other settings or data"):
        evaluate(network, *images, **settings)


def test_a_network_that_no_checkpoint_can_hold_is_not_trained(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be saved, since network\._extra_state is no tensor: let get_extra_"):
        train(Told, digits, method="erm", out=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()


def test_normalization_is_put_before_the_network(network: Net, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    found = evaluate(network, x, y, attacks=("clean",), check_images=0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    assert np.array_equal(found.flags["clean"], (network((x - mean) / std).argmax(dim=1) == y).numpy())


def test_an_evaluation_that_is_kept_goes_on(
    network: Net, images: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = images
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"epsilon": EPSILON, "check_images": 0}
    gone = evaluate(network, x, y, attacks=("clean", "pgd2"), **settings)
    assert list(tmp_path.iterdir()) == []
    kept = evaluate(network, x, y, attacks=("clean",), out="kept", **settings)
    more = evaluate(network, x, y, attacks=("pgd2",), out="kept", **settings)
    assert sorted(more.flags) == ["clean", "pgd2"]
    assert np.array_equal(kept.flags["clean"], more.flags["clean"])
    assert np.array_equal(gone.flags["pgd2"], more.flags["pgd2"])
    with pytest.raises(UserError, match="other settings or data"):
        evaluate(Net(), x, y, out="kept", **settings)


def test_what_cannot_be_evaluated(network: Net, images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, y = images
    with pytest.raises(UserError, match="labels must be 0 to 9"):
        evaluate(network, x, y + 5)
    with pytest.raises(UserError, match="cannot take images"):
        evaluate(nn.Linear(3, 10), x, y)
    with pytest.raises(UserError, match="10 classes, got 2"):
        evaluate(network, x, y, class_names=("a", "b"))
    with pytest.raises(UserError, match="10 classes, got 0"):
        evaluate(network, x, y, class_names=())
    with pytest.raises(UserError, match="as many labels as images, got 2 and 60"):
        evaluate(network, x, [0, 1])
    with pytest.raises(UserError, match="does not exist"):
        evaluate(tmp_path / "nothing", x, y)


# --- settings


def test_all_errors_at_once_with_the_nearest_names(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        memorize("tinynet", "digits", out=tmp_path / "x", num_trails=3, subset_ratio=2.0, status=True)
    text = str(failure.value)
    for part in ("did you mean num_trials?", "subset_ratio must be", "status is no argument of memorize()"):
        assert part in text
    with pytest.raises(ConfigError, match="did you mean pgd_at"):
        train("tinynet", "digits", method="pgdat", out=tmp_path / "x")
    with pytest.raises(ConfigError, match="method bat needs --scores"):
        train("tinynet", "digits", out=tmp_path / "x")
    with pytest.raises(ConfigError, match="did you mean epsilon"):
        evaluate(Net(), *images, epsilom=0.1)
    with pytest.raises(ConfigError, match="step_size must be"):
        evaluate(Net(), *images, step_size=0)
    with pytest.raises(ConfigError, match="split is no argument of evaluate"):
        evaluate(Net(), *images, split="train")
    with pytest.raises(ConfigError, match="study must be"):
        study("tipical", out=tmp_path / "x")
    with pytest.raises(UserError, match="leave the test set out"):
        train("tinynet", "digits", "digits", method="erm", out=tmp_path / "x")
    with pytest.raises(UserError, match="data_dir is for a dataset by name"):
        train("tinynet", [(np.zeros((8, 8, 3), np.uint8), 0)], method="erm", out=tmp_path / "x", data_dir="y")
    assert not (tmp_path / "x").exists()


def test_handlers_of_signals_stay_the_callers(images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    from bat_dist.api import calls
    from bat_dist.program import end_on_signals

    before = signal.getsignal(signal.SIGTERM)
    calls.public(end_on_signals)()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_call_that_needs_ray_says_which_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["ray", *(module for module in sys.modules if module.partition(".")[0] == "ray")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in [module for module in sys.modules if module.startswith(("bat_dist.jobs.", "bat_dist.workers."))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"ray is not installed.*pip install '\.\[ray\]' in the clone"):
        memorize("tinynet", "digits", out=tmp_path / "x", num_trials=2)
    assert not (tmp_path / "x").exists()


# --- attacks


def test_pgd_has_defaults_and_a_seed(network: Net, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    found = pgd(network, x, y, epsilon=EPSILON, num_steps=3, seed=1)
    same = pgd_of_training(
        network, x, y, epsilon=EPSILON, step_size=EPSILON / 4, num_steps=3, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(found, same)
    assert not torch.equal(found, pgd(network, x, y, epsilon=EPSILON, num_steps=3))
    assert (pgd(network, x, y) - x).abs().max() <= 8 / 255 + 1e-6


def test_autoattack_names_images_by_position(network: Net, images: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:12] for part in images)
    named = autoattack(network, x, y, epsilon=EPSILON, seed=0, ids=torch.arange(12))
    assert torch.equal(autoattack(network, x, y, epsilon=EPSILON).x_adv, named.x_adv)
