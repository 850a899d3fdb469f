"""A user's file with a network, a method and a data set, and one that it imports."""

from pathlib import Path

SOURCE = '''
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from {helper} import WIDTH


class Net(nn.Module):
    """Dropout, no BatchNorm, a buffer that counts, and `view`, which wants the usual order in memory."""

    def __init__(self, num_classes=7):
        super().__init__()
        self.head = nn.Linear(16, num_classes)  # declared first, used last
        self.conv = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.hidden = nn.Linear(WIDTH * 64, 16)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.steps += 1
        x = functional.relu(self.conv(x))
        return self.head(functional.relu(self.hidden(self.drop(x.view(len(x), -1)))))


@dataclass(frozen=True)
class Pairing:
    """Adversarial logit pairing, without a class or a function of the package."""

    LABEL = "Logit pairing"
    weight: float = 0.5
    alpha: float = 1.0

    def loss(self, batch):
        natural, attacked = batch.forward(batch.images), batch.forward(batch.adversarial())
        pairs = (natural - attacked).square().sum(dim=1).mean()
        return self.alpha * functional.cross_entropy(attacked, batch.labels) + self.weight * pairs


class Noisy(Dataset):
    """Ten patterns of 8x8 pixels, in turn, each image with noise of its own."""

    def __init__(self, number, seed):
        patterns = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        noise = torch.rand(number, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.images = 0.6 * patterns[torch.arange(number) % 10] + 0.4 * noise

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 10


def patterns():
    return Noisy(200, seed=1), Noisy(60, seed=2)
'''


def write_parts(folder: Path, helper: str = "width_of_test") -> Path:
    """The file; helper: what the other is called, which must be new in this process, as all modules' names."""
    (folder / f"{helper}.py").write_text("WIDTH = 4\n")
    path = folder / "mine.py"
    path.write_text(SOURCE.replace("{helper}", helper))
    return path
