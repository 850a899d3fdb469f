"""Networks from elsewhere: the usual ways to save them are read, code that hides in a file is not run."""

import logging
import os
import pickle
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from bat_dist import parts as parts_of_users
from bat_dist.artifacts.foreign import load_foreign
from bat_dist.errors import UserError

SOURCE = """
    import torch
    from helper_of_test import WIDTH

    class Net(torch.nn.Module):
        def __init__(self, num_classes=10):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, WIDTH, 3)
            self.head = torch.nn.Linear(WIDTH, num_classes)

        def forward(self, x):
            return self.head(self.conv(x).amax((2, 3)))

    class Normed(Net):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(WIDTH)

    class Told(Net):
        scale = 1.0

        def get_extra_state(self):
            return {"scale": self.scale}

        def set_extra_state(self, state):
            self.scale = state["scale"]

    def five():
        return Net(5)

    ready = Net()
    not_a_network = dict
    WIDTH_OF_ALL = WIDTH

    def broken():
        raise ZeroDivisionError("no weights here")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper_of_test.py").write_text("WIDTH = 4\n")
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(SOURCE))
    return path


def load(model, weights=None, **settings):
    return load_foreign(str(model), None if weights is None else str(weights), num_classes=10, **settings)


def test_a_class_a_function_and_a_module_of_a_file(file: Path) -> None:
    x = torch.rand(2, 3, 8, 8)
    shapes = {name: load(f"{file}:{name}").network(x).shape[1] for name in ("Net", "five", "ready")}
    assert shapes == {"Net": 10, "five": 5, "ready": 10}
    found = load(f"{file}:Net")
    assert not found.network.training
    assert sorted(Path(str(module.__file__)).name for module in found.modules) == ["helper_of_test.py", "mine.py"]
    file.write_text(file.read_text() + "# changed\n")
    assert load(f"{file}:Net").source != found.source


@pytest.mark.parametrize("below", [".", "below/it"])
def test_a_file_is_named_from_where_the_user_is(below: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch has modules whose file is `_classes.py`, wherever the user may be."""
    place = file.parent / below
    place.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(place)
    sys.modules.pop("helper_of_test", None)  # another test's
    found = load(f"{os.path.relpath(file)}:Net")
    assert sorted(Path(str(module.__file__)).name for module in found.modules) == ["helper_of_test.py", "mine.py"]


def test_no_library_is_the_users_own_though_its_folder_holds_all_of_python(file: Path) -> None:
    (mine,) = (module for module in load(f"{file}:Net").modules if module.__name__ == "_model_mine")
    assert parts_of_users._lies_in(mine, Path("/"))
    others = [
        module for module in sys.modules.values() if module and not module.__name__.startswith(("_model_", "helper_"))
    ]
    theirs = {module.__name__.partition(".")[0] for module in others if parts_of_users._lies_in(module, Path("/"))}
    assert {"torch", "os", "json", "numpy", "encodings", "bat_dist"}.isdisjoint(theirs)


def test_a_package_and_torchvision() -> None:
    found = load("torchvision.models:resnet18")
    last = found.network.get_submodule("fc")
    assert isinstance(last, nn.Linear)
    assert last.out_features == 10
    assert found.modules == ()


