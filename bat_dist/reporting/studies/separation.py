"""The study `separation` (App. B.2 iii): how well classes stay apart in the features of test images."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bat_dist.figures.points import Panel, Projection, points_by_category, projections
from bat_dist.reporting.studies.curves import METHODS
from bat_dist.results.claims import Finding
from bat_dist.settings.study import LEAST, RANDOM, share_name
from bat_dist.storage.files import Folder
from bat_dist.studies.curves import based_on, over_seeds
from bat_dist.studies.inputs import StudyInputs
from bat_dist.studies.separation import MEASURES, principal_plane

TABLE, DIFFERENCES, POINTS = "separation.csv", "differences.csv", "projection.npz"
SETS = {"typical": "test typical samples", "all": "all test samples"}
MEASURES_IN_WORDS = {
    "distance_ratio": "ratio of distances",
    "silhouette": "silhouette",
    "linear_probe": "accuracy of a linear probe",
}


def analyse_separation(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Measure the features of all runs, on the test typical set and on all test images.

    `separation.csv` has a row for each method, training set, seed, set and measure; `differences.csv` what training
    without atypical samples changes, paired over seeds; `projection.npz` points in the plane for the figure.
    """
    settings, labels = inputs.settings, inputs.dataset.test.labels
    members = {"typical": inputs.sets["test_typical"], "all": np.ones(len(labels), bool)}
    shares = sorted(settings.shares)
    subsets = [*map(share_name, shares), *([RANDOM, LEAST] if settings.controls else [])]
    rows = []
    for method in METHODS:
        for subset in subsets:
            for seed, one in zip(settings.seeds, inputs.outputs(method, subset), strict=True):
                for name, chosen in members.items():
                    where = {"method": method, "training_set": subset, "seed": seed, "set": name}
                    where["num_samples"] = int(chosen.sum())
                    features = one["test_features"][chosen]
                    rows += [
                        {**where, "measure": measure, "value": of(features, labels[chosen])}
                        for measure, of in MEASURES.items()
                    ]
    table = pd.DataFrame(rows)
    folder.write(TABLE, table.to_csv(index=False).encode())
    differences = _differences(table, subsets[0], subsets[1:])
    folder.write(DIFFERENCES, differences.to_csv(index=False).encode())
    _write_projection(inputs, folder, [shares[0], shares[len(shares) // 2], shares[-1]])
    by_place = differences.set_index(["method", "set", "measure", "second"])
    found = by_place.loc[("pgd_at", "typical", "distance_ratio", share_name(shares[-1]))]
    interval = "paired t interval over seeds" if len(settings.seeds) > 1 else "no interval"
    how = based_on(len(settings.seeds), int(members["typical"].sum()), interval)
    return [Finding("separation_degrades", found["difference"], found["low"], found["high"], how)]


def draw_separation(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """The measures by training set, seeds as points; and three networks' features in the plane."""
    table = pd.read_csv(io.BytesIO(folder.read(TABLE)))
    by_panel: dict[Any, pd.DataFrame] = dict(iter(table.groupby(["measure", "set"])))
    panels = []
    for measure, words in MEASURES_IN_WORDS.items():
        for name, of_set in SETS.items():
            rows = by_panel[measure, name]
            series = {
                METHODS[str(method)]: {
                    _short(str(subset)): group["value"].tolist()
                    for subset, group in of_method.groupby("training_set", sort=False)
                }
                for method, of_method in rows.groupby("method", sort=False)
            }
            title = f"{of_set}, n = {rows['num_samples'].max():,}"
            panels.append(Panel(title, words, series, percent=measure == "linear_probe"))
    arrays = folder.read_npz(POINTS)
    names = [str(name) for name in arrays["class_names"]]
    pictures = [
        Projection(f"{share:g}% of the atypical", points, explained)
        for share, points, explained in zip(arrays["share"], arrays["points"], arrays["explained"], strict=True)
    ]
    seed = f"PGD-AT, seed {arrays['seed']}, {len(arrays['labels']):,} test typical samples"
    return {
        "separation": points_by_category(
            panels,
            title="How well classes stay apart in the penultimate layer: higher is better",
            xlabel="share of atypical samples, or what is left out",
            note=f"{about['note']}: points; line: mean",
        ),
        "separation_projection": projections(
            pictures,
            arrays["labels"],
            names,
            title="Features of the penultimate layer in the plane of two principal components",
            note=f"{about['note'].rpartition(',')[0]}; {seed}",
        ),
    }


def _differences(table: pd.DataFrame, without: str, others: Sequence[str]) -> pd.DataFrame:
    """What each measure has without atypical samples more than otherwise: mean over seeds, and its 95% t interval."""
    rows = []
    by_place: dict[Any, pd.DataFrame] = dict(iter(table.groupby(["method", "set", "measure"], sort=False)))
    for (method, name, measure), group in by_place.items():
        wide = group.pivot_table(index="seed", columns="training_set", values="value", dropna=False)
        for other in others:
            found = over_seeds((wide[without] - wide[other]).to_numpy())
            where = {"method": method, "set": name, "measure": measure}
            bounds = {"difference": found.mean, "low": found.low, "high": found.high}
            rows.append({**where, "first": without, "second": other, **bounds, "num_seeds": len(wide)})
    return pd.DataFrame(rows)


def _write_projection(inputs: StudyInputs, folder: Folder, shares: Sequence[float]) -> None:
    """The test typical samples in the plane, for PGD-AT with the first seed; fitted for each run by itself."""
    chosen, seed = inputs.sets["test_typical"], inputs.settings.seeds[0]
    different = list(dict.fromkeys(shares))
    found = [
        principal_plane(inputs.outputs("pgd_at", share_name(share))[0]["test_features"][chosen]) for share in different
    ]
    folder.write_npz(
        POINTS,
        share=np.array(different),
        points=np.array([points for points, _ in found]),
        explained=np.array([explained for _, explained in found]),
        labels=inputs.dataset.test.labels[chosen],
        class_names=np.array(inputs.dataset.class_names),
        seed=np.array(seed),
    )


def _short(subset: str) -> str:
    """A training set as the label of a tick."""
    words = {RANDOM: "random\nout", LEAST: "typical\nout"}
    return words.get(subset) or f"{subset.removeprefix('atypical')}%"
