"""`dataset_of`: data of one's own in any usual form become the same `Dataset`; what is not data is refused."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from bat_dist.data import own
from bat_dist.data.datasets import Dataset, Split, load_dataset
from bat_dist.data.own import dataset_of
from bat_dist.data.table import DatasetError, own_spec
from tests.data.image_trees import CLASSES, image_tree, noise, write_folder

LABELS = [0, 1, 2] * 6
LABELS_ARRAY = np.array(LABELS)
IMAGES = np.stack([noise(seed) for seed in range(len(LABELS))])
TEST = (np.stack([noise(seed) for seed in range(100, 106)]), np.array(LABELS[:6]))

Samples = list[tuple[Any, Any]]


def samples(form: Callable[[np.ndarray], Any] = Image.fromarray, label: Callable[[int], Any] = int) -> Samples:
    """The images in a form, with their labels."""
    return [(form(image), label(one)) for image, one in zip(IMAGES, LABELS, strict=True)]


def refused(train: Any, match: str, test: Any = TEST, **settings: Any) -> None:
    with pytest.raises(DatasetError, match=match) as caught:
        dataset_of(train, test, name="mine", **settings)
    assert "\n" not in str(caught.value)


# --- what is read


def chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


@pytest.mark.parametrize(
    "train",
    [
        (IMAGES, np.array(LABELS)),
        (torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.tensor(LABELS)),
        TensorDataset(torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255, torch.tensor(LABELS)),
        samples(),
        samples(np.asarray, np.int8),
        samples(chw, torch.tensor),
        samples(lambda image: chw(image) / 255, lambda label: np.array([label])),
        samples(lambda image: image.astype(np.float64) / 255),
    ],
    ids=["arrays", "tensors", "TensorDataset", "PIL", "arrays of one", "tensors of one", "floats", "float64"],
)
def test_every_form_gives_the_pixels_and_labels(train: Any) -> None:
    dataset = dataset_of(train, TEST, name="mine")
    np.testing.assert_array_equal(dataset.train.images, IMAGES)
    np.testing.assert_array_equal(dataset.train.labels, LABELS)
    np.testing.assert_array_equal(dataset.test.images, TEST[0])
    assert dataset.train.ids.tolist() == [str(position) for position in range(len(LABELS))]
    assert (dataset.name, dataset.class_names) == ("mine", ("0", "1", "2"))
    assert (dataset.spec.name, dataset.spec.num_classes, dataset.spec.image_size) == ("mine", 3, 4)
    assert (dataset.spec.epsilon, dataset.spec.mean) == (8 / 255, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "form",
    [
        lambda grey: Image.fromarray(grey, "L"),
        lambda grey: grey,
        lambda grey: grey[..., None],
        lambda grey: torch.from_numpy(grey)[None],
        lambda grey: torch.from_numpy(grey).double() / 255,
    ],
)
def test_grey_images_are_replicated(form: Callable[[np.ndarray], Any]) -> None:
    dataset = dataset_of(samples(lambda image: form(image[..., 0].copy())), TEST, name="mine")
    np.testing.assert_array_equal(dataset.train.images, np.repeat(IMAGES[..., :1], 3, axis=3))


def test_the_data_of_the_table_have_their_fingerprint() -> None:
    digits = load_dataset("digits", num_train=100, num_test=50)
    ours = dataset_of(
        (digits.train.images, digits.train.labels), (digits.test.images, digits.test.labels), name="my_digits"
    )
    assert ours.fingerprint == digits.fingerprint
    again = dataset_of(digits, name="my_digits", num_train=50)
    assert again.fingerprint == load_dataset("digits", num_train=50, num_test=50).fingerprint
    assert again.train.ids.tolist() == load_dataset("digits", num_train=50).train.ids.tolist()


def test_an_image_folder_of_torchvision_is_ours(tmp_path: Path) -> None:
    write_folder(image_tree(), tmp_path)
    theirs = dataset_of(ImageFolder(str(tmp_path / "train")), ImageFolder(str(tmp_path / "test")), name="mine")
    ours = load_dataset("image_folder", data_dir=tmp_path)
    assert theirs.fingerprint == ours.fingerprint
    assert theirs.class_names == ours.class_names == CLASSES
    assert theirs.train.ids.tolist() == ours.train.ids.tolist()


def test_a_share_of_an_image_folder_is_held_out_as_ours(tmp_path: Path) -> None:
    write_folder(image_tree(), tmp_path)
    theirs = dataset_of(ImageFolder(str(tmp_path / "train")), name="mine", test_share=0.25)
    shutil.rmtree(tmp_path / "test")
    ours = load_dataset("image_folder", data_dir=tmp_path, test_share=0.25)
    assert theirs.fingerprint == ours.fingerprint
    assert theirs.test.ids.tolist() == ours.test.ids.tolist()


def test_a_fifth_of_each_class_is_held_out_where_nobody_says() -> None:
    dataset = dataset_of((IMAGES, LABELS_ARRAY), name="mine")
    assert np.bincount(dataset.train.labels).tolist() == [5, 5, 5]
    assert np.bincount(dataset.test.labels).tolist() == [1, 1, 1]


def test_a_subset_has_the_positions_and_files_of_the_whole(tmp_path: Path) -> None:
    write_folder(image_tree(), tmp_path)
    whole = ImageFolder(str(tmp_path / "train"))
    part = Subset(Subset(whole, [11, 0, 4, 7]), [3, 1, 0])  # bee/3, ant/0, cat/3
    dataset = dataset_of(part, ImageFolder(str(tmp_path / "test")), name="mine", num_classes=3)
    assert dataset.train.ids.tolist() == ["bee/3.png", "ant/0.png", "cat/3.png"]
    assert dataset.train.labels.tolist() == [1, 0, 2]
    np.testing.assert_array_equal(dataset.train.images[0], np.asarray(whole[7][0]))


def test_samples_are_chosen_as_of_any_dataset_and_no_other_is_decoded() -> None:
    read: list[int] = []

    class Watched:
        targets = LABELS

        def __len__(self) -> int:
            return len(LABELS)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            read.append(index)
            return IMAGES[index], LABELS[index]

    dataset = dataset_of(Watched(), TEST, name="mine", num_train=4, num_classes=2)
    assert dataset.train.ids.tolist() == ["0", "1", "3", "4"]
    assert set(read[-4:]) == {0, 1, 3, 4}
    assert len(read) <= 2 * own.PROBED + 1 + 4


def test_labels_that_the_transform_of_the_data_changes_are_those_that_are_read() -> None:
    class Turned:
        targets = LABELS

        def __len__(self) -> int:
            return len(LABELS)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return IMAGES[index], 2 - LABELS[index]

    assert dataset_of(Turned(), TEST, name="mine").train.labels.tolist() == [2 - label for label in LABELS]


def test_images_are_resized_where_that_is_asked_for() -> None:
    mixed = samples()
    mixed[3] = (Image.fromarray(noise(3, width=6, height=8)), 0)
    refused(mixed, "sample 3 of the training set of mine is 6x8 .*give image_size")
    dataset = dataset_of(mixed, TEST, name="mine", image_size=5)
    assert dataset.train.images.shape == (18, 5, 5, 3)
    expected = np.asarray(mixed[3][0].resize((5, 5), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(dataset.train.images[3], expected)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_images_of_a_dataset_become_squares(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, *shape, 3), dtype=np.uint8)
    split = Split(images, np.arange(8) % 2, np.arange(8).astype(np.str_))
    wide = Dataset("wide", split, split, ("a", "b"), "", own_spec("wide"))
    resized = dataset_of(wide, name="wide", image_size=6)
    expected = dataset_of((images, split.labels), (images, split.labels), name="wide", image_size=6)
    assert resized.train.images.shape == (8, 6, 6, 3)
    assert np.array_equal(resized.train.images, expected.train.images)
    with pytest.raises(DatasetError, match=f"image 0 is {shape[1]}x{shape[0]}, not square: give image_size"):
        dataset_of(wide, name="wide")


def test_class_names_are_those_given() -> None:
    assert dataset_of(samples(), TEST, name="mine", class_names=["x", "y", "z"]).class_names == ("x", "y", "z")


# --- what is refused


class OfOnes(IterableDataset):
    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return iter(samples())


@pytest.mark.parametrize("train", [(one for one in samples()), OfOnes(), None, 3, object()])
def test_what_has_no_length_is_refused(train: Any) -> None:
    refused(train, "the training set of mine must have a length and give .image, label. by position")


def test_nothing_is_refused() -> None:
    refused([], "the training set of mine is empty")


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([0, 2, 2] * 6, "has no sample of class 1, and labels go up to 2: number the classes 0, 1, 2, ... without"),
        ([1, 2, 3] * 6, "has no sample of class 0, and labels go up to 3"),
        ([0, 1, 2**40] * 6, "has no sample of class 2, and labels go up to"),
        ([0, 1, -1] * 6, "the label of sample 2 of the training set of mine must be at least 0, got -1"),
        ([0, 1, 2.0] * 6, r"the label of sample 2 .* must be a whole number, that of its class, got 2.0"),
        ([0, 1, "cat"] * 6, "the label of sample 2 .* must be a whole number, that of its class, got 'cat'"),
        ([0, 1, np.eye(3)[2]] * 6, r"the label of sample 2 .* got ndarray of shape \(3,\)"),
    ],
)
def test_labels_that_are_no_numbers_of_classes(labels: list[Any], match: str) -> None:
    refused([(image, label) for image, label in zip(IMAGES, labels, strict=True)], match)


def test_labels_beyond_the_class_names() -> None:
    refused(samples(), "labels must be from 0 to 1, since there are 2 class names, got 2", class_names=["x", "y"])


def test_splits_of_other_classes(tmp_path: Path) -> None:
    tree = image_tree()
    write_folder({name: data for name, data in tree.items() if "test/ant" not in name}, tmp_path)
    test = ImageFolder(str(tmp_path / "test"))
    refused(ImageFolder(str(tmp_path / "train")), r"the classes .* differ \(ant, bee, cat and bee, cat\)", test)


@pytest.mark.parametrize(
    ("form", "match"),
    [
        (
            lambda image: (chw(image) / 255 - 0.5) / 0.25,
            "has values from .* to .*, and floats must be in .0, 1.: leave",
        ),
        (lambda image: image.astype(np.float32), "floats must be in .0, 1.: .* or divide by 255"),
        (lambda image: np.full((4, 4, 3), np.nan), "has values from nan to nan"),
        (lambda image: image.astype(np.int64), "got values of type int64: convert them to uint8"),
        (lambda image: np.zeros((4, 4, 2), np.uint8), r"got an array of shape \(4, 4, 2\)"),
        (lambda image: np.zeros((0, 4, 3), np.uint8), r"got an array of shape \(0, 4, 3\)"),
        (lambda image: "a.png", "must be a PIL image, .*, got str"),
        (lambda image: Image.fromarray(image[..., 0].astype(np.int32), "I"), "its pixels are of mode I, not 8 bit"),
        (lambda image: image[:3], r"sample 0 of the training set of mine is 4x3, not square: give image_size"),
    ],
)
def test_images_of_no_form(form: Callable[[np.ndarray], Any], match: str) -> None:
    refused(samples(form), match)


@pytest.mark.parametrize(
    ("sample", "match"),
    [
        ({"image": IMAGES[0], "label": 0}, "sample 0 .* must be a pair .image, label., got dict"),
        ((IMAGES[0], 0, "id"), "sample 0 .* must be a pair .image, label., got 3 values"),
    ],
)
def test_samples_that_are_no_pairs(sample: Any, match: str) -> None:
    refused([sample] * 3, match)


def test_images_and_labels_of_other_numbers() -> None:
    refused((IMAGES, LABELS_ARRAY[:-1]), "must have as many labels as images, got 17 and 18")


def test_random_transforms_are_refused() -> None:
    rng = np.random.default_rng(0)

    class Flipped(list[Any]):
        def __getitem__(self, index: Any) -> tuple[np.ndarray, int]:
            return IMAGES[index][:, :: rng.choice([-1, 1])], LABELS[index]

    refused(Flipped(samples()), "is another one each time that it is read: take what is random .crops, flips, noise.")


def test_a_data_set_that_shrinks() -> None:
    class Shrinking(list[Any]):
        reads = 0

        def __getitem__(self, index: Any) -> Any:
            self.reads += 1
            if self.reads > 2 * own.PROBED and index > 9:
                raise IndexError("list index out of range")
            return super().__getitem__(index)

    refused(Shrinking(samples()), "sample 10 .* cannot be read: IndexError: list index out of range; its length is 18")


def test_labels_that_change() -> None:
    class Drifting(list[Any]):
        reads = 0

        def __getitem__(self, index: Any) -> Any:
            self.reads += 1
            image, label = super().__getitem__(index)
            return image, (label + (self.reads > 2 * own.PROBED + len(LABELS) + 1)) % 3

    refused(Drifting(samples()), "the label of sample 0 .* is 1 now and 0 before")


@pytest.mark.parametrize(
    ("name", "match"),
    [("digits", "'digits' is a dataset of bat_dist: call data of your own by another name"), ("a b", "must be of")],
)
def test_names(name: str, match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        dataset_of(samples(), TEST, name=name)


def test_a_share_of_data_that_have_a_test_set() -> None:
    refused(samples(), "mine has a test set of its own: leave test_share out", test_share=0.5)
    refused(samples(), r"test_share must be in \(0, 1\), got 1.5", None, test_share=1.5)


def test_the_reading_of_many_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(own, "SECONDS_BETWEEN_LINES", -1.0)
    with caplog.at_level("INFO"):
        dataset_of(samples(), TEST, name="mine")
    assert "the training set of mine: 17 of 18 samples read" in caplog.messages
