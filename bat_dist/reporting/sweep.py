"""The end of a sweep: tables, figures, an interactive page, `summary.json`, and a few lines for the terminal."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from bat_dist.evaluation.statistics import share_with_interval
from bat_dist.figures.sweep_figures import clean_against_robust, surfaces
from bat_dist.reporting import sweep_charts as charts
from bat_dist.reporting.cells import p_in_words
from bat_dist.reporting.page import page_template, save_figures
from bat_dist.results.evaluation_file import AttackRow
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance
from bat_dist.storage.status import describe_driver
from bat_dist.sweep.record import SweepRun, read_run_outcomes, read_sweep
from bat_dist.sweep.results import PointResult, Results, summarize, summary_table, table
from bat_dist.sweep.statistics import LEVEL
from bat_dist.wording import counted

RUNS_TABLE, POINTS_TABLE, SUMMARY, PAGE = "results", "points", "summary.json", "index.html"
WORDS = {"val_clean": "clean", "val_pgd": "PGD"}


def report_sweep(
    folder: Folder,
    results: Results,
    tested: Mapping[SweepRun, Sequence[AttackRow]],
    *,
    about: Mapping[str, Any],
) -> str:
    """Write results.csv and .parquet, points.csv, summary.json, figures/ and index.html; returns the lines to print.

    tested: rows of `evaluation.json` by run, of those that were judged on the test set.
    about: `dataset`, `arch`, `method`, `num_val`, `seeds` and the `settings` of the sweep.
    """
    runs, points = table(results), summary_table(results)
    _write_tables(folder, runs, points)
    origin = provenance()
    summary = {
        "metric": results.metric,
        "which": results.which,
        "chosen": results.chosen,
        "reference": results.reference,
        "points": points,
        "test": [row for found in _by_point(tested).values() for row in found],
        "spreads": {name: spread._asdict() for name, spread in results.spreads.items()},
        "about": dict(about),
        **origin,
    }
    folder.write_json(SUMMARY, summary)
    title = f"{about['method']}: {about['arch']} on {about['dataset']}, {counted(len(results.points), 'point')}"
    drawn = {
        "surfaces": surfaces(results, title=title, num_val=about["num_val"]),
        "clean_against_robust": clean_against_robust(results, title=title, num_val=about["num_val"]),
    }
    lines = list(in_words(results, tested, num_val=about["num_val"]))
    shown = {key: value for key, value in origin.items() if key != "versions"} | dict(origin["versions"])
    page = page_template("sweep.html.j2").render(
        title=title,
        lines=lines,
        plotly=charts.library(),
        surfaces=charts.surface_charts(results),
        parallel=charts.parallel_chart(results),
        pareto=charts.pareto_chart(results),
        png=save_figures(folder / "figures", drawn),
        points=[{name: _cell(name, value) for name, value in row.items()} for row in points],
        broken=[row for row in runs if row["state"] not in ("done", "stopped")],
        provenance={**shown, "settings": yaml.safe_dump(about["settings"], sort_keys=False)},
    )
    folder.write(PAGE, page.encode())
    return "\n".join([*lines, f"tables: {folder}/{RUNS_TABLE}.csv, {folder}/{POINTS_TABLE}.csv; page: {folder}/{PAGE}"])


def _write_tables(folder: Folder, runs: list[dict[str, Any]], points: list[dict[str, Any]]) -> None:
    for name, rows in ((RUNS_TABLE, runs), (POINTS_TABLE, points)):
        folder.write(f"{name}.csv", pd.DataFrame(rows).to_csv(index=False).encode())
    # A column of settings may hold numbers and words.
    mixed = {name: "string" for name, kind in pd.DataFrame(runs).dtypes.items() if str(kind) == "object"}
    buffer = io.BytesIO()
    pd.DataFrame(runs).astype(mixed).to_parquet(buffer, index=False)
    folder.write(f"{RUNS_TABLE}.parquet", buffer.getvalue())


def describe_sweep(folder: Folder, *, metric: tuple[str, ...] | None = None, which: str | None = None) -> str:
    """What a sweep's folder holds, in a few lines.  Raises UserError if it holds none.

    metric, which: what points are chosen by, the sweep's own if not said.
    """
    results = read_results(folder, metric=metric, which=which)
    return "\n".join([*describe_driver(folder, {}), *in_words(results, {}, num_val=0)])


def read_results(folder: Folder, *, metric: tuple[str, ...] | None = None, which: str | None = None) -> Results:
    """What a sweep's folder holds; the arguments are as for `describe_sweep`.  Raises UserError if it holds none."""
    sweep = read_sweep(folder)
    asked = sweep.asked
    wanted = sweep.points if sweep.wanted is None else sweep.wanted
    runs = [SweepRun(point, seed) for point in wanted for seed in asked.seeds]
    outcomes = read_run_outcomes(folder, runs, sweep.points, asked.seeds)
    return summarize(outcomes, metric=metric or asked.metric, which=which or asked.which)


