"""The network that is evaluated: from ours or from elsewhere, checked against the data, ready to travel."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from bat_dist.artifacts.checkpoints import SUFFIX, load_checkpoint, place, spec_of
from bat_dist.artifacts.foreign import load_foreign
from bat_dist.attacks.frozen import frozen
from bat_dist.data.datasets import Dataset
from bat_dist.data.memory_loader import shared_tensor
from bat_dist.errors import UserError
from bat_dist.evaluation.names import check_classes_of_data, has_gradient
from bat_dist.models.anatomy import anatomy, digest_of
from bat_dist.models.build import Classifier
from bat_dist.models.classifier import ImageClassifier
from bat_dist.models.normalization import Normalize
from bat_dist.models.own import OwnClassifier, OwnNetwork, copy_of
from bat_dist.parts import travelling
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.wording import counted

TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".tar", ".pkl", ".pickle")


@dataclass(frozen=True)
class AttackedNetwork:
    """A network that takes images in [0, 1]; facts: what is known of it; digest: of its weights and code."""

    network: nn.Module
    facts: Mapping[str, Any]
    digest: str


def load_subject(dataset: Dataset, settings: EvaluateSettings) -> AttackedNetwork:
    """The network that the settings name.

    Raises UserError if it is missing, damaged, unsafe to read, for other classes than the data's, or if an attack needs
    what it has not: a gradient, or more classes.
    """
    checkpoint = str(settings.checkpoint)
    is_file = Path(checkpoint).is_file() and not checkpoint.endswith(SUFFIX)
    is_torch = checkpoint.endswith(TORCH_SUFFIXES) or is_file
    is_foreign = is_torch or (settings.model is not None and not _is_of_own_network(settings))
    subject = _foreign(dataset, settings) if is_foreign else _ours(dataset, settings)
    check_fits(subject.network, dataset, settings.attacks)
    if is_foreign:
        check_can_travel(subject.network)
    return subject


def passed_subject(network: nn.Module, settings: EvaluateSettings) -> AttackedNetwork:
    """A copy of a network that was passed as an object, with its normalization before it, if the settings name one.

    Raises UserError if it cannot be copied.
    """
    network = copy_of(network).float().eval()
    if settings.mean is not None and settings.std is not None:
        network = nn.Sequential(Normalize(settings.mean, settings.std), network)
    facts = {"model": settings.model, "mean": settings.mean, "std": settings.std}
    if isinstance(network, ImageClassifier | OwnClassifier):
        return AttackedNetwork(network, facts, _digest_of_ours(network))
    return AttackedNetwork(network, facts, _digest(network, f"{settings.model}\n", made_of=anatomy(network)))


def saved_subject(location: str) -> tuple[AttackedNetwork, tuple[str, ...]]:
    """A network of ours as `load_model` reads it, and the names of its classes.  Raises UserError."""
    found = load_checkpoint(location)
    return AttackedNetwork(found.model, found.facts, _digest_of_ours(found.model)), found.spec.class_names


def check_can_travel(network: nn.Module) -> None:
    """Raise UserError unless the network can be sent to workers, as ours can."""
    from ray import cloudpickle

    try:
        cloudpickle.dumps(network)  # pyright: ignore[reportPrivateImportUsage]
    except Exception as error:
        raise UserError(
            f"the network cannot be sent to workers ({type(error).__name__}: {error}): keep locks, files, "
            "generators and TorchScript out of its attributes, or make them when they are first asked for"
        ) from None


def _is_of_own_network(settings: EvaluateSettings) -> bool:
    """Is it a checkpoint of ours, with the weights of a network of the user's own?  Then `model` names that."""
    if settings.checkpoint is None or isinstance(settings.model, OwnNetwork):
        return settings.checkpoint is not None
    folder, name = place(settings.checkpoint, settings.which or "best")
    try:
        return folder.exists(name) and spec_of(settings.checkpoint, settings.which or "best").is_own
    except UserError:  # a file of others, or a damaged one, of which the next reader complains
        return False


