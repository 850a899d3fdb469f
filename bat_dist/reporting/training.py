"""The end of a training run, in words."""

from collections.abc import Mapping
from typing import Any


def in_words(out: str, summary: Mapping[str, Any]) -> str:
    """A few lines for the terminal from the run's summary (`training.run.finish`)."""
    best, last = summary["best"], summary["last"]
    lines = [
        f"{'':22}{'epoch':>6}  validation accuracy",
        f"{'best by ' + summary['best_by']:22}{best['epoch']:>6}  {_accuracies(best)}",
        f"{'last':22}{last['epoch']:>6}  {_accuracies(last)}",
        f"weights: {out}/best{_SUFFIX}, {out}/last{_SUFFIX}; every epoch: {out}/history.csv",
    ]
    return "\n".join(lines)


_SUFFIX = ".safetensors"


def _accuracies(row: Mapping[str, Any]) -> str:
    found = {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}
    return ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.items() if value is not None)
