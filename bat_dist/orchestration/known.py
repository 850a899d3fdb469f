"""What programs need not be told, since folders know it: an earlier call's settings, the data that they start from.

Nothing that says how or where a job runs is taken from a folder.  Imports neither torch nor ray, and what reads files
only when it is asked, so that `--help` answers at once.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bat_dist.config import COMMAND_LINE, Given, Known, UserError, names_of_group
from bat_dist.data.table import DATASETS

_HOW = frozenset({"out", "status", "download", "fresh", "concurrency", "max_hours"})  # beside the group Ray


def resumed(verb: str, settings_class: Callable[..., Any]) -> Known:
    """The settings of an earlier call, from the folder `out`.

    A block of YAML (`base`) that a file gives is given as a whole; on the command line it is key by key.
    """
    how = _HOW | names_of_group(settings_class, "Ray")

    def known(given: Mapping[str, Given]) -> dict[str, Given]:
        if "out" not in given:
            return {}
        from bat_dist.storage.files import Folder
        from bat_dist.storage.recorded import settings_of

        found = settings_of(Folder(given["out"].value), verb)
        filed = {name for name, one in given.items() if one.where != COMMAND_LINE}
        return _at_hand({name: one for name, one in found.items() if name not in how | filed}, given)

    return known


def of_evaluate(resume: Known) -> Known:
    """The data are those of the checkpoint's training, and so is epsilon, if the user chose it there."""

    def known(given: Mapping[str, Given]) -> dict[str, Given]:
        found = dict(resume(given))
        now = {**found, **given}
        if "dataset" in found or "checkpoint" not in now or _value(now, "model") is not None:
            return found
        from bat_dist.storage.recorded import data_of_checkpoint

        return found | _of_same_data(given, _with_own_epsilon(data_of_checkpoint(now["checkpoint"].value)))

    return known


def of_train(resume: Known) -> Known:
    """The data are those of the scores."""

    def known(given: Mapping[str, Given]) -> dict[str, Given]:
        found = dict(resume(given))
        scores = _value({**found, **given}, "scores")
        if "dataset" in found or scores is None:
            return found
        from bat_dist.storage.recorded import data_of_scores

        return found | _of_same_data(given, data_of_scores(scores))

    return known


def of_tune(resume: Known) -> Known:
    """The data in `base` are those of the scores in it."""

    def known(given: Mapping[str, Given]) -> dict[str, Given]:
        found = dict(resume(given))
        old, new = _value(found, "base") or {}, given.get("base", Given({}, ""))
        scores = {**old, **new.value}.get("scores")
        if "dataset" in old or not isinstance(scores, str):
            return found
        from bat_dist.storage.recorded import data_of_scores

        typed = {name: Given(value, new.where) for name, value in new.value.items()}
        data = _of_same_data(typed, data_of_scores(beside(scores, new.where)))
        if not data:
            return found
        where = next(iter(data.values())).where
        return found | {"base": Given({**{name: one.value for name, one in data.items()}, **old}, where)}

    return known


def beside(location: str, where: str) -> str:
    """A file that is not here, but lies beside the file that names it (`x.yaml line 3`), is that one."""
    if "://" in location or Path(location).exists():
        return location
    there = Path(where.rpartition(" line ")[0]).parent / location
    return str(there) if there.is_file() else location


def _of_same_data(given: Mapping[str, Given], found: dict[str, Given]) -> dict[str, Given]:
    """Nothing, if another dataset was given: its sizes would not be right."""
    if "dataset" in given and "dataset" in found and given["dataset"].value != found["dataset"].value:
        return {}
    return _at_hand({name: one for name, one in found.items() if name not in given}, given)


def _at_hand(found: dict[str, Given], given: Mapping[str, Given]) -> dict[str, Given]:
    """Raises UserError if a place of data would be taken that is not there any more."""
    base, given_base = _value(found, "base") or {}, _value(given, "base") or {}
    if "data_dir" in found and "data_dir" not in given:
        _check_place(found["data_dir"], "--data_dir DIR")
    if "data_dir" in base and "data_dir" not in given_base:
        _check_place(Given(base["data_dir"], found["base"].where), "--base data_dir=DIR")
    return found


def _check_place(place: Given, option: str) -> None:
    if isinstance(place.value, str) and not Path(place.value).expanduser().exists():
        raise UserError(f"data_dir {place.value}, which {place.where} names, is not there: give {option}")


def _with_own_epsilon(found: dict[str, Given]) -> dict[str, Given]:
    """Without an epsilon that is the dataset's: nobody chose that."""
    spec = DATASETS.get(str(_value(found, "dataset")))
    epsilon = _value(found, "epsilon")
    if spec and isinstance(epsilon, float) and math.isclose(epsilon, spec.epsilon):
        return {name: one for name, one in found.items() if name != "epsilon"}
    return found


def _value(given: Mapping[str, Given], name: str) -> Any:
    return given[name].value if name in given else None
