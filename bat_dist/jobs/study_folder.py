"""How a folder of studies begins, also where nothing is trained.  Imports neither torch nor ray."""

import dataclasses

from bat_dist.jobs.fresh import remove_studies
from bat_dist.results.study_file import add_studies
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings

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
