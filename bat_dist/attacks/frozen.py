"""How every attack sees a model: frozen, as logits or as a gradient with respect to the images, and left as it was."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from bat_dist.attacks.checks import check_batch, check_choice, check_ids, check_logits
from bat_dist.attacks.folding import pairs_of
from bat_dist.attacks.graphs import (
    Recordings,
    Tensors,
    addresses,
    is_worthwhile,
    padded,
    padded_size,
    recordings_of,
)
from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels, Logits, Loss, PerExample
from bat_dist.attacks.numerics import Precision, numerics
from bat_dist.attacks.prepared_weights import prepared
from bat_dist.attacks.standing import Flags, Ids

Mode = Literal["eval", "keep"]


@contextmanager
def frozen(model: nn.Module, *, mode: Mode = "eval") -> Iterator[None]:
    """Inside, no parameter asks for a gradient, and the model is in eval mode (or, with "keep", in the mode it has).

    Afterwards, also after an exception, the mode of every submodule, requires_grad, every buffer and torch's global
    generators are what they were. No .grad is touched. In train mode ("keep") BatchNorm uses the statistics of the
    batch and would move its running ones: it moves copies, lent for the time, so that the model's own buffers are not
    even written to (writing them back would break a caller's graph that has saved them). Random layers (dropout) draw
    from the global generators as they stand; these are then set back.

    Give it the plain model: DistributedDataParallel's `.module`, never the wrapper.
    """
    modules, learning = list(model.modules()), [p for p in model.parameters() if p.requires_grad]
    modes = [module.training for module in modules]
    own = [(module, dict(module.named_buffers(recurse=False))) for module in (modules if mode == "keep" else [])]
    gpus = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        if mode == "eval":
            model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        for module, buffers in own:
            for name, buffer in buffers.items():
                setattr(module, name, buffer.clone())
        with torch.random.fork_rng(devices=list(gpus)):
            yield
    finally:
        for module, buffers in own:
            for name, buffer in buffers.items():
                setattr(module, name, buffer)
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, training in zip(modules, modes, strict=True):
            module.training = training  # one by one: train() would set the children too


class GradientAt(NamedTuple):
    """What a model says at a point, free of any graph: the gradient of the loss there, the logits, the losses."""

    gradient: Images
    logits: Logits
    losses: PerExample


@dataclass(frozen=True)
class FrozenModel:
    """A model inside `attacked`.

    precision: of the network alone; logits, losses and gradients have the images' dtype.
    num_draws: passes over which a gradient is averaged, for a model that draws random numbers in each: the expectation
    over transformation (EOT) of Athalye et al. 2018 (arXiv:1707.07397), as AutoAttack `rand` takes it.
    largest_label: of the images that are attacked; the model must have a class for it.
    recordings: of the model's passes, for GPUs (see `graphs`). padded: fill batches up to a few sizes for these.
    """

    model: nn.Module
    precision: Precision = "fp32"
    num_draws: int = 1
    largest_label: int = 0
    recordings: Recordings | None = None
    padded: bool = False

    def logits(self, x: Images, known: Logits | None = None) -> Logits:
        """The logits at x: by one forward pass, without a graph, or a copy of `known` if the caller has them.

        Raises ValueError if they are not a logit for each image and each class that a label names.
        """
        if known is None:
            (logits,) = self._recorded("logits", lambda x: (self._pass(x),), x)
        else:
            logits = known.clone()
        check_logits(logits, len(x), self.largest_label)
        return logits

    def gradient(self, x: Images, loss: Loss, against: Tensor) -> GradientAt:
        """The gradient of the sum of the losses: for each image, that of its own loss, unless BatchNorm in train mode
        mixes the images.  Logits and losses are those of the last draw.
        """
        if self.num_draws == 1 and isinstance(loss, FunctionType) and loss.__closure__ is None:
            return GradientAt(*self._recorded(loss, lambda x, against: self._gradient(x, loss, against), x, against))
        return self._gradient(x, loss, against)

    def _pass(self, x: Images) -> Logits:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model(x).to(x.dtype)

    def _gradient(self, x: Images, loss: Loss, against: Tensor) -> GradientAt:
        leaf, gradients = x.detach().requires_grad_(), []
        for _ in range(self.num_draws):
            with torch.enable_grad():
                logits = self._pass(leaf)
                check_logits(logits, len(x), self.largest_label)
                losses = loss(logits, against)
                gradients += torch.autograd.grad(losses.sum(), leaf)
        gradient = gradients[0] if self.num_draws == 1 else torch.stack(gradients).mean(dim=0)
        return GradientAt(gradient, logits.detach(), losses.detach())

    @cached_property
    def _addresses(self) -> Hashable:
        """Those of the model, which does not move while it is attacked."""
        return addresses(self.model)

    def _recorded(self, kind: Hashable, function: Callable[..., Tensors], *inputs: Tensor) -> Tensors:
        """What the function gives for the inputs, which have a row per image; it asks the model alone."""
        if self.recordings is None:
            return function(*inputs)
        count = len(inputs[0])
        size = padded_size(count) if self.padded else count
        kind = (kind, self.precision, self._addresses)
        return tuple(out[:count] for out in self.recordings(kind, function, *(padded(one, size) for one in inputs)))


@contextmanager
def attacked(
    model: nn.Module,
    x: Images,
    y: Labels,
    ids: Ids | None = None,
    *,
    mode: Mode = "eval",
    precision: Precision = "fp32",
    checked: bool = False,
    fold_batch_norm: bool = False,
) -> Iterator[tuple[FrozenModel, Images, Labels]]:
    """The frozen model, and the batch as copies that are free of any graph.

    Inside no graph is recorded but by `FrozenModel.gradient`, in whatever contexts the caller is: no_grad,
    inference_mode (whose tensors may enter a graph only as copies), autocast (which would reach the loss and the
    backward pass), TF32 as it may be allowed (see `numerics`). Raises ValueError for a batch, labels or ids that cannot
    be attacked.
    checked: the caller has images in [0, 1] and labels from 0 on; on a GPU, looking at them again is a wait.
    fold_batch_norm: in eval mode, convolutions take over the BatchNorms behind them for the time (`folding.pairs_of`).
    """
    check_choice("precision", precision, Precision)
    check_choice("mode", mode, Mode)
    largest_label = 0 if checked else check_batch(x, y)
    if ids is not None:
        check_ids(ids, x)
    no_autocast = torch.autocast(x.device.type, enabled=False)
    with numerics(precision), torch.inference_mode(False), torch.no_grad(), no_autocast, frozen(model, mode=mode):
        recordings = recordings_of(model) if mode == "eval" and is_worthwhile((x,)) else None
        victim = FrozenModel(
            model, precision, largest_label=largest_label, recordings=recordings, padded=ids is not None
        )
        on_cpu = x.device.type == "cpu"  # a GPU's recordings hold the casts, and know weights by their addresses
        pairs = pairs_of(model, x) if fold_batch_norm and mode == "eval" else ()
        with prepared(model, in_bf16=precision == "bf16", pairs=pairs) if on_cpu else nullcontext():
            yield victim, x.detach().clone(), y.clone()


def wrong(logits: Logits, y: Labels) -> Flags:
    """Which images are misclassified. Of equal logits the first wins, as in torch.argmax; one that is not a number
    makes an image wrong.
    """
    return (logits.argmax(dim=1) != y) | logits.isnan().any(dim=1)
