import dataclasses
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bat_dist.data.datasets import Dataset, Split, fingerprint, load_dataset
from bat_dist.data.table import DATASETS, DatasetError, check_dataset
from tests.data.image_trees import CLASSES, image_tree, noise, png, seed_of, tiny_tree, write_folder, write_zip


def assert_same(first: Dataset, second: Dataset) -> None:
    assert first.fingerprint == second.fingerprint
    assert (first.class_names, first.spec) == (second.class_names, second.spec)
    for one, other in ((first.train, second.train), (first.test, second.test)):
        for field in dataclasses.fields(Split):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


# --- the table


@pytest.mark.parametrize(
    ("name", "num_classes", "image_size", "epsilon", "crop_padding", "flip"),
    [
        ("digits", 10, 8, 16 / 255, 1, False),
        ("cifar10", 10, 32, 8 / 255, 4, True),
        ("cifar100", 100, 32, 8 / 255, 4, True),
        ("tiny_imagenet", 50, 64, 4 / 255, 4, True),
        ("image_folder", None, None, 8 / 255, 4, True),
    ],
)
def test_the_name_is_the_one_dial(name, num_classes, image_size, epsilon, crop_padding, flip):
    spec = check_dataset(name)
    assert (spec.name, spec.num_classes, spec.image_size) == (name, num_classes, image_size)
    assert (spec.epsilon, spec.crop_padding, spec.flip) == (epsilon, crop_padding, flip)
    assert spec.step_size == pytest.approx(epsilon / 4)
    assert all(0 < value < 1 for value in spec.mean + spec.std)


@pytest.mark.parametrize(
    ("name", "image_size", "crop_padding"),
    [
        *(("image_folder", 8, 1), ("image_folder", 28, 4), ("image_folder", 32, 4), ("image_folder", 64, 8)),
        *(("image_folder", 3, 0), ("cifar10", 32, 4), ("cifar10", 16, 2), ("tiny_imagenet", 64, 4), ("digits", 8, 1)),
    ],
)
def test_the_padding_is_in_proportion_to_the_image(name: str, image_size: int, crop_padding: int) -> None:
    assert check_dataset(name).of_size(10, image_size).crop_padding == crop_padding


def test_only_augmentation_that_is_not_the_tables_is_told_apart() -> None:
    assert check_dataset("image_folder").of_size(10, 32).own_augmentation == {}
    assert check_dataset("image_folder").of_size(10, 8).own_augmentation == {"crop_padding": 1}
    digits = load_dataset("digits", num_train=10, num_test=10)
    assert digits.augmented(None, None).spec == digits.spec
    assert digits.augmented(0, True).spec.own_augmentation == {"crop_padding": 0, "flip": True}
    with pytest.raises(DatasetError, match="crop_padding must be less than the 8 pixels of an image, got 8"):
        digits.augmented(8, None)
    for crop_padding in (None, 0):
        resized = digits.augmented(crop_padding, None, 0.1).spec
        assert (resized.crop_padding, resized.crop_scale) == (0, 0.1)
        assert resized.own_augmentation == {"crop_scale": 0.1}
    smaller = digits.augmented(crop_scale=0.1, crop_size=6)
    assert smaller.spec.own_augmentation == {"crop_scale": 0.1, "crop_size": 6}
    assert smaller.spec.image_size == 8
    assert digits.augmented(crop_scale=0.1, crop_size=8).spec.own_augmentation == {"crop_scale": 0.1}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"crop_padding": 1, "crop_scale": 0.1}, "crop_scale 0.1 crops without zeros .* got crop_padding 1 too"),
        ({"crop_scale": 0.0}, r"crop_scale must be in \(0, 1\], got 0.0"),
        ({"crop_scale": 1.5}, r"crop_scale must be in \(0, 1\], got 1.5"),
        ({"crop_size": 6}, "crop_size 6 is the size of random-resized crops: give crop_scale too"),
        ({"crop_scale": 0.1, "crop_size": 9}, r"crop_size must be in \[1, 8\], the pixels of an image, got 9"),
        ({"crop_scale": 0.1, "crop_size": 0}, r"crop_size must be in \[1, 8\], the pixels of an image, got 0"),
    ],
)
def test_crops_that_cannot_be(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset("digits", num_train=10, num_test=10).augmented(**asked)


@pytest.mark.parametrize(
    ("names", "grey", "mirrored"),
    [("0 1", True, False), ("a b", True, False), ("0 1", False, True), ("cat dog", True, True), ("_ -", True, True)],
)
def test_characters_are_not_mirrored(names: str, grey: bool, mirrored: bool, tmp_path, caplog) -> None:
    tree = {}
    for seed, name in enumerate(names.split()):
        pixels = noise(seed)
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2) if grey else pixels
        tree |= {f"{split}/{name}/0.png": png(pixels) for split in ("train", "test")}
    with caplog.at_level("INFO"):
        spec = load_dataset("image_folder", data_dir=write_folder(tree, tmp_path)).spec
    assert spec.flip == mirrored
    assert ("--flip" in caplog.text) == (not mirrored)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("cifar-10", "cifar10"),
        ("CIFAR100", "cifar100"),
        ("TinyImageNet", "tiny_imagenet"),
        ("digit", "digits"),
        ("", "'"),
        ("images", "image_folder"),
    ],
)
def test_unknown_name_gets_the_nearest_valid_one(typed, nearest):
    with pytest.raises(DatasetError, match=rf"did you mean '.*{nearest}.* The datasets are {', '.join(DATASETS)}"):
        check_dataset(typed)


