"""The study `alignment` (App. A.1): how well cheaper scores stand in for memorization, and BAT with each of them."""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bat_dist.artifacts.scores import ENSEMBLE_SCORES, read_ensemble_scores
from bat_dist.errors import UserError
from bat_dist.figures.charts import alignment_scatter
from bat_dist.figures.points import Panel, points_by_category
from bat_dist.memorization.agreement import alignment
from bat_dist.memorization.reliability import split_half_reliability
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD
from bat_dist.reporting.studies.curves import KINDS
from bat_dist.results.claims import Finding
from bat_dist.results.statistics import Difference, mean_over_seeds_and_images
from bat_dist.settings.study import MEM, WHOLE, StudyRun
from bat_dist.storage.files import Folder
from bat_dist.studies.curves import based_on
from bat_dist.studies.inputs import StudyInputs
from bat_dist.training.score_file import read_scores

log = logging.getLogger(__name__)

ALIGNMENT, SCORES, ACCURACIES, DIFFERENCES = "alignment.csv", "scores.npz", "bat_accuracies.csv", "bat_differences.csv"
SAME_SHARE = 0.005  # shares of atypical samples that count as equal
IN_WORDS = {
    "disagreement": "ensemble disagreement",
    "confidence": "one minus the confidence of the ensemble",
    "true_class_confidence": "one minus the probability of the own class",
    "forgetting": "forgetting events",
    "learning_time": "learning time (epochs)",
    "el2n": "EL2N",
    "self_influence": "self-influence (TRAK)",
}
SETS = {"all": "all test samples", "typical": "test typical samples", "atypical": "test atypical samples"}


