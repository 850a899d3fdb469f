"""The study `attribution`: cheaper scores and attributions, judged by the leave-out trials that they are to replace."""

import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bat_dist.artifacts.scores import ENSEMBLE, Trials
from bat_dist.artifacts.trak import read_trak
from bat_dist.figures.study_figures import Estimate, estimates
from bat_dist.memorization.attribution import (
    MeanScore,
    influence_predictions,
    linear_datamodeling_scores,
    margins,
    mean_over_samples,
    trak_predictions,
)
from bat_dist.memorization.reliability import first_halves
from bat_dist.reporting.studies.alignment import IN_WORDS, alignment_table, cheaper_scores, words_of
from bat_dist.results.claims import Finding
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from bat_dist.studies.inputs import StudyInputs

SCORES, LDS, LDS_SAMPLES = "scores.csv", "lds.csv", "lds.npz"
LEAST_TRIALS = 8  # for an LDS: halves of fewer say nothing
SPEARMAN = "Spearman with mem"  # a panel


class Attribution(NamedTuple):
    """How an attribution did.  lds: of each test sample. trials: that were predicted. trainings: that it took."""

    lds: np.ndarray
    trials: int
    trainings: int


def analyse_attribution(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Write `scores.csv`, a row for each cheaper score, and `lds.csv`, a row for each attribution.

    `num_trainings` is what a score costs: members of the ensemble, or trials.  `lds.npz` has the LDS of each test
    sample.  An attribution that the folder does not have, or that too few trials judge, has no row.
    """
    trials, members = inputs.trials(), _num_members(inputs)
    table = alignment_table(inputs, cheaper_scores(inputs)).assign(num_trainings=members)
    folder.write(SCORES, table.to_csv(index=False).encode())
    findings = [
        Finding(
            f"{row['score']}_aligns",
            row["spearman"],
            row["low"],
            row["high"],
            f"{words_of(row)}; AUROC {row['auroc']:.3f}; {_trainings(row)}",
        )
        for row in table.to_dict("records")
    ]
    found, outcome = {}, ""
    if trials and len(trials.numbers) >= LEAST_TRIALS:
        found, outcome = _attributions(inputs, trials, members), "correctness"
        outcome = outcome if trials.test_probability is None else "margin"
    rows = [
        {
            **{"attribution": name, "outcome": outcome, **mean_over_samples(one.lds)._asdict()},
            **{"num_trials": one.trials, "num_trainings": one.trainings},
        }
        for name, one in found.items()
    ]
    columns = ["attribution", "outcome", *MeanScore._fields, "num_trials", "num_trainings"]
    folder.write(LDS, pd.DataFrame(rows, columns=columns).to_csv(index=False).encode())
    folder.write_npz(LDS_SAMPLES, **{name: one.lds for name, one in found.items()})
    for row in rows:
        interval = f"t interval over {row['number']:,} test samples"
        base = f"{row['outcome']} of {row['num_trials']:,} trials, {interval}; {_trainings(row)}"
        findings.append(Finding(f"lds_{row['attribution']}", row["mean"], row["low"], row["high"], base))
    return findings


def draw_attribution(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """One figure: correlation with mem under its noise ceiling, AUROC for the atypical samples, and LDS."""
    rows = pd.read_csv(io.BytesIO(folder.read(SCORES))).to_dict("records")
    panels = {
        SPEARMAN: {
            row["score"].replace("_", " "): Estimate(row["spearman"], row["low"], row["high"], row["num_samples"])
            for row in rows
        },
        "AUROC, mem > 0.15": {
            row["score"].replace("_", " "): Estimate(row["auroc"], row["auroc"], row["auroc"], row["num_atypical"])
            for row in rows
        },
    }
    if lds := pd.read_csv(io.BytesIO(folder.read(LDS))).to_dict("records"):
        panels["LDS"] = {
            row["attribution"]: Estimate(row["mean"], row["low"], row["high"], row["number"]) for row in lds
        }
    ceiling = rows[0]["ceiling"]
    figure = estimates(
        panels,
        title="Cheaper scores and attributions against leave-out trials",
        note=f"{about['note']}: 95% intervals" + ("" if math.isnan(ceiling) else "; dashed: noise ceiling of mem"),
        marks={} if math.isnan(ceiling) else {SPEARMAN: ceiling},
    )
    return {"attribution": figure}


def lines_of_attribution(folder: Folder) -> list[str]:
    """The table for the terminal, a line for each score."""
    rows = pd.read_csv(io.BytesIO(folder.read(SCORES))).to_dict("records")
    width = max(map(len, IN_WORDS.values()))
    return [
        f"{IN_WORDS[row['score']]:{width}s}  Spearman {row['spearman']:.3f}  AUROC {row['auroc']:.3f}  "
        f"{_trainings(row)}, mem: {row['num_trials']:,} trials"
        for row in rows
    ]


def _attributions(inputs: StudyInputs, trials: Trials, members: float) -> dict[str, Attribution]:
    """Each attribution that the folder has: what it predicts of trials, held against what they did.

    Influence is estimated from a random half of the trials, and predicts the other, both ways; the mean of the two.
    """
    mask, right = np.asarray(trials.mask), np.asarray(trials.test_correct)
    outcome = right.astype(float) if trials.test_probability is None else margins(trials.test_probability)
    found = {}
    if trak := read_trak(Folder(inputs.settings.score_place)):
        scores = linear_datamodeling_scores(trak_predictions(mask, trak), outcome)
        found["trak"] = Attribution(scores, len(outcome), int(members))
    (half,) = first_halves(len(outcome), 1)
    halves = [
        linear_datamodeling_scores(influence_predictions(mask[one], mask[~one], right[~one]), outcome[one])
        for one in (half, ~half)
    ]
    found["influence"] = Attribution(np.mean(halves, axis=0), len(outcome) // 2, len(outcome) // 2)
    return found


def _num_members(inputs: StudyInputs) -> float:
    """Complete members of the ensemble; NaN for scores without it."""
    store = RowStore.existing(Folder(inputs.settings.score_place) / ENSEMBLE)
    return float(np.count_nonzero(store.status().complete)) if store else math.nan


def _trainings(row: Mapping[Any, Any]) -> str:
    number = row["num_trainings"]
    return "unknown trainings" if math.isnan(number) else f"{number:,.0f} trainings"
