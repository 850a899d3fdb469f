"""Weights on disk: safetensors files whose header says what network they are of.  No pickle is ever written or read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from bat_dist.artifacts.own_again import network_again
from bat_dist.errors import UserError
from bat_dist.models.build import Classifier, build
from bat_dist.models.own import OwnNetwork
from bat_dist.parts import whole_reference
from bat_dist.storage.files import Folder, split_location
from bat_dist.storage.recorded import SUFFIX

EXPORTED = "model.safetensors"  # the one network of a folder of `bat-dist export`
_HEADER = "bat_dist"  # safetensors wants text under names; all of ours is JSON under this one


@dataclass(frozen=True)
class ModelSpec:
    """What must be known to build a network again, beside its weights.

    reference: of a network of the user's own, where it was imported from; no code is in a checkpoint.
    """

    arch: str
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    reference: str = ""

    @classmethod
    def of(cls, arch: str | OwnNetwork, *others: Any) -> "ModelSpec":
        """The description of a network that is trained; others: the next fields."""
        return cls(
            str(arch), *others, reference=whole_reference(arch.reference) if isinstance(arch, OwnNetwork) else ""
        )

    @property
    def is_own(self) -> bool:
        """Whether it is a network of the user's own, or of timm or torchvision."""
        return " " in self.arch

    def build(self, own: OwnNetwork | None = None) -> Classifier:
        """A new network, weights drawn from torch's global generator.

        own: the user's own, if it is one. Raises UserError if the arch is unknown.
        """
        try:
            return build(own or self.arch, len(self.class_names), mean=self.mean, std=self.std)
        except ValueError as error:
            raise UserError(str(error)) from None


class Checkpoint(NamedTuple):
    """What a checkpoint file holds."""

    model: Classifier
    spec: ModelSpec
    facts: Mapping[str, Any]  # plain values: epoch, accuracies, ...


def save_tensors(folder: Folder, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and `about`, plain values, as one safetensors file; it appears whole or not at all."""
    dense, written = dict[str, Tensor](), set[int]()
    for key, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        dense[key] = own.clone() if storage in written else own  # tied weights: safetensors takes no memory twice
        written.add(storage)
    # The digest, for safetensors has no checksum. Under one key: of several, safetensors changes the order.
    header = json.dumps({"about": about, "sha256": _digest(dense, about)})
    folder.write(name, safetensors.torch.save(dense, {_HEADER: header}))


def load_tensors(folder: Folder, name: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors, on the CPU, and what was written about them.

    Raises UserError if the file is missing, damaged, or not one of `save_tensors`. The digest finds accidents, not
    forgery: who can write the file can also compute it.
    """
    try:
        data = folder.read(name)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"{folder}/{name} does not exist") from None
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise UserError(f"{folder}/{name} cannot be read as safetensors ({error}): it is damaged; remove it") from None
    # The free part of the header; the format: 8 bytes of length, then JSON.
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if _HEADER not in metadata:
        raise UserError(f"{folder}/{name} was not written by bat_dist: its header does not say which network it is of")
    try:
        header = json.loads(metadata[_HEADER])
        about, whole = header["about"], header["sha256"] == _digest(tensors, header["about"])
    except (ValueError, KeyError, TypeError):
        about, whole = {}, False
    if not whole:
        raise UserError(f"{folder}/{name} is damaged: its digest does not match its content; remove it")
    return tensors, about


def save_model(
    folder: Folder, name: str, weights: Mapping[str, Tensor], spec: ModelSpec, facts: Mapping[str, Any]
) -> None:
    """Write a network's state dict as NAME.safetensors; `facts` are plain values such as epoch and accuracies."""
    model = {name: value for name, value in asdict(spec).items() if value or name != "reference"}
    save_tensors(folder, name + SUFFIX, weights, {"model": model, "facts": dict(facts)})


def load_model(
    location: str | Folder, which: str = "best", *, device: str | torch.device = "cpu", model: Any = None
) -> Classifier:
    """A trained network in eval mode, which takes images in [0, 1] and gives logits (RobustBench's convention).

    location: a run's folder (`which` says best or last), an exported folder (it holds one network, whatever `which`
    says) or a .safetensors file, on any file system that fsspec knows.
    model: of a network of your own the class or function that makes it, or FILE.py:NAME; by default it is imported from
    the file that it was trained from, if that is there and unchanged. No code comes with a checkpoint.
    Raises UserError if it is missing, damaged, or not a network of bat_dist, or if its own network is not at hand.
    """
    return load_checkpoint(location, which, device=device, model=model).model


def load_checkpoint(
    location: str | Folder, which: str = "best", *, device: str | torch.device = "cpu", model: Any = None
) -> Checkpoint:
    """The same, with the network's description and the facts written with it."""
    folder, name = place(location.location if isinstance(location, Folder) else str(location), which)
    weights, about = load_tensors(folder, name)
    spec = _spec(about, f"{folder}/{name}")
    network = spec.build(network_again(spec.arch, spec.reference, model, f"{folder}/{name}") if spec.is_own else None)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder}/{name} does not fit {spec.arch}: {error}") from None
    return Checkpoint(network.to(device).eval(), spec, about["facts"])


def spec_of(location: str, which: str = "best") -> ModelSpec:
    """What network a checkpoint is of.  Raises UserError as `load_checkpoint`."""
    folder, name = place(location, which)
    return _spec(load_tensors(folder, name)[1], f"{folder}/{name}")


def _spec(about: Mapping[str, Any], where: str) -> ModelSpec:
    if "model" not in about:
        raise UserError(f"{where} holds the state of a training run, not a network: take best or last")
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in about["model"].items()}
    return ModelSpec(**fields)


def place(location: str, which: str = "best") -> tuple[Folder, str]:
    """The folder and the name of the file that `load_model` reads; it need not exist."""
    if location.endswith(SUFFIX):
        return split_location(location)
    folder, name = Folder(location), which + SUFFIX
    return folder, EXPORTED if folder.exists(EXPORTED) and not folder.exists(name) else name


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
