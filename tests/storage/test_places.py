"""Names of places where results cannot be written, or not be found again, are refused by name alone."""

import pytest

from bat_dist.config import from_dict
from bat_dist.errors import ConfigError
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.export import ExportSettings
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.report import ReportSettings
from bat_dist.settings.reproduce import ReproduceSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.places import check_place


@pytest.mark.parametrize(
    "place", ["runs/a", "/x", ".", "s3://bucket/run", "gs://b", "file:///x", "C:/x", "a:b", "odd: /"]
)
def test_places(place: str) -> None:
    assert check_place(place) == place


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("memory://x", "would be lost with the process"),
        ("https://host/x", "nothing can be written by https"),
        ("hf://user/name", "nothing can be written by hf"),
        ("HTTP://host/x", "nothing can be written by http"),
        ("zip://x.zip", "nothing can be written by zip"),
        ("s3:/bucket/run", "did you mean s3://bucket/run?"),
    ],
)
@pytest.mark.parametrize(
    "settings",
    [
        MemorizeSettings,
        TrainSettings,
        EvaluateSettings,
        TuneSettings,
        ReproduceSettings,
        ReportSettings,
        ExportSettings,
    ],
)
def test_no_places(place: str, message: str, settings: type) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(settings, {"out": place}, "here")
    assert message in next(line for line in caught.value.errors if line.startswith("out"))
