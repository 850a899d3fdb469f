"""Look at a network for what makes an evaluation misleading; `hygiene` judges what is found here."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from bat_dist.attacks.frozen import frozen, wrong
from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels, Logits, cross_entropy
from bat_dist.evaluation.hygiene import WANTED_IMAGES

_ONE_AT_A_TIME = threading.Lock()  # else one probe would put back what another has put there
ASKS = 5  # times, to see whether the answer changes (as AutoAttack's own check)


def probe(
    model: nn.Module, x: Images, y: Labels, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, float]:
    """Numbers by the names of `hygiene.FOUND`, of a network that is left as it was.

    x: images in [0, 1]; mean and std: of the data set, per channel.
    """
    before = {name: tensor.clone() for name, tensor in _tensors(model)}
    with torch.no_grad(), frozen(model):
        with _optimizing() as counted:
            logits = model(x)
        again = [model(x) for _ in range(ASKS - 1)]
        alone = torch.cat([model(image.unsqueeze(0)) for image in x[:8]])
        within_0_and_1 = bool((logits > -1e-5).all() and (logits < 1 + 1e-5).all())
        sum_to_1 = bool(((logits.sum(dim=1) - 1).abs() < 1e-5).all())
        found = {
            "random_difference": max(_difference(logits, other) for other in again),
            "company_difference": _difference(logits[:8], alone),
            "optimizes": float(counted()),
            "is_probability": float(within_0_and_1 and sum_to_1),  # AutoAttack's check
            "not_finite": float((~logits.isfinite()).any(dim=1).float().mean()),
        }
        for name, preprocessed in preprocessings(mean, std).items():
            found[f"right_{name}"] = float((~wrong(model(preprocessed(x)), y)).float().mean())
    changed = any(not torch.equal(tensor, before[name]) for name, tensor in _tensors(model))
    found |= {"state_changed": float(changed), **_gradients(model, x, y)}
    with torch.no_grad():  # a network that moved its own statistics is set back
        for name, tensor in _tensors(model):
            tensor.copy_(before[name])
    return found


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Of the network's state, without what else a module's `get_extra_state` may give."""
    yield from ((name, part) for name, part in model.state_dict().items() if isinstance(part, Tensor))


def preprocessings(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Callable[[Images], Images]]:
    """What people do to images in [0, 1] before they give them to a network, by the names of `WANTED_IMAGES`."""

    def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Images], Images]:
        return lambda x: (x - x.new_tensor(mean).view(-1, 1, 1)) / x.new_tensor(std).view(-1, 1, 1)

    undone = tuple(-m / s for m, s in zip(mean, std, strict=True)), tuple(1 / s for s in std)
    changes = (
        lambda x: x,
        normalized(mean, std),
        normalized((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        lambda x: 2 * x - 1,
        lambda x: 255 * x,
        normalized(*undone),
    )
    return dict(zip(WANTED_IMAGES, changes, strict=True))


def _difference(logits: Logits, other: Logits) -> float:
    """The largest change of an image's logits, relative to their length."""
    length = logits.norm(dim=1, keepdim=True).clamp(min=1e-10)
    return float(((logits - other) / length).nan_to_num().abs().max())


def _gradients(model: nn.Module, x: Images, y: Labels) -> dict[str, float]:
    """The shares of the images at which cross-entropy has no gradient at all, and one that is not finite.

    If the network has none to give, it has none anywhere.
    """
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad(), frozen(model):
        try:
            (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
        except RuntimeError:
            return {"zero_gradient": 1.0, "gradient_not_finite": 0.0}
    rows = gradient.flatten(1)
    not_finite = (~rows.isfinite()).any(dim=1)
    return {
        "zero_gradient": float((rows == 0).all(dim=1).float().mean()),
        "gradient_not_finite": float(not_finite.float().mean()),
    }


@contextmanager
def _optimizing() -> Iterator[Callable[[], int]]:
    """Counts the gradients that are taken inside: by a network that optimizes something while it is asked.

    Those of other threads, such as of an attack that runs beside it, are not the network's.
    """
    calls, own = 0, threading.get_ident()

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += threading.get_ident() == own
            return real(*args, **kwargs)

        return counted

    with (
        _ONE_AT_A_TIME,
        patch.object(torch.autograd, "grad", counting(torch.autograd.grad)),
        patch.object(torch.autograd, "backward", counting(torch.autograd.backward)),
        patch.object(Tensor, "backward", counting(Tensor.backward)),
    ):
        yield lambda: calls