def test_table_loads_no_numpy_torch_or_pillow():
    code = "import sys, bat_dist.data.table; print([m for m in ('numpy', 'torch', 'PIL') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_opening_digits_does_not_load_torch():
    code = "import sys, bat_dist.data.datasets as d; d.load_dataset('digits'); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


# --- digits


@pytest.fixture(scope="module")
def sklearns_digits():
    from sklearn.datasets import load_digits  # here, since every test process would wait two seconds for it

    return load_digits()


def test_digits_are_sklearns_pixels_under_its_indices(sklearns_digits):
    dataset, digits = load_dataset("digits"), sklearns_digits
    assert (len(dataset.train), len(dataset.test)) == (1297, 500)
    ids = np.concatenate([dataset.train.ids, dataset.test.ids]).astype(int)
    np.testing.assert_array_equal(np.sort(ids), np.arange(1797))
    for split in (dataset.train, dataset.test):
        at = split.ids.astype(int)
        assert (np.diff(at) > 0).all()
        np.testing.assert_array_equal(split.labels, digits.target[at])
        for channel in range(3):
            np.testing.assert_array_equal(np.rint(split.images[..., channel] / 255 * 16), digits.images[at])
    assert (dataset.train.images.min(), dataset.train.images.max()) == (0, 255)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.spec == DATASETS["digits"]


def test_digits_test_split_is_the_last_50_of_each_class(sklearns_digits):
    dataset, target = load_dataset("digits"), sklearns_digits.target
    for label in range(10):
        expected = [str(i) for i in range(1797) if target[i] == label][-50:]
        assert list(dataset.test.ids[dataset.test.labels == label]) == expected


def test_digits_mean_and_std_are_those_of_the_train_split():
    pixels = load_dataset("digits").train.images[..., 0] / 255
    assert pixels.mean() == pytest.approx(DATASETS["digits"].mean[0], abs=5e-5)
    assert pixels.std() == pytest.approx(DATASETS["digits"].std[0], abs=5e-5)


# --- num_train, num_test, num_classes