def in_words(results: Results, tested: Mapping[SweepRun, Sequence[AttackRow]], *, num_val: int) -> Iterator[str]:
    """A few lines for the terminal, and the head of the page."""
    states = [outcome.state for outcome in results.outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield f"{counted(len(results.points), 'point')}, {counted(len(states), 'run')}: {counts}"
    for outcome in results.outcomes:
        if outcome.state in ("failed", "diverged"):
            yield f"  {outcome.run} {outcome.state}: {outcome.reason}"
    if not results.chosen:
        yield "nothing is chosen: no point is done with all seeds"
        return
    by = " and ".join(results.metric)
    kind = "Pareto front" if len(results.metric) > 1 else "best point"
    yield f"{kind} by {by} (validation{f', {num_val:,} images' if num_val else ''}; {results.which} epoch of each run):"
    for name in results.chosen:
        yield f"  {name}: {_accuracies(results, results[name])}"
    if results.reference and results.reference not in results.chosen:
        yield f"PGD-AT, {results.reference}: {_accuracies(results, results[results.reference])}"
    yield from _verdict(results)
    yield from _on_test(results, tested)


def _accuracies(results: Results, point: PointResult) -> str:
    """Means with t intervals over seeds."""
    found = []
    for metric in (name for name in WORDS if name in point.values):
        half = results.spreads[metric].half_width(len(point.outcomes))
        interval = "" if math.isnan(half) else f" ± {half:.1%}"
        found.append(f"{WORDS[metric]} {point.mean(metric):.1%}{interval}")
    seeds = len(point.outcomes)
    said = f"{seeds} seed{'s' * (seeds != 1)}" + f", {LEVEL:.0%} intervals" * any("±" in text for text in found)
    return f"{', '.join(found)} ({said})"


def _verdict(results: Results) -> Iterator[str]:
    """Is the chosen point better than PGD-AT, or the luckiest of many?"""
    if results.reference is None:
        return
    if results.chosen == [results.reference]:
        yield "PGD-AT itself is the best of these points"
        return
    known = {m: found for m in WORDS if (found := results.against.get(m, {}))}
    if not known and len(results[results.reference].outcomes) == 1:
        yield "whether it beats PGD-AT cannot be said from one seed a point: add seeds"
    elif not known:
        yield "whether it beats PGD-AT cannot be tested: the differences are the same at every seed; add seeds"
    for metric, comparisons in known.items():
        for name in results.chosen:
            if found := comparisons.get(name):
                difference, low, high = (f"{100 * value:+.1f}" for value in (found.difference, found.low, found.high))
                word = "more than seeds make" if found.low > 0 or found.high < 0 else "no more than seeds make"
                many = len(comparisons)
                test = f"Dunnett's test over all {many} points, seeds as blocks" if many > 1 else "paired t test"
                said = f"{difference} points [{low}, {high}], {p_in_words(found.p_value)}, {word} ({test})"
                yield f"  {name} against PGD-AT, {WORDS[metric]}: {said}"


def _on_test(results: Results, tested: Mapping[SweepRun, Sequence[AttackRow]]) -> Iterator[str]:
    if not tested:
        if not results.is_complete:
            yield "test set: not looked at before every run has ended"
        return
    yield "test set, looked at for these points alone, after the choice:"
    for name, rows in _by_point(tested).items():
        parts = []
        for row in rows:
            parts.append(f"{row['attack']} {share_with_interval(row['mean'], row['n'])}")
        mark = " (PGD-AT)" if name == results.reference else ""
        seeds = counted(rows[0]["seeds"], "seed")
        yield f"  {name}{mark}: {', '.join(parts)} (mean of {seeds}, 95% intervals over images)"


def _by_point(tested: Mapping[SweepRun, Sequence[AttackRow]]) -> dict[str, list[dict[str, Any]]]:
    """A row per attack for each point, over its seeds; attacks that a seed lacks have none.

    image_se: standard error of one run over the images.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    names = dict.fromkeys(run.name.split("/")[1] for run in tested)
    for name in names:
        of_seeds = [{row.attack: row for row in rows} for run, rows in tested.items() if run.name.split("/")[1] == name]
        for attack in (one for one in of_seeds[0] if all(one in of_seed for of_seed in of_seeds)):
            rows = [of_seed[attack] for of_seed in of_seeds]
            n, values = rows[0].overall.n, [row.overall.accuracy for row in rows]
            mean = sum(values) / len(values)
            about = {"image_se": math.sqrt(mean * (1 - mean) / n), "n": n, "seeds": len(values)}
            row = {"point": name, "attack": attack, "mean": mean, "values": values, **about}
            found.setdefault(name, []).append(row)
    return found


def _cell(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if name.startswith("val_") and isinstance(value, float) and not name.endswith("p_value"):
        return f"{100 * value:.2f}"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
