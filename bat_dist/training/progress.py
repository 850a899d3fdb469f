"""What a training run is between two epochs: weights, momentum, averaged weights and history, as tensors and values."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bat_dist.attacks.graphs import record_calls_of
from bat_dist.training.files import EpochRow
from bat_dist.training.recipe import Recipe
from bat_dist.training.sgd import optimizer_of


class Progress:
    """A network in training.  Its random numbers need no place here: each epoch draws its own from (seed, epoch)."""

    def __init__(self, network: nn.Module, recipe: Recipe, *, ema: float | None = None) -> None:
        self.network = network
        self.optimizer = optimizer_of(network, recipe)
        self.average = WarmedAverage(network, ema) if ema is not None else None
        for asked in (network, self.judged):  # again and again, by attacks
            record_calls_of(asked)
        self.history: list[EpochRow] = []

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the averaged one if there is one."""
        return self.network if self.average is None else self.average.module

    def update(self, lr: float, *, clip_norm: float | None, cancel: Float[Tensor, ""] | None = None) -> None:
        """Clip the gradients in `.grad`, move the weights along them, and take the weights into their average.

        cancel: on the weights' device; where it is 1, neither weights nor momentum move.
        """
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), clip_norm)
        self.optimizer.step(lr, cancel=cancel)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, by name; not copied."""
        found = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            found |= {f"{kind}.{name}": of[parameter] for kind, of in self.optimizer.state.items() if parameter in of}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        return found

    def restore(self, tensors: dict[str, Tensor], history: list[EpochRow]) -> None:
        """Take the state of `tensors()` and the history that belongs to it."""
        self.network.load_state_dict(_below("network.", tensors))
        for name, parameter in self.network.named_parameters():
            for kind, of in self.optimizer.state.items():
                if (value := tensors.get(f"{kind}.{name}")) is not None:
                    like = parameter if value.ndim == parameter.ndim else value.to(parameter.device)
                    of[parameter] = torch.empty_like(like).copy_(value)
        if self.average is not None:
            self.average.load_state_dict(_below("average.", tensors))
        self.history = history


class WarmedAverage(AveragedModel):
    """Exponential moving average of the weights whose decay grows with the number n of updates: (1 + n) / (10 + n).

    It stops at `decay`. Without that a short training would end near its first weights: 0.999 forgets them in thousands
    of steps only. The warm-up is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights after a step into the average; buffers are taken as they are.

        As AveragedModel does it, but that no count is copied to a GPU, for which the host would wait.
        """
        updates = int(self.n_averaged)  # which stays on the CPU
        decay = min(self._decay, (1 + updates) / (10 + updates)) if updates else 0.0
        weights, new_weights = list[Tensor](self.module.parameters()), list[Tensor](model.parameters())
        get_ema_multi_avg_fn(decay)(weights, new_weights, updates)
        for own, new in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(new)
        self.n_averaged += 1


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
