"""`findings.json`: what a study says of the paper's claims; read and written here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bat_dist.errors import UserError
from bat_dist.results.claims import CLAIMS, Finding
from bat_dist.results.evaluation_file import read_object
from bat_dist.settings.study import FINDINGS
from bat_dist.settings.study_names import STUDIES
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance


@dataclass(frozen=True)
class FoundStudy:
    """A study that is finished.  about: the data and networks behind it in words, and what its figures need."""

    folder: Folder
    study: str
    about: Mapping[str, Any]
    findings: tuple[Finding, ...]


def write_findings(study: FoundStudy) -> None:
    """Write them, each with its claim and verdict in words for those who read the file."""
    rows = []
    for one in study.findings:
        claim = CLAIMS[one.claim]
        rows.append({**one._asdict(), "verdict": one.verdict, "place": claim.place, "statement": claim.statement})
    document = {"study": study.study, "about": study.about, "findings": rows, **provenance()}
    study.folder.write_json(FINDINGS, document)


def read_findings(folder: Folder) -> FoundStudy:
    """What the file says; claims that this version does not know are left out.

    Raises UserError if it is damaged, or of a study that this version does not know.
    """
    document = read_object(folder, FINDINGS)
    if document["study"] not in STUDIES:
        raise UserError(f"a study that this version does not know, {document['study']}: a newer bat_dist reports it")
    rows: Sequence[Mapping[str, Any]] = [row for row in document["findings"] if row["claim"] in CLAIMS]
    findings = [
        Finding(row["claim"], *(_number(row[name]) for name in ("estimate", "low", "high")), based_on=row["based_on"])
        for row in rows
    ]
    about = {**document["about"], "note": str(document["about"]["note"])}
    return FoundStudy(folder, document["study"], about, tuple(findings))


def _number(value: float | None) -> float:
    """JSON has null for NaN."""
    return math.nan if value is None else value
