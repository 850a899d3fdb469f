"""What programs need not be told, since folders know it: an earlier call's settings, the data that they start from.

Nothing that says how or where a job runs is taken from a folder.  Imports neither torch nor ray, and what reads files
only when it is asked, so that `--help` answers at once.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bat_dist.config import COMMAND_LINE, Given, Known, required_names
from bat_dist.data.table import DATASETS, OWN, own_name
from bat_dist.errors import UserError
from bat_dist.models.names import AUTO
from bat_dist.settings.decides import Decides, GivenWith, deciding, marks
from bat_dist.settings.memorize import MemorizeSettings


def nothing(given: Mapping[str, Given]) -> Mapping[str, Given]:
    """What a program knows of its data that starts from no other folder."""
    return {}


def resumed(verb: str, settings_class: Any, data: Known = nothing) -> Known:
    """What `data` knows, and if that leaves a required setting open, all settings of an earlier call, from `out`.

    So a call that is complete means the same whatever its folder holds. A block of YAML (`base`) that a file gives is
    given as a whole; on the command line it is key by key.
    """
    required = required_names(settings_class)

    def known(given: Mapping[str, Given]) -> dict[str, Given]:
        found = dict(data(given))
        if "out" not in given or required <= {*given, *found}:
            return found
        from bat_dist.storage.files import Folder
        from bat_dist.storage.recorded import settings_of

        earlier = settings_of(Folder(given["out"].value), verb)
        filed = {name for name, one in given.items() if one.where != COMMAND_LINE}
        outdated = [name for name, mark in marks(settings_class, GivenWith).items() if mark.other in given]
        not_taken = filed.union(deciding(settings_class, Decides.CALL), outdated)
        earlier = _at_hand({name: one for name, one in earlier.items() if name not in not_taken}, given)
        return {**data(_over(earlier, given)), **earlier}

    return known


def _over(earlier: Mapping[str, Given], given: Mapping[str, Given]) -> dict[str, Given]:
    """What a call gives over an earlier one's settings; mappings key by key."""
    merged = {**earlier, **given}
    for name, one in given.items():
        old = _value(earlier, name)
        if isinstance(old, dict) and isinstance(one.value, dict):
            merged[name] = Given({**old, **one.value}, one.where)
    return merged


def of_checkpoint(given: Mapping[str, Given]) -> dict[str, Given]:
    """`evaluate`: the data are those of the checkpoint's training, and so is epsilon, if the user chose it there."""
    if "checkpoint" not in given:
        return {}
    from bat_dist.storage.recorded import SUFFIX, data_of_checkpoint

    place = str(_value(given, "checkpoint"))
    if _value(given, "model") is not None and (Path(place).is_file() or place.endswith(SUFFIX)):
        return {}  # weights of others

    return _of_same_data(given, _with_own_epsilon(data_of_checkpoint(given["checkpoint"].value)))


def of_scores(given: Mapping[str, Given]) -> dict[str, Given]:
    """`train`: the data are those of the scores."""
    scores = _value(given, "scores")
    if scores is None:
        return {}
    from bat_dist.storage.recorded import data_of_scores

    return _of_same_data(given, data_of_scores(scores))


def of_merge(given: Mapping[str, Given]) -> dict[str, Given]:
    """`memorize --merge`: unless a dataset is given, the settings are those of the first folder that is named."""
    if "merge" not in given or "dataset" in given:
        return {}
    from bat_dist.storage.files import Folder
    from bat_dist.storage.recorded import settings_of

    places = given["merge"].value
    first = places if isinstance(places, str) else next(iter(places), "")
    not_taken = {*given, *deciding(MemorizeSettings, Decides.CALL)}
    earlier = settings_of(Folder(str(first)), "memorize")
    if _value(earlier, "num_trials") == AUTO:  # all trials are merged, and not the first that were enough
        not_taken |= {"num_trials", *marks(MemorizeSettings, GivenWith)}
    return _at_hand({name: one for name, one in earlier.items() if name not in not_taken}, given)


def of_scores_in_base(given: Mapping[str, Given]) -> dict[str, Given]:
    """`tune`: the data in `base` are those of the scores in it."""
    base = given.get("base", Given({}, ""))
    scores = base.value.get("scores")
    if not isinstance(scores, str):
        return {}
    typed = {name: Given(value, base.where) for name, value in base.value.items()}
    data = of_scores({**typed, "scores": Given(beside(scores, base.where), base.where)})
    if not data:
        return {}
    where = next(iter(data.values())).where
    return {"base": Given({name: one.value for name, one in data.items()}, where)}


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
    """What was found, without an epsilon that is the dataset's: nobody chose that."""
    name = str(_value(found, "dataset"))
    spec = OWN if own_name(name) else DATASETS.get(name)
    epsilon = _value(found, "epsilon")
    if spec and isinstance(epsilon, float) and math.isclose(epsilon, spec.epsilon):
        return {name: one for name, one in found.items() if name != "epsilon"}
    return found


def _value(given: Mapping[str, Given], name: str) -> Any:
    return given[name].value if name in given else None
