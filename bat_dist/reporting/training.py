"""The end of a training run: a figure of its curves, and a few lines for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from bat_dist.artifacts.checkpoints import SUFFIX
from bat_dist.figures.curves import training_curves
from bat_dist.reporting.page import save_figures
from bat_dist.storage.files import Folder
from bat_dist.training.files import FinishedRun


def report_training(folder: Folder, summary: FinishedRun, history: Sequence[Mapping[str, Any]]) -> str:
    """Write curves.png and curves.svg; returns the lines to print."""
    identity = summary.identity
    title = f"{identity['method']}: {identity['arch']} on {identity['dataset']}"
    fig = training_curves({identity["method"]: history}, title=title, num_val=identity["num_val"])
    save_figures(folder, {"curves": fig})
    return in_words(str(folder), summary)


def in_words(out: str, summary: FinishedRun) -> str:
    """A few lines for the terminal on a run."""
    best, last = summary.best, summary.last
    lines = [
        f"{'':22}{'epoch':>6}  validation accuracy",
        f"{'best by ' + summary.best_by:22}{best['epoch']:>6}  {_accuracies(best)}",
        f"{'last':22}{last['epoch']:>6}  {_accuracies(last)}",
        f"weights: {out}/best{SUFFIX}, {out}/last{SUFFIX}; every epoch: {out}/history.csv, {out}/curves.png",
    ]
    return "\n".join(lines)


def _accuracies(row: Mapping[str, Any]) -> str:
    found = {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}
    return ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.items() if value is not None)
