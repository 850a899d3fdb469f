"""Tiny models and images for the attack tests, and all that an attack must leave alone."""

import torch
from torch import nn


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))


def bn_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 2 * 2, 5),
    )  # fmt: skip


def bn_in_train_mode():
    return warmed(bn_net()).train()


def bn_in_eval_mode():
    return warmed(bn_net()).eval()


def half_frozen():
    """As in fine-tuning: train mode, but the first BatchNorm is in eval mode and its stem does not learn."""
    model = bn_in_train_mode()
    model[1].eval()
    model[0].requires_grad_(False)
    return model


def noisy():
    """Draws from torch's global generator, and keeps statistics that only InstanceNorm keeps so."""
    stem = [nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.BatchNorm2d(4, momentum=None)]
    return nn.Sequential(*stem, nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 5)).train()


MODELS = {
    "linear": linear,
    "bn_eval": bn_in_eval_mode,
    "bn_train": bn_in_train_mode,
    "half_frozen": half_frozen,
    "noisy": noisy,
}


def warmed(model):
    """Running statistics that are not the initial ones."""
    with torch.no_grad():
        model(images(16))
    return model


def make(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return MODELS[name]()


def images(count=6):
    """With pixels at both bounds."""
    x = torch.rand(count, 3, 4, 4, generator=seeded(1))
    x[:, :, 0, 0], x[:, :, 1, 1] = 0, 1
    return x


def labels(count=6):
    return torch.arange(count) % 5


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def state(model):
    """Everything that must be as before: modes, requires_grad, gradients, buffers (which, and their bits), RNG."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "weights": {name: bits(parameter) for name, parameter in parameters.items()},
        "grad": {name: (id(p.grad), p.grad is not None and bits(p.grad)) for name, p in parameters.items()},
        "buffers": {name: (id(buffer), buffer._version, bits(buffer)) for name, buffer in buffers.items()},
        "rng": bits(torch.get_rng_state()),
    }


def bits(tensor):
    return tensor.detach().numpy().tobytes()
