"""The paper's studies from settings to findings: what `bat-dist study` and `bat_dist.study` do."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bat_dist.api.calls import public, settings_of
from bat_dist.errors import RunError
from bat_dist.settings.study import RESULTS, StudySettings
from bat_dist.wording import counted
from bat_dist.workers.private_ray import prepare_environment

if TYPE_CHECKING:
    from bat_dist.results.findings_file import FoundStudy


class StudyRuns:
    """Studies that are carried out.

    failed: trainings that failed, with the reason, once `lines` has come to its end.
    """

    def __init__(self, settings: StudySettings) -> None:
        self._settings = settings
        self.failed: Mapping[str, str] = {}

    def lines(self) -> Iterator[str]:
        """Do what the folder lacks; yields the lines to print.  Raises UserError and RunError."""
        from bat_dist.jobs.all_studies import Studies
        from bat_dist.reporting.studies.report import redraw
        from bat_dist.storage.files import Folder
        from bat_dist.storage.lease import only_driver

        folder = Folder(self._settings.out)
        if self._settings.redraw:
            for name in self._settings.study:
                redraw(name, folder / RESULTS / name)
            return
        studies = Studies(self._settings)
        with only_driver(folder):
            yield from studies.lines()
        self.failed = studies.failed


@public
def study(names: str | Sequence[str], *, out: str | Path, **settings: Any) -> "Mapping[str, FoundStudy]":
    """Carry out studies of the paper: which samples help, which hurt, and which claims hold on these data.

    Trains on Ray what the folder lacks; studies with one folder share their trials and trainings.

    Args:
        names: which, such as "typical" or ["histogram", "gallery"]; `bat-dist study --help` lists them.
        out: the result folder: data, figures and findings of each study are below `out`/studies.
        **settings: all options of `bat-dist study`, by name, such as scale="small", dataset="cifar10",
            scores="results/memorization.npz".

    Returns:
        By study: `.findings`, each with a claim of the paper, an estimate and an interval, and `.about`.

    Raises:
        UserError: for settings that do not exist or do not fit, and for scores or labels of other data.
        RunError: if a training failed; the same call runs it again and keeps the others.

    Example:
        >>> study("theory", out="studies")  # doctest: +SKIP
    """
    from bat_dist.results.findings_file import read_findings
    from bat_dist.storage.files import Folder

    asked = [names] if isinstance(names, str) else [*names]
    made = settings_of(StudySettings, {**settings, "study": asked, "out": out}, call="study", stand_in={})
    prepare_environment(made.ray_address)
    runs = StudyRuns(made)
    for _ in runs.lines():
        pass
    if runs.failed:
        run, reason = next(iter(runs.failed.items()))
        raise RunError(f"{counted(len(runs.failed), 'training')} failed, {run} with {reason}; the same call goes on")
    place = Folder(made.out) / RESULTS
    return {name: read_findings(place / name) for name in made.study}
