"""The end of a training run: a figure of its curves, and a few lines for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from bat_dist.artifacts.checkpoints import SUFFIX
from bat_dist.errors import not_installed
from bat_dist.storage.files import Folder
from bat_dist.training.files import FinishedRun


def report_training(folder: Folder, summary: FinishedRun, history: Sequence[Mapping[str, Any]]) -> str:
    """Write curves.png and curves.svg, where matplotlib is installed; returns the lines to print."""
    try:
        from bat_dist.figures.curves import training_curves
        from bat_dist.reporting.page import save_figures
    except ModuleNotFoundError as error:
        if (lack := not_installed(error)) is None:
            raise
        return f"{in_words(str(folder), summary, drawn=False)}\nno picture of the curves: {lack}"
    identity = summary.identity
    title = f"{identity['method']}: {identity['arch']} on {identity['dataset']}"
    fig = training_curves({identity["method"]: history}, title=title, num_val=identity["num_val"])
    save_figures(folder, {"curves": fig})
    return in_words(str(folder), summary)


def in_words(out: str, summary: FinishedRun, *, drawn: bool = True) -> str:
    """A few lines for the terminal on a run.  drawn: there is a picture of its curves."""
    best, last = summary.best, summary.last
    lines = [
        f"{'':22}{'epoch':>6}  validation accuracy",
        f"{'best by ' + summary.best_by:22}{best['epoch']:>6}  {_accuracies(best)}",
        f"{'last':22}{last['epoch']:>6}  {_accuracies(last)}",
        f"weights: {out}/best{SUFFIX}, {out}/last{SUFFIX}; every epoch: {out}/history.csv"
        + f", {out}/curves.png" * drawn,
    ]
    return "\n".join(lines)


def _accuracies(row: Mapping[str, Any]) -> str:
    found = {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}
    return ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.items() if value is not None)
