"""Sections of settings that programs have in common: the data, and where a program runs.

Imports neither torch nor ray, so that `--help` answers at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from bat_dist.config import Help
from bat_dist.settings.decides import Decides
from bat_dist.settings.fields import (
    DATA,
    DATASET_NAMES,
    RAY,
    DataDir,
    DatasetName,
    Download,
    ImageSize,
    ImageStorage,
    NumTest,
    RayAddress,
    TestShare,
)
from bat_dist.storage.places import Place


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which data, and where the results go: the same for every program."""

    dataset: Annotated[
        DatasetName, Help(f"{DATASET_NAMES}; not needed where a folder that is given tells it", "NAME"), DATA
    ]
    out: Annotated[
        Place, Help("result folder, or a URI such as s3://bucket/run; what it holds is resumed", "DIR"), Decides.CALL
    ]
    data_dir: DataDir = None
    download: Download = False
    num_train: Annotated[int | None, Ge(1), Help("take the first N/classes training samples of each class"), DATA] = (
        None
    )
    num_test: NumTest = None
    num_classes: Annotated[int | None, Ge(2), Help("take the first N classes (tiny_imagenet: 50)"), DATA] = None
    image_size: ImageSize = None
    test_share: TestShare = None
    image_storage: ImageStorage = "auto"
    loader: Annotated[
        Literal["auto", "ffcv", "memory"],
        Help(
            "memory holds all images on the device, or reads them from image_storage disk; ffcv reads a .beton; equal "
            "batches; auto: memory for data that are on disk, small or fit a GPU well, else ffcv if installed"
        ),
        DATA,
        Decides.WORKING,
    ] = "auto"

    @property
    def data(self) -> Mapping[str, Any]:
        """The keyword arguments of `load_dataset`."""
        names = ("data_dir", "num_train", "num_test", "num_classes", "image_size", "test_share")
        names += ("download", "image_storage")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Where a program that runs on Ray runs, and whether it begins anew."""

    fresh: Annotated[
        bool,
        Help("remove what an earlier job of this program left in the result folder, and start again"),
        Decides.CALL,
    ] = False

    ray_address: Annotated[
        RayAddress | None,
        Help("local, auto or host:port; default: a running cluster if there is one, else local", "ADDR"),
        RAY,
    ] = None
    min_nodes: Annotated[
        int, Ge(1), Help("nodes of a cluster to wait for before work starts, the head counted"), RAY
    ] = 1
    wait_minutes: Annotated[float, Ge(0), Help("how long to wait for nodes or room on them"), RAY] = 15.0


def check_fresh(settings: RaySettings) -> None:
    """Raise ValueError for one who wants to see what is there, and to have it removed."""
    if settings.fresh and getattr(settings, "status", False):
        raise ValueError("status says what the folder holds and fresh would remove it: give one of them")
