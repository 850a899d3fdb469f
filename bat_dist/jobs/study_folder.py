"""How a folder of studies begins, also where nothing is trained.  Imports neither torch nor ray."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from bat_dist.errors import UserError
from bat_dist.jobs.fresh import remove_studies
from bat_dist.results.study_file import STUDY, add_studies
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import CONFIG, note_settings

VERB = "study"


def begin_studies(folder: Folder, settings: StudySettings) -> StudySettings:
    """Note which studies the folder is to hold; with `fresh`, after what it held is removed.

    Returns the settings that the work goes on with: places absolute, and not fresh again.
    """
    places = {name: Folder(place) for name in ("out", "data_dir") if (place := getattr(settings, name))}
    changes = {name: place.absolute_location for name, place in places.items()}
    trials = {name: place for name in ("scores", "reference", "balanced") if (place := getattr(settings, name))}
    changes |= {name: Folder(place).absolute_location for name, place in trials.items()}
    if settings.fresh:
        remove_studies(folder)
    settings = dataclasses.replace(settings, **changes, fresh=False)
    folder.create()
    add_studies(folder, settings.study, settings.runs())
    note_settings(folder, VERB, settings)
    return settings


@contextmanager
def kept_if_refused(folder: Folder) -> Iterator[None]:
    """What the folder says of its studies is put back if UserError is raised: the next call may give the folder alone.

    Trainings that are there are compared with the settings after the trials, hours after `begin_studies` noted them.
    """
    names = (CONFIG, f"{VERB}.yaml", STUDY)
    before = {name: folder.read(name) for name in names if folder.exists(name)}
    try:
        yield
    except UserError:
        for name, content in before.items():
            folder.write(name, content)
        raise