def _ours(dataset: Dataset, settings: EvaluateSettings) -> AttackedNetwork:
    assert settings.checkpoint is not None
    for name in ("mean", "std", "weights_key"):
        if getattr(settings, name) is not None:
            raise UserError(f"{name} is for networks of others; {settings.checkpoint} is one of ours: leave {name} out")
    if settings.which and settings.checkpoint.endswith(SUFFIX):
        raise UserError(f"which says best or last of a run's folder; {settings.checkpoint} is a file: leave which out")
    found = load_checkpoint(settings.checkpoint, settings.which or "best", model=settings.model)
    if found.spec.class_names != dataset.class_names:
        raise UserError(
            f"checkpoint {settings.checkpoint} knows {len(found.spec.class_names)} classes, "
            f"{_some(found.spec.class_names)}, the data has {len(dataset.class_names)}, {_some(dataset.class_names)}"
        )
    return AttackedNetwork(found.model, found.facts, _digest_of_ours(found.model))


def _foreign(dataset: Dataset, settings: EvaluateSettings) -> AttackedNetwork:
    if settings.which:
        raise UserError("which says best or last of a run's folder; this network is not one of ours: leave which out")
    found = load_foreign(
        settings.model,
        settings.checkpoint,
        num_classes=len(dataset.class_names),
        mean=settings.mean,
        std=settings.std,
        weights_key=settings.weights_key,
        allow_pickle=settings.allow_pickle,
    )
    if found.modules:  # other machines do not have the user's file
        from ray import cloudpickle

        for module in travelling():  # of found.modules, those that no module of the same name has replaced
            cloudpickle.register_pickle_by_value(module)
    facts = {"model": settings.model, "weights": settings.checkpoint, "mean": settings.mean, "std": settings.std}
    code = f"{settings.model}\n{found.source}"
    return AttackedNetwork(found.network, facts, _digest(found.network, code, made_of=anatomy(found.network)))


def _digest_of_ours(network: Classifier) -> str:
    return _digest(network, network.source if isinstance(network, OwnClassifier) else "")


def _digest(network: nn.Module, code: str = "", *, made_of: bytes = b"") -> str:
    """The digest of what decides a network's answers: the weights, and if it is not ours its code.

    code: names it. made_of: the network's anatomy, where no checkpoint says that the code alone has made it.
    """
    digest = sha256(code.encode())
    for name, part in sorted(network.state_dict().items()):
        if isinstance(part, torch.Tensor):
            digest.update(name.encode() + part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:  # what a module's `get_extra_state` gives
            digest.update(name.encode() + digest_of(part))
    digest.update(made_of)
    return digest.hexdigest()[:16]


def check_fits(network: nn.Module, dataset: Dataset, attacks: tuple[str, ...]) -> None:
    """Raise UserError unless the network gives logits for the data's classes, and each attack can do its work."""
    check_classes_of_data(attacks, len(dataset.class_names), "evaluate it")
    for logits in answers(network, dataset.test.images):
        if logits.shape[1] != len(dataset.class_names):
            raise UserError(f"the network knows {logits.shape[1]} classes, the data has {len(dataset.class_names)}")
        if not logits.requires_grad and (wanting := list(filter(has_gradient, attacks))):
            raise UserError(
                f"the network cannot be differentiated with respect to its images, which {', '.join(wanting)} "
                "must do: attack it with square alone"
            )


def answers(network: nn.Module, images: UInt8[np.ndarray, "images height width 3"]) -> Iterator[torch.Tensor]:
    """Yield the logits of two images, then of one, as the last unit of an evaluation may have it.

    Raises UserError if the network does not take the images, or does not give logits [images, classes].
    """
    x = shared_tensor(images[:2]).permute(0, 3, 1, 2).float().div_(255).contiguous()
    for part in (x, x[:1]):
        part = part.clone().requires_grad_()
        with torch.enable_grad(), frozen(network):
            try:
                logits = network(part)
            except Exception as error:
                raise UserError(
                    f"the network cannot take images of shape {list(part.shape)}: {type(error).__name__}: {error}"
                ) from error
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(part):
            shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            count = counted(len(part), "image")
            raise UserError(f"the network must give logits [batch, classes], got {shape} for {count}")
        yield logits


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
