"""`memorize --merge A B`: the rows of several result folders, which clusters have shared, in one."""

import dataclasses
import logging
from collections.abc import Sequence

from bat_dist.artifacts.scores import ENSEMBLE, TRIALS
from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.jobs.auto import identity_in, without_auto
from bat_dist.jobs.fresh import remove_memorization
from bat_dist.jobs.memorize import KEPT, identity_of_rows, settings_of_members, settings_of_trials
from bat_dist.jobs.scores import check_not_imported
from bat_dist.models.names import AUTO
from bat_dist.settings.fields import ARCH_OF_TRIALS
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.computed_on import HardwareLog, read_hardware
from bat_dist.storage.files import Folder
from bat_dist.storage.merging import Joined, StorePart, check_identity, common_fields, copy_rows, in_words, join
from bat_dist.storage.rows import RowStore
from bat_dist.storage.status import STORES, failure_name
from bat_dist.storage.unit_log import log_name

log = logging.getLogger(__name__)


def merge_folders(
    folder: Folder, dataset: Dataset, settings: MemorizeSettings, places: Sequence[str]
) -> MemorizeSettings:
    """Write the trials, or ensemble members, of the folders `places` into `folder`, and say what was taken from each.

    Nothing is written before all was read and checked; a call that was cut off is completed by the next one.
    Returns the settings of the rows that are there then: their numbers, and their precision.
    Raises UserError if a folder has no rows, rows of other settings or data, or other values in a row than another
    folder, `folder` itself included.
    """
    name = TRIALS if settings.score == "leave_out" else ENSEMBLE
    what = STORES[name]
    if name == TRIALS:
        check_not_imported(folder, settings)
    parts = [_part(folder, place, name) for place in places]
    for number, part in enumerate(parts):
        if any(_is_same(part.place, other.place) for other in parts[:number]):
            raise UserError(f"merge: {part} is given twice")
    settings = settled_by(parts[0].store, dataset, settings)
    identity = identity_of_rows(
        settings_of_trials(settings)(precision=settings.precision)
        if name == TRIALS
        else settings_of_members(dataset, settings)(precision=settings.precision),
        dataset,
    )
    for part in parts:
        check_identity(part, identity)
    there = None if settings.fresh else RowStore.existing(folder / name)
    known = [] if there is None or not there.is_begun() else [StorePart(folder, there, what)]
    for part in known:
        part.store.check(part.store.fields, identity)
    fields = common_fields([*known, *parts])
    left_out = {name for part in parts for name in part.store.fields} - fields.keys()
    for part in known:
        if lacking := part.store.fields.keys() - fields.keys():
            raise UserError(
                f"{folder} has {', '.join(sorted(lacking))} of its {what}, and not all of those to merge have"
            )
    parts = [*known, *parts]
    joined = join(parts, fields)
    if settings.fresh:
        remove_memorization(folder)
    store = RowStore.open(folder / name, fields=fields, identity=identity, num_rows=joined.numbers[-1] + 1)
    for position, part in enumerate(parts):
        if part not in known:
            copy_rows(part, joined.rows.get(position, ()), store)
            _copy_records(part, joined.rows.get(position, ()), folder)
    for line in in_words(parts, joined):
        log.info("%s", line)
    if left_out:
        log.info("not all folders have %s: the merged %s are without", ", ".join(sorted(left_out)), what)
    kept = settings.keep if left_out.isdisjoint(KEPT) else None
    return _with_numbers(dataclasses.replace(settings, keep=kept), joined)


def _part(folder: Folder, place: str, name: str) -> StorePart:
    source = Folder(place)
    if _is_same(source, folder):
        raise UserError(f"merge: {source} is the result folder itself, whose rows are kept anyway: leave it out")
    store = RowStore.existing(source / name)
    if store is None or not store.status().complete.any():
        raise UserError(f"merge: {source} holds no finished {STORES[name]}: name folders of bat-dist memorize")
    return StorePart(source, store, STORES[name])


def _is_same(one: Folder, other: Folder) -> bool:
    if one.local_path is not None and other.local_path is not None:
        return one.local_path.resolve() == other.local_path.resolve()
    return one.absolute_location == other.absolute_location


def settled_by(store: RowStore, dataset: Dataset, settings: MemorizeSettings) -> MemorizeSettings:
    """The settings, with what the rows of a store tell in the place of auto."""
    begun = identity_in(store)
    settled, _ = without_auto(dataclasses.replace(settings, fresh=False), lambda: begun, dataset, ARCH_OF_TRIALS)
    precision = begun["precision"] if settings.precision == AUTO else settings.precision
    return dataclasses.replace(settled, precision=precision, fresh=settings.fresh)


def _with_numbers(settings: MemorizeSettings, joined: Joined) -> MemorizeSettings:
    """The settings whose rows are those from the first to the last that are there."""
    first, last = joined.numbers[0], joined.numbers[-1]
    numbers = (
        {"first_trial": first, "num_trials": max(2, last - first + 1)}
        if settings.score == "leave_out"
        else {"num_members": max(2, last + 1)}
    )
    return dataclasses.replace(settings, fresh=False, **numbers)


def _copy_records(part: StorePart, numbers: Sequence[int], folder: Folder) -> None:
    """Copy what is known of the computation of these rows: their logs, and the hardware."""
    HardwareLog(folder, part.what).add(read_hardware(part.place, part.what))
    there = set(part.place.names(log_name(part.what, "*")))
    for number in numbers:
        name = log_name(part.what, number)
        if name.rpartition("/")[2] in there:
            folder.write(name, part.place.read(name))
        folder.remove(failure_name(part.what, number))
