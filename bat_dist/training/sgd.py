"""Stochastic gradient descent as `torch.optim.SGD(fused=True)` does it, without `torch.optim.Optimizer`.

An Optimizer's first call imports torch's compiler, to keep it away from its methods: two seconds of CPU time in every
worker process, for a compiler that nothing here uses.  The step itself is torch's own function.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.sgd import sgd

from bat_dist.training.optimizer import AdamW, Optimizer
from bat_dist.training.recipe import Recipe


class Sgd(Optimizer):
    """SGD with the recipe's momentum and weight decay.  momentum: the buffer of each parameter that has moved."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        self.momentum: dict[nn.Parameter, Tensor] = {}
        self.state = {"momentum": self.momentum}

    @torch.no_grad()
    def step(self, lr: float | Float[Tensor, ""], *, cancel: Float[Tensor, ""] | None = None) -> None:
        """See `Optimizer`."""
        if not isinstance(lr, Tensor):
            self.lr = lr
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        begun = [parameter for parameter in moved if parameter in self.momentum]
        for some in (begun, [parameter for parameter in moved if parameter not in self.momentum]):
            buffers = [self.momentum.get(parameter) for parameter in some]
            sgd(
                list[Tensor](some),
                [parameter.grad for parameter in some if parameter.grad is not None],
                buffers,
                weight_decay=self.recipe.weight_decay,
                momentum=self.recipe.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=self.recipe.nesterov,
                maximize=False,
                fused=True,
                found_inf=cancel,
            )
            for parameter, buffer in zip(some, buffers, strict=True):
                if buffer is not None:
                    self.momentum[parameter] = buffer


def optimizer_of(network: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer of the network's weights."""
    return AdamW(network, recipe) if recipe.optimizer == "adamw" else Sgd(network, recipe)
