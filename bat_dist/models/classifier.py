"""The frame around every architecture: normalize, body, linear head."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bat_dist.models.normalization import Normalize

Logits = Float[Tensor, "batch classes"]
Features = Float[Tensor, "batch width"]


class ImageClassifier(nn.Module):
    """logits = head(body(normalize(images))).

    `body` turns normalized images into features [batch, width], the penultimate layer. Weights are drawn from
    torch's global generator.
    """

    def __init__(
        self, body: nn.Module, width: int, num_classes: int, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.body = body
        self.head = nn.Linear(width, num_classes)
        initialize(self)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], *, with_features: bool = False
    ) -> Logits | tuple[Logits, Features]:
        """Logits of images in [0, 1]; with `with_features` also the input of the head."""
        features = self.body(self.normalize(images))
        logits = self.head(features)
        return (logits, features) if with_features else logits


def initialize(model: nn.Module) -> None:
    """Convolutions N(0, 2 / fan_out) (He et al. 2015, arXiv:1502.01852; as in WRN's code), linear biases 0.

    BatchNorm (1 and 0) and linear weights keep torch's own start.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
