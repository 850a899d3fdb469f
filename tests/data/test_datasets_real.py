"""The real images, where they lie beside the repository."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bat_dist.data.datasets import Dataset, load_dataset

DATA = Path(__file__).parents[2].parent / "shared" / "data"
CIFAR_ZIP, TINY_ZIP = DATA / "cifar10-images.zip", DATA / "tiny-imagenet-50.zip"
needs_cifar = pytest.mark.skipif(not CIFAR_ZIP.exists(), reason=f"no real images at {CIFAR_ZIP}")
needs_tiny = pytest.mark.skipif(not TINY_ZIP.exists(), reason=f"no real images at {TINY_ZIP}")


@pytest.fixture
def opened(monkeypatch) -> list[int]:
    """Grows by one with every image that Pillow opens."""
    calls: list[int] = []
    real_open = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: calls.append(1) or real_open(*a, **k))
    return calls


def assert_as_stored(dataset: Dataset, path: Path, top: str, test_name: str) -> None:
    with zipfile.ZipFile(path) as handle:
        for folder, split in (("train", dataset.train), (test_name, dataset.test)):
            for position in np.linspace(0, len(split) - 1, 20).astype(int):
                with handle.open(f"{top}/{folder}/{split.ids[position]}") as file, Image.open(file) as image:
                    np.testing.assert_array_equal(split.images[position], np.asarray(image.convert("RGB")))


@needs_cifar
def test_real_cifar10_images(opened):
    dataset = load_dataset("image_folder", data_dir=CIFAR_ZIP, num_train=500, num_test=200)
    assert len(opened) == 700  # of 60,000
    assert dataset.train.images.shape == (500, 32, 32, 3)
    assert dataset.class_names[0] == "airplane"
    assert dataset.class_names[9] == "truck"
    assert_as_stored(dataset, CIFAR_ZIP, "cifar10", "test")


@needs_cifar
def test_real_cifar10_file_names_are_original_indices():
    """The labels of the first ten training images are the published ones; a class is in order of index."""
    dataset = load_dataset("image_folder", data_dir=CIFAR_ZIP, num_train=500, num_test=10)
    label_of = {int(i.split("/")[1].removesuffix(".jpg")): i.split("/")[0] for i in dataset.train.ids}
    published = ["frog", "truck", "truck", "deer", "automobile", "automobile", "bird", "horse", "ship", "cat"]
    assert [label_of[index] for index in range(10)] == published
    for label in range(10):
        ids = dataset.train.ids[dataset.train.labels == label]
        assert list(ids) == sorted(ids)
        assert len(ids) == 50


@needs_tiny
def test_real_tiny_imagenet(opened):
    dataset = load_dataset("tiny_imagenet", data_dir=TINY_ZIP, num_train=250, num_test=100)
    assert len(opened) == 350  # of 27,500
    assert dataset.train.images.shape == (250, 64, 64, 3)
    assert dataset.spec.num_classes == len(dataset.class_names) == 50
    assert dataset.class_names[0] == "goldfish, Carassius auratus"
    wnids = [sample_id.split("/")[0] for sample_id in dataset.train.ids]
    assert wnids == sorted(wnids)
    with zipfile.ZipFile(TINY_ZIP) as handle:
        lines = handle.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
    annotated = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    wnid_of = sorted(set(wnids))
    for sample_id, label in zip(dataset.test.ids, dataset.test.labels, strict=True):
        assert annotated[sample_id.removeprefix("images/")] == wnid_of[label]
    assert_as_stored(dataset, TINY_ZIP, "tiny-imagenet-200", "val")
