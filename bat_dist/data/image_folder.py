"""One's own images: `[top/]{train,test|val}/<class>/<file>`, a folder or a zip of it."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bat_dist.data.archive import Archive, open_archive
from bat_dist.data.images import is_image, only_images, warn_of_unread
from bat_dist.data.layout import describe, find_root, locate
from bat_dist.data.source import Samples, Source, file_samples
from bat_dist.data.table import DatasetError

LAYOUT = "[top/]train/<class>/<image> and [top/]test/<class>/<image> (or val for test)"


@contextmanager
def open_image_folder(data_dir: str | Path | None) -> Iterator[Source]:
    """Open an image folder or a zip of one.

    Classes are the folders of `train`, sorted; samples are sorted by (class, file name), as torchvision's
    ImageFolder has them. Ids are `<class>/<file>`. Where both `test` and `val` are there, `test` is taken.
    """
    source = f"images laid out as {LAYOUT}"
    with open_archive(locate(data_dir, "image_folder", "*.zip", source)) as archive:
        root = find_root(archive, LAYOUT)
        test_folder = _test_folder(archive, root)
        train_folders = _class_folders(archive, f"{root}train")
        classes = tuple(train_folders)
        unread: list[str] = []
        train = _samples(archive, f"{root}train", list(train_folders.values()), unread)
        test_folders = _class_folders(archive, f"{root}{test_folder}")
        _check_test_classes(archive, test_folder, test_folders, classes)
        folders = [test_folders.get(name, name) for name in classes]
        test = _samples(archive, f"{root}{test_folder}", folders, unread)
        warn_of_unread(archive.location, unread)
        yield Source(str(archive.location), train, test, classes)


def _test_folder(archive: Archive, root: str) -> str:
    inside = archive.children(root.rstrip("/"))
    for name in ("test", "val"):
        if name in inside.folders:
            return name
    raise DatasetError(f"{archive.location}: expected {LAYOUT}; found neither test nor val, but {describe(inside)}")


def _class_folders(archive: Archive, folder: str) -> dict[str, str]:
    """By class the name of its folder there: one system writes é as a letter, another as e and an accent."""
    found: dict[str, str] = {}
    for name in archive.children(folder).folders:
        class_name = unicodedata.normalize("NFC", name)
        if class_name in found:
            raise DatasetError(
                f"{archive.location}: {folder} holds two folders that read {class_name!r}, "
                f"{found[class_name]!a} and {name!a}: put their images into one"
            )
        found[class_name] = name
    return found


def _check_test_classes(archive: Archive, test_folder: str, folders: Iterable[str], classes: tuple[str, ...]) -> None:
    for name in folders:
        if name not in classes:
            raise DatasetError(
                f"{archive.location}: class {name!r} is in {test_folder} but not in train: add it there or remove it"
            )


def _samples(archive: Archive, folder: str, class_folders: Sequence[str], unread: list[str]) -> Samples:
    """The images of these folders in `folder`, the first of them those of class 0."""
    _check_no_image(archive, folder)
    names, labels = [], []
    for label, class_folder in enumerate(class_folders):
        files = _images(archive, f"{folder}/{class_folder}", unread)
        names += [f"{class_folder}/{file}" for file in files]
        labels += [label] * len(files)
    return file_samples(archive, f"{folder}/", names, labels)


def _images(archive: Archive, folder: str, unread: list[str]) -> list[str]:
    inside = archive.children(folder)
    if inside.folders:
        raise DatasetError(
            f"{archive.location}: expected {LAYOUT}; found the folder {folder}/{inside.folders[0]}/ within a "
            "class (Tiny ImageNet's own layout is read with dataset tiny_imagenet)"
        )
    return only_images(inside.files, folder, unread)


def _check_no_image(archive: Archive, folder: str) -> None:
    """An image beside the class folders belongs to no class; leaving it out silently would lose a sample."""
    for file in archive.children(folder).files:
        if is_image(file):
            raise DatasetError(f"{archive.location}: expected {LAYOUT}; found {folder}/{file} outside a class")
