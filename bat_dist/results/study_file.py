"""`study.json`: which studies a folder is to hold, and the trainings that they share; read and written here."""

from collections.abc import Iterable
from typing import NamedTuple

from bat_dist.results.evaluation_file import read_object
from bat_dist.settings.study import StudyRun
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance

STUDY = "study.json"


class StudyFile(NamedTuple):
    """What `study.json` says."""

    studies: tuple[str, ...] = ()
    runs: tuple[StudyRun, ...] = ()


def read_studies(folder: Folder) -> StudyFile:
    """The folder's studies; none if it holds none.  Raises UserError if the file is damaged."""
    if not folder.exists(STUDY):
        return StudyFile()
    found = read_object(folder, STUDY)
    return StudyFile(tuple(found["studies"]), tuple(StudyRun(**run) for run in found["runs"]))


def add_studies(folder: Folder, studies: Iterable[str], runs: Iterable[StudyRun]) -> None:
    """Add these; what was there before stays."""
    before = read_studies(folder)
    every_run = dict.fromkeys((*before.runs, *runs))
    document = {
        "studies": list(dict.fromkeys((*before.studies, *studies))),
        "runs": [run._asdict() for run in every_run],
    }
    folder.write_json(STUDY, {**document, **provenance()})
