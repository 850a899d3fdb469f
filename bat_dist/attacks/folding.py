"""The same network in a faster form: in eval mode BatchNorm is a scale and a shift, which a convolution can take over.

`faster` makes a copy for where frozen weights are asked many thousand times, as in AutoAttack.  `pairs_of` says which
layers of a network in training may be folded for an attack (`prepared_weights`).
"""

from copy import deepcopy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bat_dist.attacks.graphs import record_calls_of
from bat_dist.attacks.linf import Images
from bat_dist.attacks.numerics import numerics
from bat_dist.attacks.prepared_weights import Pairs, prepared

TOLERANCE = 1e-5  # |a - b| <= TOLERANCE * (1 + |b|), of logits
ROUNDING = 1e-3  # the same, of a network whose weights say nothing about those that it will have
PROBES = 2  # images

_PAIRS: "WeakKeyDictionary[nn.Module, Pairs]" = WeakKeyDictionary()


@numerics("fp32")
def faster(model: nn.Module, x: Images) -> nn.Module:
    """A copy in eval mode with the same logits, to attack in the model's place; the model itself is left as found.

    Convolutions take over the BatchNorms that follow them directly, ReLUs write in place, weights are channels_last.
    x: a few images in [0, 1]; they show which layer follows which, and are the proof: a change after which the copy's
    logits are not the model's (TOLERANCE), or cannot be differentiated, is taken back. Costs a few passes per layer.
    The model itself is returned if it cannot be copied, or says something else when asked again (a randomized one).
    The proof is made without TF32, which alone moves logits by more than TOLERANCE.
    """
    try:
        plain, copy = (deepcopy(model).eval().requires_grad_(False) for _ in range(2))
        copy = copy.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    except Exception:  # whatever others' modules hold that cannot be copied
        return model
    if not _same(copy, plain, x):
        return model
    for conv, norm in _pairs(copy, x):
        _try(copy, plain, x, {conv: fuse_conv_bn_eval(conv, norm), norm: nn.Identity()})
    _try(copy, plain, x, {module: nn.ReLU(inplace=True) for module in copy.modules() if type(module) is nn.ReLU})
    return record_calls_of(copy)


def pairs_of(model: nn.Module, x: Images) -> Pairs:
    """The model's convolutions that can take over the BatchNorm behind them, whatever its weights will be.

    x: images of the kind that it takes; their pixels are not looked at. For use inside `frozen.attacked`.
    Found once for a model, with a copy in which all scales and shifts are drawn, so that no 0 hides who else reads a
    convolution, and proven on it: folded, it says what it says itself. Draws from no global generator, and calls no
    layer in train mode, in which layers may talk to other processes. Costs about five passes of a few images. There are
    none in a model that cannot be copied, and none on a GPU, where recorded passes (`graphs`) read weights where they
    have always been.
    """
    if x.device.type != "cpu":
        return ()
    found = _PAIRS.get(model)
    modules = set(model.modules())
    if found is None or not modules.issuperset(layer for pair in found for layer in pair):
        probes = torch.rand(PROBES, *x.shape[1:], generator=torch.Generator().manual_seed(0))
        found = _PAIRS[model] = _found_pairs(model, probes)
    return found


def _found_pairs(model: nn.Module, x: Images) -> Pairs:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            copy = _drawn(deepcopy(model), x)
            pairs, expected = _pairs(copy, x), copy(x)
            if not _says(expected, copy, pairs, x):
                pairs = [pair for pair in pairs if _says(expected, copy, [pair], x)]
        except Exception:  # whatever others' modules hold that cannot be copied
            return ()
    name_of = {layer: name for name, layer in copy.named_modules()}
    own = dict(model.named_modules())
    return [(own[name_of[conv]], own[name_of[norm]]) for conv, norm in pairs]  # pyright: ignore[reportReturnType]


def _says(expected: Tensor, model: nn.Module, pairs: Pairs, x: Images) -> bool:
    """Whether the model has the expected logits when these layers are folded."""
    with prepared(model, in_bf16=False, pairs=pairs):
        return bool(((model(x) - expected).abs() <= ROUNDING * (1 + expected.abs())).all())


def _drawn(model: nn.Module, x: Images) -> nn.Module:
    """The model with other scales and shifts; each BatchNorm has the statistics of its input."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.eval().requires_grad_(False).parameters():
        if parameter.ndim == 1 or not parameter.any():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
    model(x)
    for hook in hooks:
        hook.remove()
    return model.eval()


def _take_statistics(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    if isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor):
        norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))


def _try(copy: nn.Module, plain: nn.Module, x: Images, changes: dict[nn.Module, nn.Module]) -> None:
    """Make the changes, old layer to new one, and take them back if that is not the same model."""
    _replace(copy, changes)
    if not _same(copy, plain, x):
        _replace(copy, {new: old for old, new in changes.items()})


def _same(copy: nn.Module, plain: nn.Module, x: Images) -> bool:
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        try:
            logits = copy(leaf)
            torch.autograd.grad(logits.sum(), leaf)
            expected = plain(x)
        except RuntimeError:  # overwritten what the backward pass needs, or a view of another memory format
            return False
    return bool(((logits - expected).abs() <= TOLERANCE * (1 + expected.abs())).all())


def _pairs(model: nn.Module, x: Images) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the BatchNorms that were given just what they made; each called once.

    A BatchNorm that sets itself to train is none of them: `depends_on_company` tells of it.
    """
    maker: dict[int, nn.Conv2d] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: list[nn.Module] = []
    alive: list[Tensor] = []  # so that no id is given to another tensor

    def made(module: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        calls.append(module)
        if type(module) is nn.Conv2d:
            maker[id(output)] = module
            alive.append(output)

    def given(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None or module.training:
            return
        if id(inputs[0]) in maker:
            pairs.append((maker[id(inputs[0])], module))

    layers = [module for module in model.modules() if type(module) in (nn.Conv2d, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(made) for layer in layers]
    hooks += [layer.register_forward_pre_hook(given) for layer in layers]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if all(calls.count(layer) == 1 for layer in pair)]


def _replace(model: nn.Module, changes: dict[nn.Module, nn.Module]) -> None:
    """Put the new layers in the place of the old ones, wherever the model holds them."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in changes:
                setattr(parent, name, changes[child])
