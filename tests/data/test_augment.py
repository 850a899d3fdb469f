import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bat_dist.data.augment import CropFlip, crop_flip, draw_crop_flip, to_float


def crop_flip_one_by_one(images, draws, padding):
    cut = []
    for image, (row, column), flip in zip(images.numpy(), draws.corners.tolist(), draws.flips.tolist(), strict=True):
        height, width = image.shape[:2]
        window = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        window = window[row : row + height, column : column + width]
        cut.append(window[:, ::-1] if flip else window)
    return torch.from_numpy(np.stack(cut))


def random_images(count, height, width):
    return torch.randint(1, 256, (count, height, width, 3), dtype=torch.uint8)


@given(
    count=st.integers(1, 9),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 4),
    flip=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_naive_one(count, height, width, padding, flip, seed):
    images = random_images(count, height, width)
    before = images.clone()
    draws = draw_crop_flip(count, padding=padding, flip=flip, generator=torch.Generator().manual_seed(seed))
    expected = crop_flip_one_by_one(images, draws, padding)
    assert torch.equal(crop_flip(images, draws, padding=padding), expected)
    assert torch.equal(images, before)


@pytest.mark.parametrize("flip", [False, True])
def test_every_window_of_a_rectangular_image(flip):
    padding = 2
    corners = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    draws = CropFlip(corners, torch.full((25,), flip))
    images = random_images(1, 4, 6).expand(25, -1, -1, -1)
    assert torch.equal(crop_flip(images, draws, padding=padding), crop_flip_one_by_one(images, draws, padding))


def test_the_middle_window_is_the_image_and_the_corner_brings_zeros():
    images = random_images(2, 4, 4)
    draws = CropFlip(torch.tensor([[1, 1], [0, 0]]), torch.tensor([False, False]))
    middle, corner = crop_flip(images, draws, padding=1)
    assert torch.equal(middle, images[0])
    assert torch.equal(corner[1:, 1:], images[1, :3, :3])
    assert not corner[0].any()
    assert not corner[:, 0].any()


def test_corners_and_flips_are_uniform_and_independent():
    draws = draw_crop_flip(162_000, padding=4, flip=True, generator=torch.Generator().manual_seed(0))
    row, column = draws.corners.unbind(1)
    outcome = (row * 9 + column) * 2 + draws.flips
    counts = torch.bincount(outcome, minlength=162)
    assert len(counts) == 9 * 9 * 2
    assert 0.001 < chisquare(counts.numpy()).pvalue < 0.999


def test_without_flip_nothing_is_mirrored_and_crops_are_the_same():
    with_flip, without = (
        draw_crop_flip(100, padding=4, flip=flip, generator=torch.Generator().manual_seed(0)) for flip in (True, False)
    )
    assert with_flip.flips.any()
    assert not without.flips.any()
    assert torch.equal(with_flip.corners, without.corners)


def test_to_float_is_the_byte_over_255():
    every_byte = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).view(16, 4, 4, 3)
    images = to_float(every_byte)
    assert images.dtype == torch.float32
    assert images.shape == (16, 3, 4, 4)
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = every_byte.permute(0, 3, 1, 2).numpy().astype(np.float32) / np.float32(255)
    assert np.array_equal(images.numpy(), expected)
    assert images.min() == 0
    assert images.max() == 1
