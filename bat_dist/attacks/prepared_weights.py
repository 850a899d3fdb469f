"""Weights that are made ready once for an attack, not at each of its passes through the network.

While an attack runs, weights stay as they are.  Autocast nevertheless rounds a layer's weights each time that the layer
is called: it keeps what it has rounded only for weights that ask for a gradient, which those of an attacked network do
not (`frozen`), and only until its context ends.  Rounding them once gives the same network, bit for bit.  And in eval
mode BatchNorm is a scale and a shift, which the convolution before it can take over (`folding.Pairs`): the same network
but for rounding.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

CAST_ONCE = "BAT_DIST_CAST_ONCE"

Pairs = Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]
"""Convolutions, each with the BatchNorm that reads what it makes, and that nobody else reads."""


@contextmanager
def prepared(model: nn.Module, *, in_bf16: bool, pairs: Pairs = ()) -> Iterator[None]:
    """Inside, layers compute with weights that were made ready at the beginning; no weight may change meanwhile.

    pairs: of the model, in eval mode; each convolution takes over its BatchNorm, which then does nothing.
    in_bf16: for passes under autocast in bf16; convolutions and linear layers compute with rounded weights, unless the
    environment variable BAT_DIST_CAST_ONCE is 0.
    The weights themselves stay what they are, for whatever else reads them. Layers that are more than torch's own, such
    as those whose weights a hook computes, are left alone.
    """
    folded = {conv: norm for conv, norm in pairs if _can_take_over(conv, norm)}
    lent: list[nn.Module] = [*folded.values()]
    try:
        for layer in _layers(model) if in_bf16 and os.environ.get(CAST_ONCE) != "0" else folded:
            weight, bias = _weights(layer, folded.get(layer))  # pyright: ignore[reportArgumentType]
            if in_bf16:
                weight, bias = weight.bfloat16(), None if bias is None else bias.bfloat16()
            compute = layer._conv_forward if isinstance(layer, nn.Conv2d) else functional.linear
            layer.forward = partial(compute, weight=weight, bias=bias)
            lent.append(layer)
        for norm in folded.values():
            norm.forward = _unchanged
        yield
    finally:
        for layer in lent:
            vars(layer).pop("forward", None)


def _layers(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear) and _is_plain(layer)]


def _weights(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias without a graph, those of the BatchNorm taken in."""
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018
    return fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)


def _unchanged(input: Tensor) -> Tensor:
    return input


def _is_plain(layer: nn.Module) -> bool:
    """Whether calling the layer is one operation on its input, a float32 parameter `weight`, and perhaps a `bias`."""
    if type(layer) not in (nn.Conv2d, nn.Linear) or layer._forward_pre_hooks or "forward" in vars(layer):
        return False
    weight = layer._parameters.get("weight")
    return weight is not None and weight.dtype == torch.float32 and not nn.parameter.is_lazy(weight)


def _can_take_over(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether the BatchNorm is a scale and a shift of its input, and nobody watches what goes into it and out of it."""
    watched = conv._forward_hooks or norm._forward_pre_hooks or norm._forward_hooks or "forward" in vars(norm)
    return _is_plain(conv) and not watched and not norm.training and norm.running_mean is not None
