"""The end of an evaluation: `evaluation.json`, `flags.npz`, and a table for the terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.result import Evaluation, ResultRow
from bat_dist.evaluation.statistics import accuracy
from bat_dist.results.find import EVALUATION as RESULT
from bat_dist.results.find import FLAGS, FORMAT
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance


def report_evaluation(
    folder: Folder,
    dataset: Dataset,
    settings: Mapping[str, Any],
    evaluation: Evaluation,
    *,
    subsets: Mapping[str, Bool[np.ndarray, " images"]],
    facts: Mapping[str, Any],
    digest: str,
) -> str:
    """Write both files; returns the lines to print.

    subsets: of the test images, by name. facts and digest: of the network.
    """
    test = dataset.test
    rows = [_row(row, subsets) for row in evaluation.rows]
    folder.write_npz(
        FLAGS,
        flags=np.array([row.robust for row in evaluation.rows]),
        attacks=np.array([row.name for row in evaluation.rows]),
        labels=test.labels,
        ids=test.ids,
        fingerprint=np.array(dataset.fingerprint),
        **{f"subset_{name}": members for name, members in subsets.items()},
    )
    about = {"facts": dict(facts), "network": digest, "fingerprint": dataset.fingerprint}
    checks = [check._asdict() for check in evaluation.checks]
    about |= {"checks": checks, "num_checked": evaluation.num_checked}
    about["by_class"] = by_class = _by_class(dataset, evaluation)
    spec = dataset.spec
    attack = {name: settings.get(name) or getattr(spec, name) for name in ("epsilon", "step_size")}
    document = {"format": FORMAT, "rows": rows, **about, "attack": attack, "settings": dict(settings), **provenance()}
    folder.write_json(RESULT, document)
    return "\n".join([*_table(rows), _lowest_class(by_class), *_verdict(evaluation), f"by image: {folder}/{FLAGS}"])


def _row(found: ResultRow, subsets: Mapping[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {"attack": found.name, **accuracy(found.robust)._asdict()}
    row |= {"seconds": found.seconds, "max_delta": found.max_delta, "warnings": list(found.warnings)}
    for subset, members in subsets.items():
        row[subset] = accuracy(found.robust[members])._asdict()
    return row


def _by_class(dataset: Dataset, evaluation: Evaluation) -> dict[str, Any]:
    """classes: their names; num_images: of each; accuracy: by row, of each class, NaN where it has no image."""
    labels, count = dataset.test.labels, len(dataset.class_names)
    num_images = np.bincount(labels, minlength=count)
    found = {row.name: np.bincount(labels[row.robust], minlength=count) for row in evaluation.rows}
    with np.errstate(invalid="ignore"):
        shares = {name: (right / num_images).tolist() for name, right in found.items()}
    return {"classes": list(dataset.class_names), "num_images": num_images.tolist(), "accuracy": shares}


def _lowest_class(by_class: Mapping[str, Any]) -> str:
    """Of the row before the worst case, which is the strongest attack as a rule."""
    names = [name for name in by_class["accuracy"] if name != "worst_case"]
    shares = np.array(by_class["accuracy"][names[-1]])
    lowest = int(np.nanargmin(shares))
    return f"lowest class under {names[-1]}: {by_class['classes'][lowest]} {shares[lowest]:.1%}"


def _verdict(evaluation: Evaluation) -> list[str]:
    """What the checks say."""
    bad = [check for check in evaluation.checks if not check.passed]
    looked = f" on {evaluation.num_checked} images" if evaluation.num_checked else " (without those on images)"
    if not bad:
        return [f"checks: all {len(evaluation.checks)} passed{looked}"]
    lines = [f"checks: {len(bad)} of {len(evaluation.checks)} failed{looked}; these numbers may be too good:"]
    return lines + [f"  {check.name}: {check.message}" for check in bad]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    subsets = [key for key, value in rows[0].items() if isinstance(value, dict)]
    width = max(len(row["attack"]) for row in rows) + 2
    lines = [f"{'accuracy':{width}}{'all':>14}" + "".join(f"{name:>14}" for name in subsets)]
    for row in rows:
        cells = [row, *(row[name] for name in subsets)]
        lines.append(f"{row['attack']:{width}}" + "".join(f"{_cell(cell):>14}" for cell in cells))
    counts = [f"{name}: {rows[0][name]['n']}" for name in subsets]
    lines.append(f"mean ± standard error over {rows[0]['n']:,} images" + (f" ({', '.join(counts)})" if counts else ""))
    return lines


def _cell(cell: Mapping[str, Any]) -> str:
    return f"{cell['accuracy']:.1%} ± {cell['standard_error']:.1%}" if cell["n"] else "none"
