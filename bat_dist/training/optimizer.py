"""The optimizers: what moves a network's weights at a learning rate that is given with every step.

They do what `torch.optim` does, by its own functions, without `torch.optim.Optimizer`: see `sgd`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

from bat_dist.training.recipe import Recipe

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's


class Optimizer:
    """What both have in common.

    lr: of the last step that was given a number, before the first one the recipe's. state: what has been gathered of
    the gradients, by kind and parameter; the tensors stay where they are.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.parameters = list(network.parameters())
        self.recipe = recipe
        self.lr = recipe.lr
        self.state: Mapping[str, dict[nn.Parameter, Tensor]] = {}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, lr: float | Float[Tensor, ""], *, cancel: Float[Tensor, ""] | None = None) -> None:
        """Move all parameters that have a gradient; where `cancel`, on their device, is 1, leave them as they are.

        A learning rate in a tensor on their device can be another each time that a recorded step is replayed.
        """
        raise NotImplementedError


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), as torch's fused one does it.

    All weights decay, those of BatchNorm too. state: both moments, and `step`, how often each parameter has moved.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        self.state = {
            **{kind: {p: torch.zeros_like(p) for p in self.parameters} for kind in ("exp_avg", "exp_avg_sq")},
            "step": {p: torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters},
        }

    @torch.no_grad()
    def step(self, lr: float | Float[Tensor, ""], *, cancel: Float[Tensor, ""] | None = None) -> None:
        """See `Optimizer`."""
        if not isinstance(lr, Tensor):
            self.lr = lr
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        average, square, count = ([self.state[k][p] for p in moved] for k in ("exp_avg", "exp_avg_sq", "step"))
        adamw(
            list[Tensor](moved),
            [parameter.grad for parameter in moved if parameter.grad is not None],
            average,
            square,
            [],
            count,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=self.recipe.weight_decay,
            eps=EPSILON,
            maximize=False,
            fused=True,
            found_inf=cancel,
        )
