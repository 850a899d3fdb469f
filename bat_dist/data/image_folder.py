"""The user's own images, `[top/]{train,test|val}/<class>/<file>`: a folder or a zip; one split may be shared out."""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bat_dist.data.archive import Archive, open_archive
from bat_dist.data.images import is_image, only_images, warn_of_unread
from bat_dist.data.layout import describe, find_root, locate
from bat_dist.data.source import Samples, Source, file_samples, share_out
from bat_dist.data.table import DatasetError

LAYOUT = "[top/]train/<class>/<image> and [top/]test/<class>/<image> (or val for test)"
LAYOUT_OF_ONE = "[top/][train/]<class>/<image>, as test_share wants it"


@contextmanager
def open_image_folder(data_dir: str | Path | None, test_share: float | None = None) -> Iterator[Source]:
    """Open an image folder or a zip of one.

    Classes are the folders of `train`, sorted; samples are sorted by (class, file name), as torchvision's
    ImageFolder has them. Ids are `<class>/<file>`. Where both `test` and `val` are there, `test` is taken.

    test_share: where there is no test split (LAYOUT_OF_ONE), this share of each class becomes one (`share_out`).
    """
    source = f"images laid out as {LAYOUT}"
    with open_archive(locate(data_dir, "image_folder", "*.zip", source)) as archive:
        if test_share is not None:
            yield _shared_out(archive, test_share)
            return
        root = find_root(archive, f"{LAYOUT}; or {LAYOUT_OF_ONE}")
        inside = archive.children(root.rstrip("/"))
        test_folder = next((name for name in ("test", "val") if name in inside.folders), None)
        if test_folder is None:
            raise DatasetError(
                f"{archive.location}: expected {LAYOUT}; found neither test nor val, but {describe(inside)}: "
                "test_share 0.2 makes a test split of a fifth of each class"
            )
        train_folders = _class_folders(archive, f"{root}train")
        classes = tuple(train_folders)
        unread: list[str] = []
        train = _samples(archive, f"{root}train", list(train_folders.values()), unread)
        test_folders = _class_folders(archive, f"{root}{test_folder}")
        if strange := next((name for name in test_folders if name not in classes), None):
            raise DatasetError(
                f"{archive.location}: class {strange!r} is in {test_folder} but not in train: add it there or remove it"
            )
        folders = [test_folders.get(name, name) for name in classes]
        test = _samples(archive, f"{root}{test_folder}", folders, unread)
        warn_of_unread(archive.location, unread)
        yield Source(str(archive.location), train, test, classes)


def _shared_out(archive: Archive, share: float) -> Source:
    folder = _folder_of_one(archive)
    folders = _class_folders(archive, folder)
    unread: list[str] = []
    samples = _samples(archive, folder, list(folders.values()), unread)
    warn_of_unread(archive.location, unread)
    train, test = share_out(samples, share, tuple(folders), str(archive.location))
    return Source(str(archive.location), train, test, tuple(folders))


def _folder_of_one(archive: Archive) -> str:
    """The folder of the class folders, where there is no test split; "" is the top."""
    top = archive.children("").folders
    root = "" if len(top) != 1 or top == ("train",) else f"{top[0]}/"
    inside = archive.children(root.rstrip("/")).folders
    if split := next((name for name in inside if name in ("test", "val")), None):
        raise DatasetError(f"{archive.location}: {root}{split} is the test split: leave test_share out")
    if "train" not in inside:
        return root.rstrip("/")
    if len(inside) > 1:
        raise DatasetError(
            f"{archive.location}: expected {LAYOUT_OF_ONE}; found {describe(archive.children(root.rstrip('/')))}"
        )
    return f"{root}train"


def _class_folders(archive: Archive, folder: str) -> dict[str, str]:
    """Map each class to the name of its folder there: one system writes é as a letter, another as e and an accent."""
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


def _samples(archive: Archive, folder: str, class_folders: Sequence[str], unread: list[str]) -> Samples:
    """The images of these folders in `folder` ("": the top), the first of them those of class 0."""
    prefix = f"{folder}/" if folder else ""
    for file in archive.children(folder).files:
        if is_image(file):  # leaving it out silently would lose a sample
            raise DatasetError(f"{archive.location}: expected {LAYOUT}; found {prefix}{file} outside a class")
    names, labels = [], []
    for label, class_folder in enumerate(class_folders):
        place = f"{prefix}{class_folder}"
        inside = archive.children(place)
        if inside.folders:
            raise DatasetError(
                f"{archive.location}: expected {LAYOUT}; found the folder {place}/{inside.folders[0]}/ within a "
                "class (Tiny ImageNet's own layout is read with dataset tiny_imagenet)"
            )
        files = only_images(inside.files, place, unread)
        names += [f"{class_folder}/{file}" for file in files]
        labels += [label] * len(files)
    return file_samples(archive, prefix, names, labels)
