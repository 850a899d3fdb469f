"""Weights come back bit for bit; whatever is not a whole file of ours is refused, and nothing is ever unpickled."""

import hashlib
import json
import os
import pickle
import uuid
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from bat_dist.artifacts.checkpoints import (
    EXPORTED,
    ModelSpec,
    load_checkpoint,
    load_model,
    load_tensors,
    save_model,
    save_tensors,
)
from bat_dist.errors import UserError
from bat_dist.models.classifier import ImageClassifier
from bat_dist.storage.files import Folder

FAMILIES = ["tinynet", "resnet9-w8", "resnet20", "resnet18", "preactresnet18", "wrn10-1"]
TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "nothing": torch.empty(0, 3),
}


def spec_of(arch: str) -> ModelSpec:
    return ModelSpec(arch, ("a", "b", "c"), 16, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def trained(arch: str) -> nn.Module:
    """A network whose every tensor differs from a new one's, BatchNorm's statistics too."""
    model = spec_of(arch).build()
    generator = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.shape != (3,):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.1 + 0.01)
    return model


# ------------------------------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_network_of_every_family_comes_back_bit_for_bit(tmp_path: Path, arch: str) -> None:
    """And is what RobustBench wants: a plain module in eval mode, images in [0, 1], logits."""
    model = trained(arch)
    save_model(Folder(tmp_path), "best", model.state_dict(), spec_of(arch), {"epoch": 3})
    torch.manual_seed(99)  # what the network is built with must not matter
    loaded = load_model(str(tmp_path))
    assert isinstance(loaded, nn.Module)
    assert not any(module.training for module in loaded.modules())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    images = torch.rand(4, 3, 16, 16)
    with torch.inference_mode():
        logits = loaded(images)
        assert logits.shape == (4, 3)
        assert torch.equal(logits, model.eval()(images))


def test_normalization_is_inside(tmp_path: Path) -> None:
    spec = ModelSpec("tinynet", ("a", "b"), 8, (0.3, 0.2, 0.1), (0.5, 0.6, 0.7))
    save_model(Folder(tmp_path), "best", spec.build().state_dict(), spec, {})
    model = load_model(str(tmp_path))
    assert isinstance(model, ImageClassifier)
    images = torch.rand(2, 3, 8, 8)
    normalized = (images - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    torch.testing.assert_close(model(images), model.head(model.body(normalized)))


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_description_and_facts_come_back(tmp_path: Path, kind: str) -> None:
    folder = Folder(tmp_path if kind == "local" else f"memory://{uuid.uuid4().hex}")
    spec = ModelSpec("tinynet", ("ä", "b\n---"), 8, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    facts = {"method": "bat", "val_pgd": None, "epsilon": 8 / 255, "recipe": {"lr": 0.1}}
    save_model(folder, "last", spec.build().state_dict(), spec, facts)
    for where in (folder, f"{folder}/last.safetensors"):
        found = load_checkpoint(where, "last")
        assert found.spec == spec
        assert found.facts == facts


def test_tensors_of_all_kinds_come_back(tmp_path: Path) -> None:
    save_tensors(Folder(tmp_path), "x.safetensors", TENSORS, {"epoch": 1})
    tensors, about = load_tensors(Folder(tmp_path), "x.safetensors")
    assert about == {"epoch": 1}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tensors_that_share_their_memory_come_back(tmp_path: Path) -> None:
    """As tied weights, or a layer that is registered under two names, do."""
    weights = torch.rand(3, 4)
    save_tensors(Folder(tmp_path), "x.safetensors", {"embedding": weights, "head": weights, "part": weights[1:]}, {})
    found, _ = load_tensors(Folder(tmp_path), "x.safetensors")
    assert torch.equal(found["embedding"], weights)
    assert torch.equal(found["head"], weights)
    assert torch.equal(found["part"], weights[1:])


def test_an_exported_folder_holds_one_network_and_a_run_two(tmp_path: Path) -> None:
    folder, spec = Folder(tmp_path), spec_of("tinynet")
    save_model(folder, "model", spec.build().state_dict(), spec, {"epoch": 1})
    assert (tmp_path / EXPORTED).is_file()
    assert load_checkpoint(folder).facts == load_checkpoint(folder, "last").facts == {"epoch": 1}
    save_model(folder, "best", spec.build().state_dict(), spec, {"epoch": 2})
    assert load_checkpoint(folder).facts == {"epoch": 2}


def test_a_file_is_found_from_its_own_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(Folder(tmp_path), "best", trained("tinynet").state_dict(), spec_of("tinynet"), {})
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_model("best.safetensors"), nn.Module)


# --------------------------------------------------------------------------------------------------- what is refused


def test_no_byte_of_a_file_may_differ(tmp_path: Path) -> None:
    """Header, description and data: each byte flipped in each of two ways, and each shorter or longer file."""
    folder, path = Folder(tmp_path), tmp_path / "x.safetensors"
    save_tensors(folder, path.name, {"a": torch.arange(4.0), "b": torch.tensor([1, 2])}, {"epoch": 1})
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :] for i in range(len(whole)) for bit in (1, 0x80)]
    damaged += [whole[:length] for length in range(len(whole))] + [whole + b"\0"]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"x\.safetensors .*(damaged|was not written by bat_dist)"):
            load_tensors(folder, path.name)
    path.write_bytes(whole)
    load_tensors(folder, path.name)


