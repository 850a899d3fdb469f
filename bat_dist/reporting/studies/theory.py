"""The study `theory`: Theorems 1 and 2 on grids of atypical samples (Sec. 3.2, App. C).  Needs no data."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bat_dist.figures.theory_figures import Lines, TheoremPanel, by_ratio, theorem_regions
from bat_dist.results.claims import Finding
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.studies.theory import (
    POINTS_PER_AXIS,
    TheoremCheck,
    TwoGaussians,
    check_theorem_1,
    check_theorem_2,
    paper_models,
)

CHECKS, VIOLATIONS = "checks.csv", "violations.csv"
MOST_LISTED = 10_000  # violated samples of each check, the worst first
COLUMNS = ["x1", "x2", "distance", "error"]


def analyse_theory(settings: StudySettings, folder: Folder) -> list[Finding]:
    """Check both theorems for all ratios and factors.

    `checks.csv` has a row for each check; `violations.csv` has the samples for which a claim is wrong, at most 10,000
    of each check: x0 in units of eta (and its mirror image below the axis), its distance to class +1 in units of l, and
    the error that contradicts the claim.
    """
    first = [check_theorem_1(ratio) for ratio in settings.ratios]
    second = [check_theorem_2(ratio, k) for ratio in settings.ratios for k in settings.factors]
    rows, listed = [], []
    for one in [*first, *second]:
        what = {"theorem": one.theorem, "ratio": one.ratio, "k": one.k}
        num, shown = len(one.violated), one.violated[:MOST_LISTED]
        share = num / one.num_points if one.num_points else np.nan
        counts = {"num_points": one.num_points, "num_violated": num, "num_listed": len(shown), "share_violated": share}
        rows.append({**what, **counts, "needed": one.needed if one.num_points else np.nan})
        listed += [{**what, **dict(zip(COLUMNS, values, strict=True))} for values in shown]
    folder.write(CHECKS, pd.DataFrame(rows).to_csv(index=False).encode())
    table = pd.DataFrame(listed, columns=["theorem", "ratio", "k", *COLUMNS])
    folder.write(VIOLATIONS, table.to_csv(index=False).encode())
    return [
        _finding("theorem_1", first, settings.ratios, "; claimed for eta/sigma large enough"),
        _finding("theorem_2", second, settings.ratios, f", k {_listed(settings.factors)}"),
    ]


def about_theory(settings: StudySettings) -> str:
    """The grid, for captions."""
    ratios = f"eta/sigma {_listed(settings.ratios)}"
    return f"{ratios}; x0 on a grid of {POINTS_PER_AXIS} x {POINTS_PER_AXIS} points, errors exact"


def draw_theory(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """The models of the proof where Theorem 1 fails and where it holds; both theorems over eta / sigma."""
    checks = pd.read_csv(io.BytesIO(folder.read(CHECKS))).sort_values("ratio")
    by_theorem: dict[Any, pd.DataFrame] = dict(iter(checks.groupby("theorem")))
    violations = pd.read_csv(io.BytesIO(folder.read(VIOLATIONS)))
    listed: dict[Any, pd.DataFrame] = dict(iter(violations.groupby(["theorem", "ratio"])))
    first, none = by_theorem[1], violations.head(0)
    panels = [_panel(row, listed.get((1, row["ratio"]), none)) for row in first.to_dict("records")]
    fails, holds = [one for one in panels if one.share], [one for one in panels if not one.share]
    needed: dict[str, Lines] = {"Theorem 1": _line(first, "needed")}
    shares: dict[str, Lines] = {"Theorem 1": _line(first, "share_violated")}
    for k, rows in by_theorem[2].groupby("k"):
        needed[f"Theorem 2, k = {k:g}"] = _line(rows, "needed")
        shares[f"Theorem 2, k = {k:g}"] = _line(rows, "share_violated")
    return {
        # Where the region is largest, and the nearest ratio without one: what changes between them is seen best.
        "theorem_1": theorem_regions([*fails[:1], *holds[:1]], note=about["note"]),
        "theory_by_ratio": by_ratio(needed, shares, note=about["note"]),
    }


def _panel(check: Mapping[Any, Any], violated: pd.DataFrame) -> TheoremPanel:
    """One check of Theorem 1, in units of eta."""
    data = TwoGaussians(1.0, 1 / check["ratio"])
    points = violated[["x1", "x2"]].to_numpy()
    both_halves = np.concatenate([points, points * [1, -1]])
    share = float(check["share_violated"])
    return TheoremPanel(check["ratio"], data.sigma, data.closest, *paper_models(data), both_halves, share)


def _line(rows: pd.DataFrame, column: str) -> Lines:
    return rows["ratio"].tolist(), rows[column].tolist()


def _finding(claim: str, checks: Sequence[TheoremCheck], ratios: Sequence[float], more: str) -> Finding:
    """The share of samples for which the claim is wrong: exact, so its interval has no width."""
    num_points = sum(one.num_points for one in checks)
    share = sum(len(one.violated) for one in checks) / num_points if num_points else np.nan
    failed = {one.ratio for one in checks if len(one.violated)}
    where = f"fails for {_listed([ratio for ratio in ratios if ratio in failed])}" if failed else "fails for none"
    grid = f"{num_points:,} samples x0, exact (no interval); eta/sigma {_listed(ratios)}{more}; {where}"
    return Finding(claim, share, share, share, grid)


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in sorted(values))
