"""The data card of exported scores: Markdown with YAML in front, as the Hugging Face Hub reads it; and their origin."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from bat_dist.artifacts.score_export import INFLUENCE_TABLE, FoundScores
from bat_dist.artifacts.scores import SCORES_TABLE
from bat_dist.memorization.reliability import reliability_in_words
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD
from bat_dist.reporting.jinja import templates
from bat_dist.reporting.model_card import Raw, as_text, escaped
from bat_dist.settings.decides import Decides, deciding
from bat_dist.settings.export import one_line
from bat_dist.settings.memorize import MemorizeSettings

_NUMBERS = (
    *("num_trials", "reliability", "mean_mem", "share_atypical", "num_undefined", "influence_threshold"),
    *("num_influential_pairs", "accuracy_in", "accuracy_out", "accuracy_test"),
)
_ORIGIN = ("bat_dist", "git_revision", "python", "versions", "computed_on")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def provenance_of_scores(found: FoundScores) -> Mapping[str, Any]:
    """How the scores came about, for `provenance.json`: command, settings, data, numbers and versions.

    No place on this machine is in it: the command is made of the settings, and of files only their names are left.
    """
    summary = found.summary
    settings = shared_settings(summary.get("settings") or {})
    origin = summary.get("provenance") or {}
    return {
        "command": command_of(settings) if settings else None,
        "dataset": summary.get("dataset"),
        "fingerprint": found.fingerprint,
        "num_train": found.num_train,
        "num_test": found.num_test,
        **{name: summary[name] for name in _NUMBERS if name in summary},
        "settings": settings,
        "origin": {name: origin[name] for name in _ORIGIN if origin.get(name) is not None},
    }


def score_card(
    found: FoundScores,
    provenance: Mapping[str, Any],
    *,
    name: str | None = None,
    authors: str | None = None,
    link: str | None = None,
    license: str | None = None,
) -> str:
    """The text of README.md.  provenance: see `provenance_of_scores`.  Texts are plain and are escaped here."""
    dataset = str(provenance["dataset"] or "images")
    title = name or f"Memorization of {dataset}"
    trials, reliability = provenance.get("num_trials"), provenance.get("reliability")
    return (
        templates(finalize=escaped, keep_trailing_newline=True)
        .get_template("score_card.md.j2")
        .render(
            front_matter=Raw(_front_matter(found, title, dataset, license)),
            name=title,
            authors=authors,
            link=link and Raw(f"<{link}>"),
            dataset=dataset,
            about=provenance,
            trials=trials,
            files=found.files,
            num_pairs=found.num_pairs,
            reliability=None if not trials or reliability is None else reliability_in_words(reliability, trials),
            threshold=ATYPICAL_THRESHOLD,
            as_text=as_text,
            command=Raw(one_line(provenance["command"] or "")),
        )
    )


def _front_matter(found: FoundScores, title: str, dataset: str, license: str | None) -> str:
    tables = {"scores": SCORES_TABLE, "influence": INFLUENCE_TABLE}
    about = {
        "license": license,
        "pretty_name": one_line(title),
        "tags": ["memorization", "data-attribution", "image-classification", "bat_dist", one_line(dataset)],
        "size_categories": [next((size for limit, size in _SIZES if found.num_train < limit), "n>1M")],
        "configs": [
            {"config_name": config, "data_files": table, **({"default": True} if config == "scores" else {})}
            for config, table in tables.items()
            if table in found.files
        ],
    }
    return yaml.safe_dump({k: v for k, v in about.items() if v is not None}, sort_keys=False, width=10**6)


def shared_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that decide the scores, without places."""
    names = deciding(MemorizeSettings, Decides.RESULT, Decides.DATA)
    return {
        name: _without_place(settings[name])
        for name in (*names, "first_trial")
        if name in settings and name != "data_dir"
    }


def _without_place(value: Any) -> Any:
    """A value in which of a file or folder only the name is left: net.py:Net, hf:birds."""
    if isinstance(value, list | tuple):
        return [_without_place(item) for item in value]
    if not isinstance(value, str):
        return value
    form, place = re.fullmatch(r"(hf:)?(.*)", value, flags=re.DOTALL).groups("")  # type: ignore[union-attr]
    is_place = ".py:" in place or place.endswith(".npz") or "://" in place or place.startswith(("/", "~", "."))
    return form + (place.rpartition("/")[2] if is_place else place)


def command_of(settings: Mapping[str, Any]) -> str:
    """The command that computes the same scores: what differs from the defaults."""
    words = ["bat-dist", "memorize"]
    for name, value in settings.items():
        if value is None or value == MemorizeSettings.__dataclass_fields__[name].default:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join([*words, "--out", "DIR"])
