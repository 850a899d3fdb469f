"""The end of an evaluation: both its files, and a table for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.result import Evaluation
from bat_dist.results.evaluation_file import FLAGS, AccuracyByClass, AttackRow, write_evaluation
from bat_dist.storage.files import Folder


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
    document = write_evaluation(folder, dataset, settings, evaluation, subsets=subsets, facts=facts, digest=digest)
    lines = _table(document.rows)
    if document.by_class:
        lines.append(_lowest_class(document.by_class))
    return "\n".join([*lines, *_verdict(evaluation), f"by image: {folder}/{FLAGS}"])


def _lowest_class(by_class: AccuracyByClass) -> str:
    """It is that of the row before the worst case, which is the strongest attack as a rule."""
    *_, attack = (name for name in by_class.accuracy if name != "worst_case")
    lowest = int(np.nanargmin(by_class.accuracy[attack]))
    return f"lowest class under {attack}: {by_class.classes[lowest]} {by_class.accuracy[attack][lowest]:.1%}"


def _verdict(evaluation: Evaluation) -> list[str]:
    """What the checks say."""
    bad = [check for check in evaluation.checks if not check.passed]
    looked = f" on {evaluation.num_checked} images" if evaluation.num_checked else " (without those on images)"
    if not bad:
        return [f"checks: all {len(evaluation.checks)} passed{looked}"]
    lines = [f"checks: {len(bad)} of {len(evaluation.checks)} failed{looked}; these numbers may be too good:"]
    return lines + [f"  {check.name}: {check.message}" for check in bad]


def _table(rows: Sequence[AttackRow]) -> list[str]:
    width = max(len(row.attack) for row in rows) + 2
    lines = [f"{'accuracy':{width}}{'all':>14}" + "".join(f"{name:>14}" for name in rows[0].subsets)]
    for row in rows:
        found = (row.overall, *row.subsets.values())
        cells = [f"{one.accuracy:.1%} ± {one.standard_error:.1%}" if one.n else "none" for one in found]
        lines.append(f"{row.attack:{width}}" + "".join(f"{cell:>14}" for cell in cells))
    counts = ", ".join(f"{name}: {part.n}" for name, part in rows[0].subsets.items())
    lines.append(f"mean ± standard error over {rows[0].overall.n:,} images" + (f" ({counts})" if counts else ""))
    return lines
