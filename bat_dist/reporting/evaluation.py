"""An evaluation in words, for the terminal."""

from collections.abc import Iterator

import numpy as np

from bat_dist.results.evaluation_file import EvaluationDocument


def in_words(document: EvaluationDocument) -> Iterator[str]:
    """The table, the class of lowest accuracy, and what the checks say."""
    rows = document.rows
    width = max(len(row.attack) for row in rows) + 2
    yield f"{'accuracy':{width}}{'all':>24}" + "".join(f"{name:>24}" for name in rows[0].subsets)
    for row in rows:
        yield f"{row.attack:{width}}" + "".join(f"{one!s:>24}" for one in (row.overall, *row.subsets.values()))
    counts = ", ".join(f"{name}: {part.n}" for name, part in rows[0].subsets.items())
    yield f"with 95% intervals (Wilson) over {rows[0].overall.n:,} images" + (f" ({counts})" if counts else "")
    if by_class := document.by_class:
        # The row before the worst case is that of the strongest attack as a rule.
        *_, attack = (name for name in by_class.accuracy if name != "worst_case")
        lowest = int(np.nanargmin(by_class.accuracy[attack]))
        yield f"lowest class under {attack}: {by_class.classes[lowest]} {by_class.accuracy[attack][lowest]:.1%}"
    looked = f" on {document.num_checked} images" if document.num_checked else " (without those on images)"
    bad, num_checks = [check for check in document.checks if not check.passed], len(document.checks)
    if not bad:
        yield f"checks: all {num_checks} passed{looked}"
        return
    yield f"checks: {len(bad)} of {num_checks} failed{looked}; these numbers may be too good:"
    yield from (f"  {check.name}: {check.message}" for check in bad)
