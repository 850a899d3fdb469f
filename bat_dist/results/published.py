"""The paper's numbers (Tables 1-6), and whether a setting is the one they were measured in."""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

PAPER = "Xu et al., Towards the Memorization Effect of Neural Networks in Adversarial Training"
# What the paper trains and tests with (Sec. 5); num_steps is the field's, for it does not say.
_SETTING: dict[str, Mapping[str, Any]] = {
    "cifar100": {"num_train": 50_000, "num_test": 10_000, "epsilon": 8 / 255, "epochs": 160, "num_steps": 10},
    "tiny_imagenet": {"num_train": 25_000, "num_test": 2_500, "epsilon": 4 / 255, "epochs": 160, "num_steps": 10},
}


class Published(NamedTuple):
    """A row of the paper: accuracies as fractions by attack; tables: where they stand, `Tables 1 and 4`."""

    accuracies: Mapping[str, float]
    tables: str


@functools.cache
def _document() -> Any:
    return json.loads(resources.files("bat_dist.results").joinpath("published_results.json").read_text())


def published_row(dataset: str, arch: str, method: str, settings: Mapping[str, Any]) -> Published | None:
    """What the paper has for a method; None where it has nothing.  settings: of the method (bat: alpha and beta)."""
    key = "tiny_imagenet50" if dataset == "tiny_imagenet" else dataset
    name = f"bat_alpha{settings.get('alpha', 0):g}_beta{settings.get('beta', 0):g}" if method == "bat" else method
    for title, rows in _document()["tables"].items():
        if title.startswith(f"{key}/{arch} ") and name in rows:
            columns = _document()["columns"]
            values = {column: value / 100 for column, value in zip(columns, rows[name], strict=True)}
            return Published(values, title.partition("(")[2].rstrip(")"))
    return None


def published_answers() -> Mapping[str, Sequence[float]]:
    """The paper's table of App. B.3: for `high` and `low`, percent of the answers y1, y2, both and neither.

    Two people were asked about CIFAR-100. As printed: the first row sums to 101.
    """
    table = _document()["appendix_b3_annotation_percent"]
    return {of: table[f"{of}_poisoning_score"] for of in ("high", "low")}


def departures(dataset: str, measured: Mapping[str, Any]) -> list[str]:
    """What differs in a setting from the paper's: `epochs 10 instead of 160`.

    measured: num_train (validation included), num_test, epsilon, epochs, num_steps; what it lacks is not compared.
    """
    return [
        f"{name} {_said(measured[name])} instead of {_said(value)}"
        for name, value in _SETTING.get(dataset, {}).items()
        if measured.get(name) is not None and abs(measured[name] - value) > 1e-9
    ]


def _said(value: float) -> str:
    return f"{255 * value:g}/255" if value < 1 else f"{value:,g}"
