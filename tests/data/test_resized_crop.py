"""Random-resized crops: torchvision's windows and torchvision's pixels, in any division into batches."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2.functional import resized_crop as torchvision_resized_crop

from bat_dist.data import resized_crop as module
from bat_dist.data.augment import CropFlip
from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.data.resized_crop import draw_resized_crops, resized_crop

SHAPE = (13, 19)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(256, (count, height, width, 3), dtype=torch.uint8, generator=seeded(1))


def drawn(count: int, height: int, width: int, *, scale: float = 0.08, flip: bool = True, seed: int = 0) -> CropFlip:
    return draw_resized_crops(count, (height, width), min_scale=scale, flip=flip, generator=seeded(seed))


def windows(draws: CropFlip) -> list[list[int]]:
    """[top, left, height, width] of each."""
    assert draws.sizes is not None
    return torch.cat([draws.corners, draws.sizes], dim=1).tolist()


def one_by_one(images: torch.Tensor, draws: CropFlip, shape: tuple[int, int]) -> torch.Tensor:
    """torchvision's pixels in float32: cropped, resized with antialiasing, then mirrored."""
    done = []
    for image, window, flip in zip(images, windows(draws), draws.flips.tolist(), strict=True):
        planes = image.permute(2, 0, 1).float()
        one = torchvision_resized_crop(planes, *window, size=list(shape), antialias=True).permute(1, 2, 0)
        done.append(one.flip(1) if flip else one)
    return torch.stack(done)


@pytest.mark.parametrize(
    ("image_shape", "shape"),
    [
        ((8, 8), (8, 8)),
        ((64, 64), (64, 64)),
        ((31, 17), (31, 17)),
        ((1, 5), (1, 5)),
        ((73, 73), (64, 64)),  # the largest windows are made smaller, which antialiasing shows
        ((100, 64), (30, 48)),
        ((16, 16), (7, 40)),
        ((5, 5), (1, 1)),
    ],
)
def test_pixels_are_torchvisions(image_shape: tuple[int, int], shape: tuple[int, int]) -> None:
    images, draws = random_images(40, *image_shape), drawn(40, *image_shape)
    images_before = images.clone()
    expected = one_by_one(images, draws, shape)
    found = resized_crop(images, draws, shape=shape)
    assert found.dtype == torch.uint8
    assert (found - expected).abs().max() <= 0.5 + 1e-3
    is_clear = ((expected - expected.floor()) - 0.5).abs() > 1e-3  # where an error of 0.001 cannot change the rounding
    assert is_clear.float().mean() > 0.9
    assert torch.equal(found[is_clear].float(), expected[is_clear].round())
    assert torch.equal(images, images_before)


def test_the_whole_image_is_itself_and_its_mirror_image() -> None:
    images = random_images(2, 37, 23)
    whole = CropFlip(torch.zeros(2, 2, dtype=torch.int64), torch.tensor([False, True]), torch.tensor([[37, 23]] * 2))
    found = resized_crop(images, whole, shape=(37, 23))
    assert torch.equal(found[0], images[0])
    assert torch.equal(found[1], images[1].flip(1))


# --- windows


def distribution_of_area(area: np.ndarray, low: float) -> np.ndarray:
    """P(area <= a) of windows that fit into a square: the density is min(1, log(1 / a) / log(4 / 3)) between low and 1.

    A window of area a and ratio r fits if a * r and a / r are at most 1, that is, if |log r| <= log(1 / a).
    """
    edge, bound = 3 / 4, math.log(4 / 3)
    below = np.minimum(area, edge) - low
    above = np.maximum(area, edge)
    of_log = (above * (1 - np.log(above)) - edge * (1 - math.log(edge))) / bound  # integral of log(1 / a) from edge on
    whole = edge - low + (1 - edge * (1 - math.log(edge))) / bound
    return (below + of_log) / whole


