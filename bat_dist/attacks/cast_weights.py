"""Weights that are rounded to bf16 once for an attack, not at each of its passes through the network.

Autocast rounds a layer's weights each time that the layer is called.  It keeps what it has rounded only for weights
that ask for a gradient, which those of an attacked network do not (`frozen`), and only until its context ends.  While
an attack runs, weights stay as they are, so that rounding them once gives the same network, bit for bit.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional

SWITCH = "BAT_DIST_CAST_ONCE"


@contextmanager
def cast_once(model: nn.Module) -> Iterator[None]:
    """Inside, convolutions and linear layers compute with weights that were rounded to bf16 at the beginning.

    For passes under autocast in bf16, during which no weight may change.  The weights themselves stay in float32, for
    whatever else reads them.  Layers that are more than torch's own, such as those whose weights a hook computes, are
    left alone.  With the environment variable BAT_DIST_CAST_ONCE=0 all are.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear) and _is_plain(layer)]
    try:
        for layer in layers if os.environ.get(SWITCH) != "0" else ():
            weight = layer.weight.detach().to(torch.bfloat16)
            bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)
            compute = layer._conv_forward if isinstance(layer, nn.Conv2d) else functional.linear
            layer.forward = partial(compute, weight=weight, bias=bias)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _is_plain(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether calling the layer is one operation on its input, a float32 parameter `weight`, and perhaps a `bias`."""
    if type(layer) not in (nn.Conv2d, nn.Linear) or layer._forward_pre_hooks or "forward" in vars(layer):
        return False
    weight = layer._parameters.get("weight")
    return weight is not None and weight.dtype == torch.float32 and not nn.parameter.is_lazy(weight)
