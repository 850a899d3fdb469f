"""The settings that a folder was made with, written when the work began, for later commands to take up.

Each program writes `config.yaml` into its folder, and its name into the first line; `--config` reads the file as any
other. Where results of two programs share a folder, the second one's file is called `evaluate.yaml` and the like.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from bat_dist.config import Given, dump_yaml
from bat_dist.config.yaml_file import read_yaml
from bat_dist.errors import UserError
from bat_dist.storage.files import Folder, split_location
from bat_dist.storage.provenance import without_passwords

CONFIG = "config.yaml"
TRAIN = "train"  # wrote files without the first line, in the first releases
SUFFIX = ".safetensors"
DATA = ("dataset", "data_dir", "num_train", "num_test", "num_classes", "image_size", "test_share")
_EXPORT = "config.json"
_SUMMARIES = ("summary.json", "ensemble_summary.json", "provenance.json")  # the last of exported scores


def note_settings(folder: Folder, verb: str, settings: Any) -> None:
    """Write the settings of a program, which begins, into its folder."""
    text = f"# settings of bat-dist {verb}\n{without_passwords(dump_yaml(settings))}"
    folder.write(_name(folder, verb), text.encode())


def forget_settings(folder: Folder, verb: str) -> None:
    """Remove what the program noted there."""
    folder.remove(_name(folder, verb))


def settings_of(folder: Folder, verb: str) -> dict[str, Given]:
    """What the program noted there; nothing in a folder that is new, or of an older version.

    A value that was written without its password is left out. Raises UserError if the file is damaged.
    """
    name = _name(folder, verb)
    for wanted in dict.fromkeys((CONFIG, name)):  # one that has lost its first line may be anybody's
        document = _read(folder, wanted) if folder.exists(wanted) else {}
    return {key: Given(value, f"{folder}/{name}") for key, value in document.items() if "://***@" not in str(value)}


def data_of_checkpoint(location: str) -> dict[str, Given]:
    """The data that a network was trained on, and the epsilon that was asked for, from the files beside it.

    location: a folder of `bat-dist train` or `bat-dist export`, or a .safetensors file in one. Raises UserError.
    """
    folder = split_location(location)[0] if location.endswith(SUFFIX) else Folder(location)
    trained = settings_of(folder, TRAIN)
    if "dataset" in trained:
        return _without_none({name: one for name, one in trained.items() if name in (*DATA, "epsilon")})
    config = folder.read_json(_EXPORT) if folder.exists(_EXPORT) else {}
    if not isinstance(config, dict) or config.get("library_name") != "bat_dist":
        return {}
    facts = {name: config.get("training", {}).get(name) for name in ("dataset", "epsilon")}
    found = {**facts, **config.get("data", {})}
    return _without_none({name: Given(value, f"{folder}/{_EXPORT}") for name, value in found.items()})


def data_of_scores(location: str) -> dict[str, Given]:
    """The data that scores were computed on, from the files beside theirs.  Raises UserError."""
    folder, _ = split_location(location)
    found = settings_of(folder, "memorize")
    for name in _SUMMARIES:
        if "dataset" not in found and folder.exists(name):
            summary = folder.read_json(name)
            asked = summary.get("settings") if isinstance(summary, dict) else None
            found = {key: Given(value, f"{folder}/{name}") for key, value in (asked or {}).items()}
    return _without_none({name: one for name, one in found.items() if name in DATA})


def _without_none(found: Mapping[str, Given]) -> dict[str, Given]:
    return {name: one for name, one in found.items() if one.value is not None}


def _name(folder: Folder, verb: str) -> str:
    """The program's file in the folder, there or not."""
    if not folder.exists(CONFIG):
        return CONFIG
    first = re.match(rb"# settings of bat-dist (\w+)\n", folder.read(CONFIG))
    owner = first[1].decode() if first else TRAIN
    return CONFIG if owner == verb else f"{verb}.yaml"


def _read(folder: Folder, name: str) -> dict[str, Any]:
    try:
        document = read_yaml(folder.read(name))
        problem = "" if isinstance(document, dict) else "it must hold lines of `name: value`"
    except (yaml.YAMLError, ValueError) as error:
        document, problem = {}, " ".join(str(error).split())
    if problem:
        raise UserError(f"{folder}/{name} is damaged: remove it, and give all settings again ({problem})")
    return {str(key): value for key, value in document.items()}
