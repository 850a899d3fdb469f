"""TRAK's features of one network, by the parts of the authors' library `traker`.

Park et al. (2023), arXiv:2303.14186: the gradient of each sample's margin log p / (1 - p) by all weights, projected to
`dim` random directions.  `trak.TRAKer` itself writes each step to files and configures the root logger; the gradients,
the projection and the inverse are the same classes here, without either.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from bat_dist.attacks.numerics import numerics
from bat_dist.data.loaders import Loader

DIM = 512  # of projected gradients; fewer for few samples, see `projected_dim`
RIDGE = 1e-6  # of the mean of Phi^T Phi's diagonal, added to it: networks with fewer weights than `dim` have no inverse
_GRADIENTS = 2**26  # values in memory at a time: 256 MiB
# Values in memory at a time: 1 GiB. A larger projection is drawn anew for each batch, which takes most of the time.
_PROJECTION = 2**28


def projected_dim(num_train: int) -> int:
    """How many directions gradients are projected to: 512, but at most a quarter of the training samples.

    Phi^T Phi could not be inverted with more directions than samples, and is noise with nearly as many.
    """
    return max(1, min(DIM, num_train // 4))


def trak_row(
    network: nn.Module, train_loader: Loader, test_loader: Loader, *, dim: int, member: int
) -> dict[str, Float32[np.ndarray, "..."]]:
    """The fields of one network for an ensemble's store; in fp32, eval mode, images without augmentation.

    `trak_features` [train, dim], `trak_test_gradients` [test, dim], `trak_out_to_loss` and `trak_leverage` [train]: see
    `memorization.attribution`.  member: decides the projection, which TRAK draws anew for each network.
    """
    from trak.score_computers import BasicScoreComputer  # of the extra `attribution`

    network.eval()
    with numerics("fp32"):
        train, out_to_loss = _projected(network, train_loader, dim, member)
        test, _ = _projected(network, test_loader, dim, member)
        computer = BasicScoreComputer(dtype=torch.float32, device=train.device)
        gram = computer.get_xtx(train)
        computer.lambda_reg = RIDGE * float(gram.diagonal().mean())
        features = computer.get_x_xtx_inv(train, gram)
    return {
        "trak_features": features.cpu().numpy(),
        "trak_test_gradients": test.cpu().numpy(),
        "trak_out_to_loss": out_to_loss.cpu().numpy(),
        "trak_leverage": (train * features).sum(dim=1).cpu().numpy(),
    }


def _projected(network: nn.Module, loader: Loader, dim: int, member: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Projected gradients [samples, dim] and 1 - p [samples] of a split, in its order, on the network's device."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.modelout_functions import ImageClassificationModelOutput
    from trak.projectors import BasicProjector, ProjectionType

    device = next(network.parameters()).device
    size = sum(weight.numel() for weight in network.parameters())
    computer = FunctionalGradientComputer(network, ImageClassificationModelOutput(), size, torch.float32, device)
    projector = BasicProjector(
        size, dim, 0, ProjectionType("normal"), device, block_size=max(1, _PROJECTION // size), model_id=member
    )
    gradients, losses, places = [], [], []
    for images, labels, indices in loader.eval_epoch(batch_size=max(1, min(256, _GRADIENTS // size))):
        of_samples = computer.compute_per_sample_grad((images, labels))
        flat = torch.cat([one.detach().flatten(start_dim=1) for one in of_samples.values()], dim=1)
        gradients.append(projector.project(flat, model_id=member) / size**0.5)
        losses.append(computer.compute_loss_grad((images, labels)).flatten())
        places.append(indices.to(device))
    order = torch.cat(places).argsort()
    return torch.cat(gradients)[order], torch.cat(losses)[order]