def parts(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor + 1 for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    "save",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},  # Lightning, RobustBench's sources
        lambda weights: {"model_state_dict": weights, "optimizer": {}},
        lambda weights: {"module." + key: value for key, value in weights.items()},  # DataParallel
        lambda weights: {"state_dict": {"module.model." + key: value for key, value in weights.items()}},
        lambda weights: {"net": {"_orig_mod." + key: value for key, value in weights.items()}},  # torch.compile
    ],
)
def test_weights_as_others_save_them(save, file: Path, tmp_path: Path) -> None:
    weights = parts(load(f"{file}:Net").network)
    torch.save(save(weights), tmp_path / "weights.pt")
    found = load(f"{file}:Net", tmp_path / "weights.pt").network.state_dict()
    assert all(torch.equal(found[key], weights[key]) for key in weights)


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [("model_ema", None, ["model_ema"]), ("ema", "ema", []), ("state_dict", None, ["state_dict", "model_ema"])],
)
def test_averaged_weights_are_taken_where_there_are_no_others_or_on_request(
    name: str, key: str | None, said: list[str], file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = parts(load(f"{file}:Net").network)
    others = {key: value * 0 for key, value in weights.items()}
    beside = {"state_dict": others} if name == "ema" else {"model_ema": others}
    torch.save({**beside, name: weights}, tmp_path / "weights.pt")
    with caplog.at_level(logging.INFO):
        found = load(f"{file}:Net", tmp_path / "weights.pt", weights_key=key).network.state_dict()
    assert all(torch.equal(found[key], weights[key]) for key in weights)
    assert [word for word in ("state_dict", "model_ema") if word in caplog.text] == said
    with pytest.raises(UserError, match="has no weights under 'emma'"):
        load(f"{file}:Net", tmp_path / "weights.pt", weights_key="emma")


def test_weights_of_before_batch_norm_counted(file: Path, tmp_path: Path) -> None:
    weights = parts(load(f"{file}:Normed").network)
    torch.save({k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pt")
    found = load(f"{file}:Normed", tmp_path / "old.pt").network.state_dict()
    assert all(torch.equal(found[k], weights[k]) for k in weights if not k.endswith("num_batches_tracked"))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_that_is_no_tensor(prefix: str, file: Path, tmp_path: Path) -> None:
    made = load(f"{file}:Told").network
    setattr(made, "scale", 3.0)  # noqa: B010
    torch.save({prefix + key: value for key, value in made.state_dict().items()}, tmp_path / "weights.pt")
    found = load(f"{file}:Told", tmp_path / "weights.pt").network
    assert found.get_extra_state() == {"scale": 3.0}
    assert all(map(torch.equal, found.parameters(), made.parameters()))
    plain, wrong = load(f"{file}:Net").network.state_dict(), {"_extra_state": {"scales": 1}}
    torch.save(plain, tmp_path / "plain.pt")
    torch.save(plain | wrong, tmp_path / "wrong.pt")
    for name, message in (("plain", "it lacks _extra_state"), ("wrong", "does not fit the network: 'scale'")):
        with pytest.raises(UserError, match=message):
            load(f"{file}:Told", tmp_path / f"{name}.pt")


def test_safetensors(file: Path, tmp_path: Path) -> None:
    weights = parts(load(f"{file}:Net").network)
    safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
    found = load(f"{file}:Net", tmp_path / "weights.safetensors").network.state_dict()
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_normalization_is_put_before(file: Path) -> None:
    x, mean, std = torch.rand(2, 3, 8, 8), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    torch.manual_seed(0)
    plain = load(f"{file}:ready").network
    wrapped = load(f"{file}:ready", mean=mean, std=std).network
    wrapped.get_submodule("1").load_state_dict(plain.state_dict())
    normalized = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(wrapped(x), plain(normalized))
    with pytest.raises(UserError, match="std must be positive"):
        load(f"{file}:ready", mean=mean, std=(0, 1, 1))


class Trap:
    """Runs code while it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_pickle_that_runs_code_is_refused(file: Path, tmp_path: Path) -> None:
    marker, weights = tmp_path / "was-run", tmp_path / "weights.pt"
    torch.save({"state_dict": parts(load(f"{file}:Net").network), "extra": Trap(marker)}, weights)
    with pytest.raises(UserError, match=r"can run any code that its author put there\. Refused"):
        load(f"{file}:Net", weights)
    assert not marker.exists()
    load(f"{file}:Net", weights, allow_pickle=True)
    assert marker.exists(), "else the file was no trap"


def test_a_whole_module_only_if_pickle_is_allowed(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), tmp_path / "whole.pt")
    path = str(tmp_path / "whole.pt")
    with pytest.raises(UserError, match="--allow_pickle"):
        load_foreign(None, path, num_classes=10)
    assert load_foreign(None, path, num_classes=10, allow_pickle=True).network(torch.rand(2, 3, 8, 8)).shape == (2, 10)


def test_what_cannot_be_read_is_one_message(file: Path, tmp_path: Path) -> None:
    good, weights = f"{file}:Net", parts(load(f"{file}:Net").network)
    torch.save(weights, tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("these are no weights")
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    torch.save({"model": {"a": torch.zeros(1)}, "ema": {"b": torch.zeros(1)}, "epoch": 3}, tmp_path / "several.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(weights | {"conv.weight": torch.zeros(4, 3, 5, 5)}, tmp_path / "shape.pt")
    torch.save({"conv.weight": weights["conv.weight"], "tail.bias": weights["head.bias"]}, tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as script:  # as torch.jit.save lays it out
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            script.writestr(f"script/{name}", b"")
    with (tmp_path / "plain.pt").open("wb") as plain:
        pickle.dump({"a": 1}, plain)
    for model, checkpoint, message in (
        (f"{file}", None, "must be FILE.py:NAME"),
        (f"{tmp_path}/nowhere.py:Net", None, "there is no file .*nowhere.py to import the model from"),
        (f"{file}:Ney", None, "did you mean Net"),
        (f"{file}:broken", None, "raised ZeroDivisionError: no weights here"),
        (f"{file}:not_a_network", None, "must give a torch.nn.Module, got dict"),
        ("no_such_package:Net", None, "cannot be imported: ModuleNotFoundError"),
        (good, "nowhere.pt", "nowhere.pt does not exist"),
        (good, ".", "does not exist, or is no file"),
        (good, "cut.pt", "cut.pt cannot be read"),
        (good, "text.pt", "text.pt is no torch file: it begins with b'these are no weights'; fetch it again"),
        (good, "page.pt", "page.pt is no torch file: it begins with b'<!DOCTYPE html>"),
        (good, "several.pt", r"it holds sets of weights \(model, ema\) and other entries \(epoch\)"),
        (good, "cut.safetensors", "cannot be read as safetensors"),
        (good, "list.pt", "holds a list, not weights by name"),
        (good, "shape.pt", "does not fit the network"),
        (good, "other.pt", "it lacks conv.bias, head.bias, head.weight, and the network knows no tail.bias"),
        (good, "plain.pt", "plain.pt"),
        (good, "script.pt", "script.pt is a TorchScript archive, whose network cannot be sent to workers"),
    ):
        with pytest.raises(UserError, match=message):
            load(model, None if checkpoint is None else tmp_path / checkpoint)
    with pytest.raises(UserError, match="without their network: say which with --model"):
        load_foreign(None, str(tmp_path / "good.pt"), num_classes=10)
