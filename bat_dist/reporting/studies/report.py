"""All studies by name, and the files that each leaves: data, figures, `findings.json`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from bat_dist.errors import UserError
from bat_dist.reporting.page import save_figures
from bat_dist.reporting.studies import (
    alignment,
    attribution,
    curves,
    efficiency,
    gallery,
    poisoning,
    separation,
    theory,
)
from bat_dist.results.claims import CLAIMS, Finding
from bat_dist.results.findings_file import FoundStudy, read_findings, write_findings
from bat_dist.settings.study import FINDINGS, RESULTS, StudySettings
from bat_dist.storage.files import Folder
from bat_dist.studies.inputs import StudyInputs


class StudyReport(NamedTuple):
    """How a study ends.  analyse: writes data, returns findings. draw: figures by name, from the data alone.

    lines: what is printed beside the findings, from the data alone. note: what it is based on, for captions.
    """

    analyse: Callable[[StudyInputs, Folder], list[Finding]]
    draw: Callable[[Folder, Mapping[str, Any]], dict[str, Figure]]
    lines: Callable[[Folder], Sequence[str]] = lambda _: ()
    note: Callable[[StudyInputs], str] = lambda inputs: inputs.about


REPORTS = {
    "atypical": StudyReport(curves.analyse_atypical, curves.draw_atypical),
    "typical": StudyReport(curves.analyse_typical, curves.draw_typical),
    "separation": StudyReport(separation.analyse_separation, separation.draw_separation),
    "alignment": StudyReport(alignment.analyse_alignment, alignment.draw_alignment),
    "attribution": StudyReport(
        attribution.analyse_attribution,
        attribution.draw_attribution,
        attribution.lines_of_attribution,
        gallery.about_scores,
    ),
    "gallery": StudyReport(gallery.analyse_gallery, gallery.draw_gallery, note=gallery.about_scores),
    "histogram": StudyReport(gallery.analyse_histogram, gallery.draw_histogram, note=gallery.about_scores),
    "theory": StudyReport(
        lambda inputs, folder: theory.analyse_theory(inputs.settings, folder),
        theory.draw_theory,
        note=lambda inputs: theory.about_theory(inputs.settings),
    ),
    "efficiency": StudyReport(
        lambda inputs, folder: efficiency.analyse_efficiency(inputs.settings, folder),
        efficiency.draw_efficiency,
        note=lambda inputs: efficiency.about_efficiency(inputs.settings),
    ),
    "poisoning": StudyReport(poisoning.analyse, poisoning.draw, poisoning.lines),
}


def report_study(name: str, inputs: StudyInputs) -> Iterator[str]:
    """Write a study's data, findings and figures; yields the lines to print."""
    report, folder = REPORTS[name], inputs.folder / RESULTS / name
    folder.create()
    sizes = {name: int(members.sum()) for name, members in inputs.sets.watched.items()}
    about = {"note": report.note(inputs), "sizes": sizes}
    yield from _report(name, folder, report.analyse(inputs, folder), about)


def report_without_data(name: str, studies: Folder, settings: StudySettings) -> Iterator[str]:
    """`report_study` of `theory` or `efficiency`, for a call that asks for no other study and so loads no data."""
    analyse, about = {
        "theory": (theory.analyse_theory, theory.about_theory),
        "efficiency": (efficiency.analyse_efficiency, efficiency.about_efficiency),
    }[name]
    folder = studies / RESULTS / name
    folder.create()
    yield from _report(name, folder, analyse(settings, folder), {"note": about(settings)})


def redraw(name: str, folder: Folder) -> None:
    """Draw the figures again from the study's own data.  Raises UserError if it has none yet."""
    if not folder.exists(FINDINGS):
        raise UserError(f"{folder} holds no findings to draw: run bat-dist study {name} first")
    save_figures(folder, REPORTS[name].draw(folder, read_findings(folder).about))


def _report(name: str, folder: Folder, findings: Sequence[Finding], about: Mapping[str, Any]) -> Iterator[str]:
    write_findings(FoundStudy(folder, name, about, tuple(findings)))
    redraw(name, folder)
    yield f"{name}: {about['note']}"
    yield from (f"  {line}" for one in findings for line in in_words(one))
    yield from (f"  {line}" for line in REPORTS[name].lines(folder))
    yield f"  data, figures and findings: {folder}"


def in_words(finding: Finding) -> Sequence[str]:
    """The claim, its estimate and the verdict, in two lines."""
    claim = CLAIMS[finding.claim]
    return [
        f"{claim.place}: {claim.statement}: {finding.verdict}",
        f"  {claim.quantity}: {interval_in_words(finding)} ({finding.based_on})",
    ]


def interval_in_words(finding: Finding) -> str:
    """`0.027 (95%: 0.004 to 0.050)`; the estimate alone where it is exact, or its interval unknown; or `unknown`."""
    if math.isnan(finding.estimate):
        return "unknown"
    interval = f" (95%: {finding.low:.3f} to {finding.high:.3f})" if finding.low < finding.high else ""
    return f"{finding.estimate:.3f}{interval}"