def analyse_alignment(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Compare the cheaper scores with memorization, and the networks that BAT trained with each of the scores.

    `alignment.csv` has a row for each cheaper score, `scores.npz` the scores of all training samples;
    `bat_accuracies.csv` a row for each score, seed, set of test samples and kind of accuracy; `bat_differences.csv` the
    differences to BAT with memorization, paired over seeds and images.
    """
    scores = cheaper_scores(inputs, inputs.settings.cheaper)
    folder.write_npz(SCORES, mem=inputs.sets.mem, **scores)
    table = alignment_table(inputs, scores)
    folder.write(ALIGNMENT, table.to_csv(index=False).encode())
    findings = [
        Finding(f"{row['score']}_aligns", row["spearman"], row["low"], row["high"], words_of(row))
        for row in table.to_dict("records")
    ]
    accuracies, differences = _networks(inputs)
    folder.write(ACCURACIES, accuracies.to_csv(index=False).encode())
    folder.write(DIFFERENCES, differences.to_csv(index=False).encode())
    shares = accuracies.groupby("score")["atypical_share"].first()
    by_place = differences.set_index(["score", "set", "kind"])
    for score in inputs.settings.cheaper:
        found = by_place.loc[(score, "all", "pgd")]
        interval = "paired t interval over seeds and images" if found["num_seeds"] > 1 else "no interval"
        how = f"{interval}; atypical: {shares[score]:.1%}, with mem {shares['mem']:.1%}"
        base = based_on(int(found["num_seeds"]), int(found["num_images"]), how)
        findings.append(Finding(f"bat_with_{score}", found["difference"], found["low"], found["high"], base))
    return findings


def draw_alignment(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """Each cheaper score against memorization, and the accuracies of BAT with each score."""
    rows, scores = pd.read_csv(io.BytesIO(folder.read(ALIGNMENT))), folder.read_npz(SCORES)
    figures = {}
    for row in rows.to_dict("records"):
        figures[f"alignment_{row['score']}"] = alignment_scatter(
            scores[row["score"]],
            scores["mem"],
            score_name=IN_WORDS[row["score"]],
            spearman=row["spearman"],
            spearman_interval=(row["low"], row["high"]),
            auroc=row["auroc"],
            atypical_threshold=ATYPICAL_THRESHOLD,
            note=words_of(row),
        )
    table = pd.read_csv(io.BytesIO(folder.read(ACCURACIES)))
    groups: dict[Any, pd.DataFrame] = dict(iter(table.groupby(["set", "kind", "score"], sort=False)))
    panels = []
    trained_with = table["score"].unique().tolist()
    for name, words in SETS.items():
        size = int(groups[name, "clean", MEM]["num_images"].to_numpy()[0])
        series = {
            kind_in_words: {score: groups[name, kind, score]["accuracy"].tolist() for score in trained_with}
            for kind, kind_in_words in KINDS.items()
        }
        panels.append(Panel(f"{words}, n = {size:,}", "accuracy", series if size else {}, percent=True))
    figures["alignment_bat"] = points_by_category(
        panels,
        title="BAT with memorization and with cheaper scores",
        xlabel="score that says which samples are atypical",
        note=f"{about['note']}: points; line: mean",
    )
    return figures


def cheaper_scores(inputs: StudyInputs, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The scores of the ensemble beside memorization: these, or all that there are.

    Raises UserError if the file, or one of them, is missing, or if they are of other data.
    """
    place = Folder(inputs.settings.score_place)
    if not place.exists(ENSEMBLE_SCORES):
        raise UserError(f"{place} has no {ENSEMBLE_SCORES}: bat-dist memorize --score el2n --out {place} makes it")
    found = read_ensemble_scores(place, inputs.dataset.fingerprint)
    if lacking := [name for name in names if name not in found]:
        raise UserError(
            f"{place}/{ENSEMBLE_SCORES} has no {' and no '.join(lacking)}: bat-dist memorize --score {lacking[0]} "
            f"--out {place} adds it, or names the way out"
        )
    return {name: found[name] for name in (names or IN_WORDS) if name in found}


def alignment_table(inputs: StudyInputs, scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The statistics of each cheaper score; higher is more atypical, also of `confidence`.

    ceiling: the largest correlation that a score without error would have with the memorization of so many trials, the
    root of its split-half reliability. It is that of Pearson's correlation, and about that of Spearman's.
    """
    mem, trials = inputs.sets.mem, inputs.trials()
    reliability = split_half_reliability(trials.mask, trials.train_correct) if trials else math.nan
    rows = []
    for score, values in scores.items():
        one = alignment(values, mem, atypical_threshold=ATYPICAL_THRESHOLD)
        low, high = one.spearman_interval
        measured = {"spearman": one.spearman, "low": low, "high": high, "auroc": one.auroc}
        counts = {"num_samples": one.num_samples, "num_atypical": one.num_atypical, "num_dropped": one.num_dropped}
        noise = {
            "reliability": reliability,
            "ceiling": math.sqrt(reliability) if reliability >= 0 else math.nan,
            "num_trials": len(trials.numbers) if trials else 0,
        }
        rows.append({"score": score, **measured, **counts, **noise})
    return pd.DataFrame(rows)


def words_of(row: Mapping[Any, Any]) -> str:
    """What a correlation is based on, and how large the noise of memorization lets it become."""
    base = f"{row['num_samples']:,} samples ({row['num_atypical']:,} atypical), bootstrap interval over samples"
    if math.isnan(row["ceiling"]):
        return f"{base}; noise ceiling unknown"
    return f"{base}; noise ceiling {row['ceiling']:.3f} of {row['num_trials']:,} trials"


def _networks(inputs: StudyInputs) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies of BAT with each score on sets of test images, and their differences to BAT with memorization."""
    num_test = len(inputs.dataset.test.labels)
    members = {
        "all": np.ones(num_test, bool),
        **{name: inputs.sets[f"test_{name}"] for name in ("typical", "atypical")},
    }
    trained_with = (MEM, *inputs.settings.cheaper)
    flags = {score: inputs.flags("bat", score=score) for score in trained_with}
    shares = {score: _atypical_share(inputs, score) for score in trained_with}
    for score, share in shares.items():
        if abs(share - shares[MEM]) > SAME_SHARE:
            log.warning("BAT with %s has %.1f%% atypical samples, with mem %.1f%%: their budgets differ", score,
                        100 * share, 100 * shares["mem"])  # fmt: skip
    rows, differences = [], []
    for score in trained_with:
        for name, chosen in members.items():
            for kind in KINDS:
                here = flags[score][kind][:, chosen]
                where = {"score": score, "set": name, "kind": kind, "num_images": here.shape[1]}
                rows += [
                    {
                        **where,
                        "seed": seed,
                        "accuracy": of.mean() if len(of) else np.nan,
                        "atypical_share": shares[score],
                    }
                    for seed, of in zip(inputs.settings.seeds, here, strict=True)
                ]
                if score != MEM:
                    d = here.astype(float) - flags[MEM][kind][:, chosen]
                    differences.append({**where, **_over_seeds_and_images(d)._asdict()})
    return pd.DataFrame(rows), pd.DataFrame(differences)


def _over_seeds_and_images(d: np.ndarray) -> Difference:
    """The mean of a table of seeds and images; without bounds for one seed, and undefined without an image."""
    if min(d.shape) < 2:
        return Difference(float(d.mean()) if d.size else np.nan, np.nan, np.nan, np.nan, len(d))
    return mean_over_seeds_and_images(d)


def _atypical_share(inputs: StudyInputs, score: str) -> float:
    """The share of the training samples with a defined score that BAT takes for atypical."""
    asked = inputs.settings.training(StudyRun("bat", WHOLE, inputs.settings.seeds[0], score))
    scores = read_scores(
        str(asked.scores),
        inputs.dataset,
        score=asked.score,
        sigma=asked.sigma,
        atypical_share=asked.atypical_share,
        undefined=asked.undefined,
    )
    return float(scores.subsets["atypical"][~np.isnan(scores.values)].mean())
