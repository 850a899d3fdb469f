"""What an evaluation leaves: `evaluation.json`, and `flags.npz` with a flag for every attack and test image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.evaluation.hygiene import Check
from bat_dist.evaluation.result import Evaluation
from bat_dist.evaluation.statistics import Accuracy, accuracy
from bat_dist.storage.computed_on import read_hardware
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance

EVALUATION, FLAGS = "evaluation.json", "flags.npz"
ATTACKS = "attacks"  # the units are called, in metrics and where their hardware is kept
FORMAT = 1  # of evaluation.json, as this version writes it; files without a number are of the first releases
_NEEDED = ("rows", "facts", "network", "fingerprint", "settings")
_FURTHER = ("format", "checks", "num_checked", "by_class", "attack")  # not in files of the first releases


class AttackRow(NamedTuple):
    """The accuracy after one attack: on all test images, and by name on subsets of them."""

    attack: str
    overall: Accuracy
    subsets: Mapping[str, Accuracy]
    seconds: float  # of all workers together
    max_delta: float  # the largest change of a pixel in an image that fooled the network
    warnings: tuple[str, ...]  # names of the checks that failed


class AccuracyByClass(NamedTuple):
    """Accuracies by attack, one for each class; NaN for a class without an image."""

    classes: list[str]
    num_images: list[int]
    accuracy: Mapping[str, list[float]]


@dataclass(frozen=True)
class EvaluationDocument:
    """What `evaluation.json` says.  What a file of the first releases lacks is NaN, None or empty."""

    rows: tuple[AttackRow, ...]
    facts: Mapping[str, Any]  # of the network's checkpoint
    network: str  # a digest of the weights
    fingerprint: str  # of the data
    checks: tuple[Check, ...]
    num_checked: int  # images that the checks looked at
    by_class: AccuracyByClass | None
    epsilon: float | None  # of the attacks, like step_size, in [0, 1] pixels
    step_size: float | None
    settings: Mapping[str, Any]  # of the command
    origin: Mapping[str, Any]  # command, versions and hardware, as `storage.provenance` tells them


@dataclass(frozen=True)
class FoundEvaluation:
    """A run of `bat-dist evaluate`: its document, and by attack which test images stayed right.

    subsets: of the test images, such as typical and atypical.
    """

    place: str
    document: EvaluationDocument
    flags: Mapping[str, Bool[np.ndarray, " images"]]
    subsets: Mapping[str, Bool[np.ndarray, " images"]]


def write_evaluation(
    folder: Folder,
    dataset: Dataset,
    settings: Mapping[str, Any],
    evaluation: Evaluation,
    *,
    subsets: Mapping[str, Bool[np.ndarray, " images"]],
    facts: Mapping[str, Any],
    digest: str,
) -> EvaluationDocument:
    """Write both files.  subsets: of the test images, by name. facts and digest: of the network."""
    folder.write_npz(
        FLAGS,
        flags=np.array([row.robust for row in evaluation.rows]),
        attacks=np.array([row.name for row in evaluation.rows]),
        labels=dataset.test.labels,
        ids=dataset.test.ids,
        fingerprint=np.array(dataset.fingerprint),
        **{f"subset_{name}": members for name, members in subsets.items()},
    )
    rows = []
    for row in evaluation.rows:
        parts = {name: accuracy(row.robust[members]) for name, members in subsets.items()}
        rows.append(AttackRow(row.name, accuracy(row.robust), parts, row.seconds, row.max_delta, row.warnings))
    document = EvaluationDocument(
        rows=tuple(rows),
        facts=facts,
        network=digest,
        fingerprint=dataset.fingerprint,
        checks=evaluation.checks,
        num_checked=evaluation.num_checked,
        by_class=_by_class(dataset, evaluation),
        epsilon=settings.get("epsilon") or dataset.spec.epsilon,
        step_size=settings.get("step_size") or dataset.spec.step_size,
        settings=settings,
        origin=provenance(read_hardware(folder, ATTACKS)),
    )
    folder.write_json(EVALUATION, _as_json(document))
    return document


def _by_class(dataset: Dataset, evaluation: Evaluation) -> AccuracyByClass:
    labels, count = dataset.test.labels, len(dataset.class_names)
    num_images = np.bincount(labels, minlength=count)
    right = {row.name: np.bincount(labels[row.robust], minlength=count) for row in evaluation.rows}
    with np.errstate(invalid="ignore"):
        shares = {name: (found / num_images).tolist() for name, found in right.items()}
    return AccuracyByClass(list(dataset.class_names), num_images.tolist(), shares)


def _as_json(document: EvaluationDocument) -> dict[str, Any]:
    rows = []
    for row in document.rows:
        found = {"attack": row.attack, **row.overall._asdict(), "seconds": row.seconds, "max_delta": row.max_delta}
        parts = {name: part._asdict() for name, part in row.subsets.items()}
        rows.append({**found, "warnings": row.warnings, **parts})
    return {
        "format": FORMAT,
        "rows": rows,
        "facts": dict(document.facts),
        "network": document.network,
        "fingerprint": document.fingerprint,
        "checks": [check._asdict() for check in document.checks],
        "num_checked": document.num_checked,
        "by_class": document.by_class and document.by_class._asdict(),
        "attack": {"epsilon": document.epsilon, "step_size": document.step_size},
        "settings": dict(document.settings),
        **document.origin,
    }


def read_evaluation(folder: Folder) -> FoundEvaluation:
    """What both files say.

    Raises UserError where one is damaged, lacks what a table needs, or was written by a newer version, and where they
    are not of one evaluation; KeyError, TypeError or ValueError for a value that no version has written.
    """
    document = _document(folder)
    arrays = folder.read_npz(FLAGS)
    if missing := [name for name in ("flags", "attacks", "fingerprint") if name not in arrays]:
        version = document.origin.get("bat_dist", "an unknown version")
        raise UserError(f"{FLAGS} of bat_dist {version} has no {', '.join(missing)}: evaluate it again")
    names = arrays["attacks"].tolist()
    if str(arrays["fingerprint"]) != document.fingerprint or names != [row.attack for row in document.rows]:
        raise UserError(f"{EVALUATION} and {FLAGS} are not of one evaluation: evaluate it again")
    subsets = {name.removeprefix("subset_"): arrays[name] for name in arrays if name.startswith("subset_")}
    flags = dict(zip(names, np.asarray(arrays["flags"], bool), strict=True))
    return FoundEvaluation(str(folder), document, flags, subsets)


def read_object(folder: Folder, name: str) -> Mapping[str, Any]:
    """The JSON object in a file.  Raises UserError if it is another value, or no JSON."""
    document = folder.read_json(name)
    if not isinstance(document, dict):
        raise UserError(f"{folder}/{name} is not as bat-dist writes it: it is damaged; remove it")
    return document


def _document(folder: Folder) -> EvaluationDocument:
    found = read_object(folder, EVALUATION)
    version = found.get("bat_dist", "an unknown version")
    if found.get("format", FORMAT) > FORMAT:
        raise UserError(f"{EVALUATION} was written by a newer bat_dist, {version}: update this one")
    if missing := [name for name in _NEEDED if name not in found]:
        raise UserError(f"{EVALUATION} of bat_dist {version} has no {', '.join(missing)}: evaluate it again")
    attack = found.get("attack") or {}
    by_class = found.get("by_class")
    if by_class:
        shares = {name: np.array(values, float).tolist() for name, values in by_class["accuracy"].items()}
        by_class = AccuracyByClass(by_class["classes"], by_class["num_images"], shares)
    return EvaluationDocument(
        rows=tuple(map(_row, found["rows"])),
        facts=found["facts"],
        network=str(found["network"]),
        fingerprint=found["fingerprint"],
        checks=tuple(
            Check(one["name"], one["passed"], one.get("message", ""), one.get("evidence", {}))
            for one in found.get("checks", ())
        ),
        num_checked=found.get("num_checked", 0),
        by_class=by_class,
        epsilon=attack.get("epsilon"),
        step_size=attack.get("step_size"),
        settings=found["settings"],
        origin={name: value for name, value in found.items() if name not in (*_NEEDED, *_FURTHER)},
    )


def read_rows(folder: Folder) -> tuple[AttackRow, ...] | None:
    """The rows of the folder's evaluation, whatever version wrote it; None if there is none."""
    if not folder.exists(EVALUATION):
        return None
    found = folder.read_json(EVALUATION)
    return tuple(map(_row, found.get("rows", ()))) if isinstance(found, dict) else ()


def _row(row: Mapping[str, Any]) -> AttackRow:
    subsets = {name: _accuracy(value) for name, value in row.items() if isinstance(value, dict)}
    seconds, max_delta = row.get("seconds", np.nan), row.get("max_delta", np.nan)
    return AttackRow(row["attack"], _accuracy(row), subsets, seconds, max_delta, tuple(row.get("warnings", ())))


def _accuracy(found: Mapping[str, Any]) -> Accuracy:
    """JSON has null for NaN."""
    share, error = (np.nan if found.get(name) is None else found[name] for name in ("accuracy", "standard_error"))
    return Accuracy(share, error, found.get("n", 0))
