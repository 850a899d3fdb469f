"""Every setting of every program with every kind of bad value: read, or refused in words that name it."""

from collections.abc import Callable
from typing import Any

import pytest

from bat_dist.config import parse
from bat_dist.config.declared import declared
from bat_dist.errors import ConfigError
from bat_dist.settings.collect import CollectSettings
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.export import ExportSettings
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.plan import PlanSettings
from bat_dist.settings.report import ReportSettings
from bat_dist.settings.reproduce import ReproduceSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings

GPUS: dict[Any, str] = {MemorizeSettings: "gpus_per_trial"}
GPUS |= dict.fromkeys((TrainSettings, EvaluateSettings, ReproduceSettings), "gpus_per_worker")
REQUIRED: dict[Any, dict[str, str]] = {
    MemorizeSettings: {"dataset": "digits", "out": "x"},
    TrainSettings: {"dataset": "digits", "out": "x", "method": "pgd_at"},
    EvaluateSettings: {"dataset": "digits", "out": "x", "checkpoint": "c"},
    TuneSettings: {"out": "x", "base": "dataset=digits method=pgd_at", "space": "alpha=[0,1]"},
    ReproduceSettings: {"table": "1", "out": "x"},
    ReportSettings: {"runs": "x"},
    ExportSettings: {"checkpoint": "c", "out": "x"},
    PlanSettings: {"dataset": "digits"},
    CollectSettings: {"cluster": "c.yaml", "out": "x"},
}
NO_NUMBERS = ("nan", "NaN", "inf", "-inf", "1e400", ".nan", ".inf")
ODD = ("-1", "0", "1e-300", "9" * 30, "[1, 2]", "{a: 1}", "true", "no such thing", "8/0", "=", "\x00", "é")


def settings_of(cls: Callable[..., Any]) -> dict[str, Any]:
    return declared(cls)


def words(cls: Callable[..., Any], *own: str) -> list[str]:
    """A whole command line, in which an option of `own` stands for the required one of its name."""
    given = {word.removeprefix("--") for word in own if word.startswith("--")}
    required = REQUIRED[cls].items()
    return [w for name, value in required if name not in given for w in (f"--{name}", *value.split())] + list(own)


CASES = [pytest.param(cls, name, id=f"{cls.__name__}-{name}") for cls in REQUIRED for name in settings_of(cls)]


@pytest.mark.parametrize("cls", REQUIRED)
def test_the_words_themselves_are_right(cls: Callable[..., Any]) -> None:
    parse(cls, words(cls), prog="p")


def refused(cls: Callable[..., Any], *own: str) -> str | None:
    """The message, or None if the words are read; anything else that is raised is a fault."""
    try:
        parse(cls, words(cls, *own), prog="p")
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_bad_values_are_refused_by_name(cls: Callable[..., Any], name: str) -> None:
    for value in ("", "  "):
        assert name in str(refused(cls, f"--{name}", value)), repr(value)
    for value in NO_NUMBERS:
        message = refused(cls, f"--{name}", value)
        if settings_of(cls)[name].leaf_kinds & {"number", "integer"}:
            assert name in str(message), value
    for value in ODD:
        message = refused(cls, f"--{name}", value)
        assert message is None or name in message, value
    assert f"{name} is given twice" in str(refused(cls, f"--{name}", "1", f"--{name}", "1"))


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_many_values_are_read_only_where_a_list_is_wanted(cls: Callable[..., Any], name: str) -> None:
    message = refused(cls, f"--{name}", "1", "2")
    if not settings_of(cls)[name].kinds & {"array", "object"}:
        assert name in str(message)


def test_an_option_and_its_negation_are_twice_the_same() -> None:
    assert "flip is given twice" in str(refused(TrainSettings, "--flip", "--no_flip"))


@pytest.mark.parametrize("cls", GPUS)
def test_a_worker_has_one_gpu_or_a_part_of_it(cls: Callable[..., Any]) -> None:
    for value in ("0", "0.25", "1"):
        assert refused(cls, f"--{GPUS[cls]}", value) is None
    for value in ("-1", "1.5", "2"):
        message = str(refused(cls, f"--{GPUS[cls]}", value))
        assert message.startswith(f"{GPUS[cls]} must be a number in [0, 1] or none, got {value}")
