"""Where a program asks for a file of scores, the folder that `bat-dist memorize` made will do."""

import pytest

from bat_dist.config import from_dict
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.reproduce import ReproduceSettings
from bat_dist.settings.study import StudySettings
from bat_dist.settings.train import TrainSettings

TRAIN = {"dataset": "digits", "method": "bat", "out": "o"}
EVALUATE = {"dataset": "digits", "checkpoint": "c", "out": "o"}


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("results/mine", "results/mine/memorization.npz"),
        ("s3://bucket/run/", "s3://bucket/run/memorization.npz"),
        ("results/mine/ensemble_scores.npz", "results/mine/ensemble_scores.npz"),
    ],
)
def test_a_folder_stands_for_its_memorization(given: str, file: str) -> None:
    assert from_dict(TrainSettings, TRAIN | {"scores": given}, "train").scores == file
    assert from_dict(ReproduceSettings, {"table": 1, "out": "o", "scores": given}, "reproduce").scores == file
    study = from_dict(StudySettings, {"study": ("typical",), "out": "o", "scores": given}, "study")
    assert study.scores == file


def test_for_an_evaluation_a_folder_stands_for_its_sets() -> None:
    assert from_dict(EvaluateSettings, EVALUATE | {"scores": "runs/s"}, "evaluate").scores == "runs/s/typicality.npz"
    asked = EVALUATE | {"scores": "runs/s/typicality.npz"}
    assert from_dict(EvaluateSettings, asked, "evaluate").scores == "runs/s/typicality.npz"