def test_windows_have_the_distributions_that_they_must_have() -> None:
    """In an image so large that rounding to pixels does not show."""
    size, low = 20_000, 0.08
    draws = drawn(20_000, size, size, scale=low)
    assert draws.sizes is not None
    (height, width), (top, left) = draws.sizes.double().numpy().T, draws.corners.numpy().T
    area, log_ratio = height * width / size**2, np.log(width / height)
    assert area.min() > low - 1e-3
    assert np.abs(log_ratio).max() < math.log(4 / 3) + 1e-3
    assert kstest(area.clip(low, 1), lambda values: distribution_of_area(values, low)).pvalue > 0.01
    bound = math.log(4 / 3)
    assert kstest(log_ratio[area < 3 / 4], "uniform", (-bound, 2 * bound)).pvalue > 0.01
    across, down = (left + 0.5) / (size - width + 1), (top + 0.5) / (size - height + 1)
    assert kstest(across, "uniform").pvalue > 0.01
    assert kstest(down, "uniform").pvalue > 0.01
    for one, other in ((across, down), (across, area), (down, log_ratio), (area, log_ratio)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


@pytest.mark.parametrize(("height", "width", "low"), [(32, 32, 0.08), (8, 8, 0.3), (20, 40, 0.5)])
def test_windows_are_distributed_as_torchvisions(height: int, width: int, low: float) -> None:
    number, image = 3000, torch.zeros(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = [RandomResizedCrop.get_params(image, [low, 1.0], [3 / 4, 4 / 3]) for _ in range(number)]
    found = windows(drawn(number, height, width, scale=low))
    for ours, theirs in zip(np.array(found).T, np.array(reference).T, strict=True):
        assert kstest(ours, theirs, method="asymp").pvalue > 0.01


@pytest.mark.parametrize(("height", "width"), [(7, 7), (1, 50), (50, 1), (3, 40), (40, 20)])
def test_what_never_fits_is_the_largest_window_in_the_middle(height: int, width: int) -> None:
    """Of an area of all, only the image itself fits, and not that if its shape is not allowed."""
    expected = RandomResizedCrop.get_params(torch.zeros(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
    assert {tuple(window) for window in windows(drawn(50, height, width, scale=1))} == {expected}


def test_windows_lie_within_the_image_and_have_pixels() -> None:
    for height, width, scale in ((1, 1, 0.01), (2, 2, 0.001), (9, 5, 0.01)):
        for top, left, tall, wide in windows(drawn(300, height, width, scale=scale)):
            assert 0 <= top < top + tall <= height
            assert 0 <= left < left + wide <= width


def test_half_of_the_windows_are_mirrored_or_none_and_they_are_the_same() -> None:
    with_flip, without = (drawn(2000, 32, 32, flip=flip) for flip in (True, False))
    assert 900 < int(with_flip.flips.sum()) < 1100
    assert not without.flips.any()
    assert windows(with_flip) == windows(without)


# --- the same bits however it is computed


def test_the_division_into_batches_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    images, draws = random_images(33, 31, 17), drawn(33, 31, 17)
    whole = resized_crop(images, draws, shape=SHAPE)
    parts = [resized_crop(images[at : at + 7], draws.part(slice(at, at + 7)), shape=SHAPE) for at in range(0, 33, 7)]
    assert torch.equal(torch.cat(parts), whole)
    monkeypatch.setattr(module, "SCRATCH_BYTES", 20_000)
    assert torch.equal(resized_crop(images, draws, shape=SHAPE), whole)


def test_autocast_changes_no_bit() -> None:
    images, draws = random_images(8, 32, 32), drawn(8, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = resized_crop(images, draws, shape=SHAPE)
    assert torch.equal(under_autocast, resized_crop(images, draws, shape=SHAPE))


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest floating-point tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.bytes = max(self.bytes, made.nbytes)
        return made


def test_scratch_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    images, draws = random_images(64, 32, 32), drawn(64, 32, 32)
    monkeypatch.setattr(module, "SCRATCH_BYTES", 100_000)
    with LargestTensor() as largest:
        resized_crop(images, draws, shape=SHAPE)
    assert 50_000 < largest.bytes <= 100_000


@pytest.mark.parametrize("crop_size", [None, 12])
def test_a_loader_crops_in_training_alone_and_by_its_generator(crop_size: int | None) -> None:
    images = random_images(12, 16, 16).numpy()
    loader = MemoryLoader(images, np.arange(12), crop_padding=0, flip=True, crop_scale=0.2, crop_size=crop_size)
    stored = next(loader.eval_epoch(batch_size=12)).images
    assert torch.equal(stored, torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    (batch,) = loader.train_epoch(range(12), batch_size=12, generator=seeded(3))
    generator = seeded(3)
    order = torch.randperm(12, generator=generator)
    draws = draw_resized_crops(12, (16, 16), min_scale=0.2, flip=True, generator=generator)
    side = crop_size or 16
    expected = resized_crop(torch.from_numpy(images)[order], draws, shape=(side, side))
    assert torch.equal(batch.indices, order)
    assert torch.equal(batch.images, expected.permute(0, 3, 1, 2) / 255)