def first_of_each_class(labels, count: int, num_classes: int) -> list[int]:
    """The naive reference: walk in order, take while the class has room."""
    room = [count // num_classes] * num_classes
    taken = []
    for position, label in enumerate(labels):
        if label < num_classes and room[label]:
            room[label] -= 1
            taken.append(position)
    return taken


@pytest.mark.parametrize(("num_train", "num_test", "num_classes"), [(10, 10, 10), (500, 500, 10), (42, 9, 3)])
def test_numbers_take_the_first_of_each_class_in_order(num_train, num_test, num_classes):
    whole = load_dataset("digits")
    some = load_dataset("digits", num_train=num_train, num_test=num_test, num_classes=num_classes)
    for full, part, number in ((whole.train, some.train, num_train), (whole.test, some.test, num_test)):
        at = first_of_each_class(full.labels, number, num_classes)
        assert len(part) == number
        for field in dataclasses.fields(Split):
            np.testing.assert_array_equal(getattr(part, field.name), getattr(full, field.name)[at])
    assert some.spec.num_classes == len(some.class_names) == num_classes


@pytest.mark.parametrize("option", ["num_train", "num_test"])
@pytest.mark.parametrize(
    ("number", "rule"),
    [(0, "positive"), (-10, "positive"), (15, "divisible by the 10 classes"), (5000, "equally many")],
)
def test_numbers_that_cannot_be_balanced_are_refused(option, number, rule):
    with pytest.raises(DatasetError, match=rf"{option} must .*{rule}.* got {number}.*multiple of 10 from 10 to \d+"):
        load_dataset("digits", **{option: number})


def test_largest_balanced_number_is_the_one_named():
    assert len(load_dataset("digits", num_train=1240).train) == 1240
    with pytest.raises(DatasetError, match="smallest class has 124: give a multiple of 10 from 10 to 1240"):
        load_dataset("digits", num_train=1250)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 11}, "at most 10.* 11 is asked for"),
        ({"num_classes": 1}, "at least 2 classes are needed, got 1"),
        ({"num_classes": 0}, "at least 2 classes are needed, got 0"),
        ({"image_size": 0}, "image_size must be positive, got 0"),
        ({"class_order": "wnids"}, "is for tiny_imagenet"),
        ({"class_order": "random"}, "must be one of sorted, wnids, got 'random'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset("digits", **settings)


# --- fingerprint


def split_of(seed: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    return Split(images, np.array([0, 1, 2, 0, 1, 2]), np.array([str(i) for i in range(6)]))


def test_fingerprint_is_known_by_hand():
    import hashlib

    train, test = split_of(0), split_of(1)
    expected = hashlib.sha256()
    for split in (train, test):
        expected.update(b"6 4 4 3\n" + split.labels.astype("<i8").tobytes() + split.images.tobytes())
    assert fingerprint(train, test) == expected.hexdigest()


def test_fingerprint_changes_with_pixel_label_order_shape_and_split():
    train, test = split_of(0), split_of(1)
    pixel = train.images.copy()
    pixel[3, 1, 1, 2] ^= 1
    label = train.labels.copy()
    label[5] = 0
    order = np.array([3, 1, 2, 0, 4, 5])  # the swapped samples have one label
    seen = {
        fingerprint(train, test),
        fingerprint(test, train),
        fingerprint(train, train),
        fingerprint(dataclasses.replace(train, images=pixel), test),
        fingerprint(test, dataclasses.replace(train, images=pixel)),
        fingerprint(dataclasses.replace(train, labels=label), test),
        fingerprint(Split(train.images[order], train.labels[order], train.ids), test),
        fingerprint(dataclasses.replace(train, images=train.images.reshape(6, 2, 8, 3)), test),
        fingerprint(Split(train.images[:5], train.labels[:5], train.ids[:5]), test),
    }
    assert len(seen) == 9


def test_fingerprint_ignores_ids_and_memory_layout():
    train, test = split_of(0), split_of(1)
    other = Split(np.asfortranarray(train.images), train.labels, np.array(list("abcdef")))
    assert fingerprint(other, test) == fingerprint(train, test)


def test_split_refuses_what_breaks_its_contract():
    good = split_of(0)
    for broken in (
        {"images": good.images.astype(np.float32)},
        {"images": good.images[..., :1]},
        {"labels": good.labels.astype(np.int32)},
        {"labels": good.labels[:5]},
        {"ids": np.arange(6)},
    ):
        with pytest.raises(ValueError, match="must be"):
            dataclasses.replace(good, **broken)


# --- image folders


def test_image_folder_has_each_file_under_its_id(tmp_path):
    dataset = load_dataset("image_folder", data_dir=write_folder(image_tree(), tmp_path))
    assert dataset.class_names == CLASSES
    for name, split, count in (("train", dataset.train, 4), ("test", dataset.test, 2)):
        assert list(split.ids) == [f"{c}/{i}.png" for c in CLASSES for i in range(count)]
        for image, label, sample_id in zip(split.images, split.labels, split.ids, strict=True):
            class_name, file = sample_id.split("/")
            assert CLASSES[label] == class_name
            np.testing.assert_array_equal(image, noise(seed_of(name, class_name, int(file[0]))))
    assert dataset.spec == dataclasses.replace(DATASETS["image_folder"], num_classes=3, image_size=4, crop_padding=0)


def test_image_folder_has_torchvisions_order(tmp_path):
    tree = image_tree(train=12) | {"train/Zoo/x.PNG": png(noise(7)), "test/Zoo/x.png": png(noise(8))}
    dataset = load_dataset("image_folder", data_dir=write_folder(tree, tmp_path))
    from torchvision.datasets import ImageFolder  # here, since every test process would wait two seconds for it

    theirs = ImageFolder(tmp_path / "train")
    assert list(dataset.class_names) == theirs.classes
    np.testing.assert_array_equal(dataset.train.labels, theirs.targets)
    np.testing.assert_array_equal(dataset.train.images, np.stack([np.asarray(image) for image, _ in theirs]))


@pytest.mark.parametrize(
    ("name", "tree", "settings"),
    [
        ("image_folder", image_tree(), {}),
        ("image_folder", image_tree(top="my pictures/"), {"num_train": 6, "image_size": 3}),
        ("image_folder", image_tree(test_name="val"), {"num_classes": 2}),
        ("tiny_imagenet", tiny_tree(), {"num_classes": 3}),
        ("tiny_imagenet", tiny_tree(top=""), {"num_classes": 2, "num_test": 2}),
    ],
)
def test_folder_and_zip_of_a_tree_are_one_dataset(tmp_path, name, tree, settings):
    folder = write_folder(tree, tmp_path / "folder")
    (tmp_path / "only").mkdir()
    zipped = write_zip(tree, tmp_path / "only" / "tiny-imagenet-3.zip")
    dataset = load_dataset(name, data_dir=folder, **settings)
    assert_same(dataset, load_dataset(name, data_dir=str(zipped), **settings))
    assert_same(dataset, load_dataset(name, data_dir=zipped.parent, **settings))


def test_paths_do_not_matter_to_the_fingerprint(tmp_path):
    renamed = {name.replace("/ant/", "/Ant/").replace(".png", "_.png"): d for name, d in image_tree().items()}
    one = load_dataset("image_folder", data_dir=write_folder(image_tree(), tmp_path / "a"))
    other = load_dataset("image_folder", data_dir=write_folder(renamed, tmp_path / "b"))
    assert one.fingerprint == other.fingerprint
    assert one.train.ids[0] == "ant/0.png"
    assert other.train.ids[0] == "Ant/0_.png"


@pytest.mark.parametrize("top", ["", "mine/"])
@pytest.mark.parametrize("train", ["", "train/"])
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_share_of_each_class_becomes_the_test_split(tmp_path, top, train, write):
    tree = {f"{top}{train}{name}/{i}.png": png(noise(7 * i)) for name in CLASSES for i in range(10)}
    place = write(tree, tmp_path / "data.zip")
    found = load_dataset("image_folder", data_dir=place, test_share=0.3)
    assert np.bincount(found.test.labels).tolist() == [3, 3, 3]
    assert np.bincount(found.train.labels).tolist() == [7, 7, 7]
    ranked = sorted((f"ant/{i}.png" for i in range(10)), key=lambda name: sha256(name.encode()).hexdigest())
    assert set(found.test.ids[found.test.labels == 0].tolist()) == set(ranked[:3])
    for split in (found.train, found.test):
        assert split.ids.tolist() == sorted(split.ids.tolist())
        for image, name in zip(split.images, split.ids.tolist(), strict=True):
            np.testing.assert_array_equal(image, noise(7 * int(Path(name).stem)))
    assert {*found.train.ids.tolist(), *found.test.ids.tolist()} == {f"{n}/{i}.png" for n in CLASSES for i in range(10)}


def test_another_image_moves_few_others_between_the_splits(tmp_path):
    tree = {f"{name}/{i}.png": png(noise(i)) for name in CLASSES for i in range(20)}
    before = load_dataset("image_folder", data_dir=write_folder(tree, tmp_path), test_share=0.25).test.ids.tolist()
    write_folder({"ant/new.png": png(noise(99))}, tmp_path)
    after = load_dataset("image_folder", data_dir=tmp_path, test_share=0.25).test.ids.tolist()
    assert len({*before} ^ {*after}) <= 2


def test_test_is_preferred_to_val(tmp_path):
    tree = image_tree() | image_tree(test=3, test_name="val")
    assert len(load_dataset("image_folder", data_dir=write_folder(tree, tmp_path)).test) == 6


def test_what_desktops_leave_behind_is_ignored(tmp_path):
    junk = (
        ".DS_Store train/.DS_Store train/Thumbs.db train/ant/.DS_Store train/ant/._0.png "
        "train/ant/Thumbs.db train/ant/notes.txt __MACOSX/train/ant/._0.png "
        "train/.hidden/0.png test/desktop.ini train/__MACOSX/0.png"
    )
    tree = image_tree() | {name: b"junk" for name in junk.split()}
    clean = load_dataset("image_folder", data_dir=write_folder(image_tree(), tmp_path / "clean"))
    assert_same(clean, load_dataset("image_folder", data_dir=write_folder(tree, tmp_path / "junk")))
    assert_same(clean, load_dataset("image_folder", data_dir=write_zip(tree, tmp_path / "junk.zip")))


def test_zip_names_with_dots_and_folder_entries_are_read(tmp_path):
    tree = {f"./{name}": data for name, data in image_tree().items()} | {"./": b"", "./train/": b""}
    zipped = write_zip(tree, tmp_path / "dots.zip")
    clean = load_dataset("image_folder", data_dir=write_folder(image_tree(), tmp_path / "clean"))
    assert_same(clean, load_dataset("image_folder", data_dir=zipped))


def palette_with_transparency() -> Image.Image:
    image = Image.fromarray(noise(3)).convert("P")
    image.info["transparency"] = bytes(range(0, 256))
    return image


@pytest.mark.parametrize(
    ("image", "file_format"),
    [
        (Image.fromarray(noise(1)).convert("L"), "PNG"),
        (Image.fromarray(noise(1)).convert("L"), "JPEG"),
        (Image.fromarray(noise(1)).convert("1"), "PNG"),
        (Image.fromarray(np.dstack([noise(1), noise(2)[..., :1]]), "RGBA"), "PNG"),
        (Image.fromarray(noise(1)).convert("LA"), "PNG"),
        (Image.fromarray(noise(1)).convert("P"), "PNG"),
        (palette_with_transparency(), "PNG"),
        (Image.fromarray(noise(1)).convert("CMYK"), "JPEG"),
        (Image.fromarray(noise(1)), "WEBP"),
        (Image.fromarray(noise(1)), "BMP"),
        (Image.fromarray(noise(1)), "TIFF"),
    ],
)
def test_every_kind_of_image_becomes_rgb(tmp_path, image, file_format):
    name = f"train/ant/0.{file_format.lower()}"
    tree = {n: d for n, d in image_tree().items() if n != "train/ant/0.png"} | {name: png(image, file_format)}
    folder = write_folder(tree, tmp_path)
    dataset = load_dataset("image_folder", data_dir=folder)
    assert dataset.train.ids[0] == name.removeprefix("train/")
    with Image.open(folder / name) as stored:
        via = stored.convert("RGBA") if "transparency" in stored.info else stored
        np.testing.assert_array_equal(dataset.train.images[0], np.asarray(via.convert("RGB")))


def test_image_size_resizes_all_to_squares(tmp_path):
    tree = image_tree() | {"train/bee/1.png": png(noise(9, width=9, height=5))}
    dataset = load_dataset("image_folder", data_dir=write_folder(tree, tmp_path), image_size=6)
    expected = Image.fromarray(noise(9, width=9, height=5)).resize((6, 6), Image.Resampling.BILINEAR)
    at = list(dataset.train.ids).index("bee/1.png")
    np.testing.assert_array_equal(dataset.train.images[at], np.asarray(expected))
    assert dataset.spec.image_size == 6


def test_image_size_resizes_digits_too():
    small, large = load_dataset("digits", num_train=10), load_dataset("digits", num_train=10, image_size=16)
    expected = Image.fromarray(small.train.images[3]).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(large.train.images[3], np.asarray(expected))
    assert large.test.images.shape[1:] == (16, 16, 3)


def test_only_the_asked_images_are_decoded(tmp_path, monkeypatch):
    folder = write_folder(image_tree(train=40), tmp_path)
    for i in range(2, 40):
        (folder / f"train/ant/{i}.png").write_bytes(b"would fail if it were decoded")
    opened = []
    real_open = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or real_open(*a, **k))
    load_dataset("image_folder", data_dir=folder, num_train=6, num_test=3)
    assert len(opened) == 9


def test_many_images_keep_their_places_in_threads(tmp_path):
    """More than one task's worth of images, each told apart by its pixels."""
    grey = [np.full((2, 2, 3), i % 256, np.uint8) for i in range(700)]
    tree = {f"train/ant/{i:04}.png": png(grey[i]) for i in range(700)} | {"train/bee/0.png": png(grey[0])}
    tree |= {"test/ant/0.png": png(grey[0]), "test/bee/0.png": png(grey[0])}
    dataset = load_dataset("image_folder", data_dir=write_zip(tree, tmp_path / "many.zip"))
    np.testing.assert_array_equal(dataset.train.images[:700], np.stack(grey))


# --- Tiny ImageNet


@pytest.mark.parametrize(
    ("class_order", "wnids", "class_names"),
    [
        ("sorted", ("n01", "n02", "n03"), ("fish, a swimmer", "newt", "frog")),
        ("wnids", ("n03", "n01", "n02"), ("frog", "fish, a swimmer", "newt")),
    ],
)
def test_tiny_imagenet_classes_and_order(tmp_path, class_order, wnids, class_names):
    folder = write_folder(tiny_tree(), tmp_path)
    dataset = load_dataset("tiny_imagenet", data_dir=folder, num_classes=3, class_order=class_order)
    assert dataset.class_names == class_names
    assert list(dataset.train.ids) == [f"{w}/images/{w}_{i}.JPEG" for w in wnids for i in range(3)]
    assert list(dataset.train.labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(dataset.test.ids) == [f"images/val_{i}.JPEG" for i in range(6)]
    assert [wnids[label] for label in dataset.test.labels] == ["n03", "n01", "n02"] * 2
    top = tmp_path / "tiny-imagenet-200"
    for folder, split in (("train", dataset.train), ("val", dataset.test)):
        for sample_id, image in zip(split.ids, split.images, strict=True):
            with Image.open(top / folder / sample_id) as stored:
                np.testing.assert_array_equal(image, np.asarray(stored))


def by_class(tree: dict[str, bytes], inside: str) -> dict[str, bytes]:
    """Tiny ImageNet as scripts leave it that sort `val` into folders of classes, without the annotations."""
    lines = tree["val/val_annotations.txt"].decode().split("\n")
    wnid_of = dict(line.split("\t")[:2] for line in lines if line)
    moved = {name: data for name, data in tree.items() if not name.startswith("val/")}
    return moved | {f"val/{wnid_of[f]}/{inside}{f}": tree[f"val/images/{f}"] for f in wnid_of}


@pytest.mark.parametrize("inside", ["", "images/"])
def test_tiny_imagenet_sorted_into_classes_is_the_published_one(inside: str, tmp_path) -> None:
    """Twelve images of val: 10 comes after 9, not after 1."""
    tree = tiny_tree(val=4, top="")
    published = load_dataset("tiny_imagenet", data_dir=write_folder(tree, tmp_path / "a"), num_classes=3)
    folder = write_folder(by_class(tree, inside), tmp_path / "b")
    dataset = load_dataset("tiny_imagenet", data_dir=folder, num_classes=3)
    assert dataset.fingerprint == published.fingerprint
    assert dataset.test.ids[0] == f"n03/{inside}val_0.JPEG"


def test_tiny_imagenet_half_sorted_is_refused(tmp_path) -> None:
    tree = tiny_tree(top="")
    folder = write_folder(tree | {"val/n01/val_1.JPEG": tree["val/images/val_1.JPEG"]}, tmp_path)
    with pytest.raises(DatasetError, match="holds images in images/ and in folders of classes"):
        load_dataset("tiny_imagenet", data_dir=folder, num_classes=3)


def test_class_names_that_read_the_same_are_the_same_class(tmp_path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    tree = {
        f"{part}/{name}/0.png": png(noise(seed))
        for seed, (part, name) in enumerate(
            [("train", composed), ("train", "tea"), ("test", decomposed), ("test", "tea")]
        )
    }
    dataset = load_dataset("image_folder", data_dir=write_folder(tree, tmp_path / "a"))
    assert dataset.class_names == (composed, "tea")
    assert list(dataset.test.labels) == [0, 1]
    twice = tree | {f"train/{decomposed}/1.png": png(noise(9))}
    with pytest.raises(DatasetError, match="two folders that read 'café'"):
        load_dataset("image_folder", data_dir=write_folder(twice, tmp_path / "b"))


@pytest.mark.parametrize("data_dir", ["s3://bucket/data", "s3:/bucket/data", "https://host/data.zip"])
@pytest.mark.parametrize("name", ["cifar10", "image_folder", "tiny_imagenet"])
def test_data_are_read_from_local_disks_alone(name: str, data_dir: str) -> None:
    with pytest.raises(DatasetError, match="must be a folder or a zip on a local disk: copy the data there first"):
        load_dataset(name, data_dir=data_dir)


def test_tiny_imagenet_takes_the_first_classes(tmp_path):
    folder = write_folder(tiny_tree(), tmp_path)
    sorted_two = load_dataset("tiny_imagenet", data_dir=folder, num_classes=2)
    assert {i[:3] for i in sorted_two.train.ids} == {"n01", "n02"}
    assert list(sorted_two.test.ids) == [f"images/val_{i}.JPEG" for i in (1, 2, 4, 5)]
    listed_two = load_dataset("tiny_imagenet", data_dir=folder, num_classes=2, class_order="wnids")
    assert {i[:3] for i in listed_two.train.ids} == {"n03", "n01"}


def test_tiny_imagenet_has_50_classes_by_default(tmp_path):
    with pytest.raises(DatasetError, match=r"at most 3, .*50 is the default of tiny_imagenet"):
        load_dataset("tiny_imagenet", data_dir=write_folder(tiny_tree(), tmp_path))