def test_tensors_that_changed_their_names_are_refused(tmp_path: Path) -> None:
    """Same bytes, same description: exchanged weights of one shape would load without a word."""
    path = tmp_path / "x.safetensors"
    save_tensors(Folder(tmp_path), path.name, {"left": torch.zeros(2), "rite": torch.ones(2)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"left", b"tmp_").replace(b"rite", b"left").replace(b"tmp_", b"rite"))
    assert torch.equal(safetensors.torch.load_file(path)["left"], torch.ones(2))
    for changed in (path.read_bytes(), whole.replace(b"left", b"lost")):  # the second in the order that they had
        path.write_bytes(changed)
        with pytest.raises(UserError, match="digest does not match"):
            load_tensors(Folder(tmp_path), path.name)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "b.safetensors", metadata={"format": "pt"})
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "c.safetensors", metadata={"bat_dist": "{}"})
    for name, message in [("a", "not written by bat_dist"), ("b", "not written by bat_dist"), ("c", "digest")]:
        with pytest.raises(UserError, match=message):
            load_model(str(tmp_path / f"{name}.safetensors"))


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_under_our_name_is_refused_and_not_run(tmp_path: Path) -> None:
    bomb = tmp_path / "went off"
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(Bomb(bomb)))
    torch.save({"weight": torch.zeros(2), "bomb": Bomb(bomb)}, tmp_path / "b.safetensors")
    for name in ("a", "b"):
        with pytest.raises(UserError, match="cannot be read as safetensors"):
            load_model(str(tmp_path / f"{name}.safetensors"))
    assert not bomb.exists()
    pickle.loads((tmp_path / "a.safetensors").read_bytes())
    assert bomb.exists(), "a dud proves nothing"


def test_what_is_missing_or_no_network_is_one_clear_error(tmp_path: Path) -> None:
    folder, spec = Folder(tmp_path), spec_of("tinynet")
    save_tensors(folder, "state.safetensors", {"momentum": torch.zeros(2)}, {"epoch": 4})
    save_model(folder, "other", {"weight": torch.zeros(2)}, spec, {})
    (tmp_path / "folder.safetensors").mkdir()
    for location, message in [
        (tmp_path, r"best\.safetensors does not exist"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "nowhere.safetensors", "does not exist"),
        (tmp_path / "folder.safetensors", "does not exist"),
        (tmp_path / "state.safetensors" / "below", "does not exist"),
        (tmp_path / "state.safetensors", "holds the state of a training run, not a network"),
        (tmp_path / "other.safetensors", "does not fit tinynet"),
    ]:
        with pytest.raises(UserError, match=message):
            load_model(str(location))


def test_the_file_can_be_read_without_us(tmp_path: Path) -> None:
    """Any safetensors reader opens it, and the digest is what the header says, computed here by hand."""
    save_tensors(Folder(tmp_path), "x.safetensors", {"b": torch.tensor([1, 2]), "a": torch.zeros(2, 1)}, {"epoch": 1})
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["bat_dist"])
    assert metadata["about"] == {"epoch": 1}
    by_hand = hashlib.sha256(b'{"epoch": 1}')
    by_hand.update(b'["a", "torch.float32", [2, 1]]' + bytes(8))
    by_hand.update(b'["b", "torch.int64", [2]]' + bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]))
    assert metadata["sha256"] == by_hand.hexdigest()
