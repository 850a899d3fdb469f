"""The study `efficiency`: trials that each estimator of memorization needs, from a store that is there."""

import io
import logging
import time
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bat_dist.artifacts.scores import MEMORIZATION, TRIALS
from bat_dist.errors import UserError
from bat_dist.figures.efficiency_figures import AgreementCurve, NeededTrials, agreement_over_trials, needed_trials
from bat_dist.figures.points import Panel, points_by_category
from bat_dist.memorization.estimators import Outcomes
from bat_dist.memorization.stopping import TARGETS
from bat_dist.results.claims import Finding
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from bat_dist.studies.efficiency import AIM, LEAST, OWN, PLAIN, SIZES, Measured, Needed, measure, trials_needed
from bat_dist.studies.stopping_times import StoppedRun, stopped_runs
from bat_dist.studies.stored_outcomes import StoredOutcomes, check_comparable, read_outcomes
from bat_dist.wording import counted

log = logging.getLogger(__name__)

AGREEMENT, NEEDED, STOPPED = "agreement.csv", "trials_needed.csv", "stopped_runs.csv"
IN_WORDS = {
    "plain": "difference of means",
    "probability": "probability of the class",
    "adjusted": "adjusted for trials' quality",
    "stratified": "strata of trials' quality",
    "masks": "regression on masks",
    "shrunk": "shrunk (empirical Bayes)",
    "balanced": "balanced masks",
    "probability_own": "probability, by itself",
}
MEASURES = {
    "spearman": "rank correlation (Spearman)",
    "jaccard": "common atypical samples (Jaccard)",
    "equal": "same decision on mem > 0.15",
    "rmse": "error (RMSE)",
}
LINE = 100  # characters of a line below a figure
STOPS = {
    "num_trials": "trials at the end",
    "decided": "samples that are decided",
    "agrees": "of these, as the reference",
    "covered": "intervals with the reference's value",
}
CLAIMED = {"fewer_trials_ranking": "spearman", "fewer_trials_atypical": "jaccard"}


def analyse_efficiency(settings: StudySettings, folder: Folder) -> list[Finding]:
    """Compare the estimators from few trials with a reference of many others.

    `agreement.csv` has a row for each repetition, estimator and number of trials; `trials_needed.csv` one for each
    estimator and measure; `stopped_runs.csv` has one for each repetition and criterion of `memorize --num_trials auto`.
    Raises UserError for folders without trials or with too few, and for trials of other settings or in common.
    """
    stored = read_outcomes(settings.score_place)
    others = {name: _other(stored, settings, name) for name in ("reference", "balanced")}
    num_trials, least = len(stored.numbers), LEAST // 2 if settings.reference else LEAST
    if num_trials < least:
        raise UserError(f"{stored.place} has {counted(num_trials, 'trial')}: the study needs at least {least}")
    measured = _measured(stored, others, settings.repetitions)
    rows = [{**one._asdict(), **one.agreement._asdict()} for one in measured]
    folder.write(AGREEMENT, pd.DataFrame(rows).drop(columns="agreement").to_csv(index=False).encode())
    needed = trials_needed(measured)
    folder.write(NEEDED, pd.DataFrame(needed).to_csv(index=False).encode())
    stopped = [
        *stopped_runs(
            stored.outcomes,
            mask_plan=stored.mask_plan,
            reference=others["reference"],
            repetitions=settings.repetitions,
        )
    ]
    folder.write(STOPPED, pd.DataFrame(stopped).to_csv(index=False).encode())
    return [
        *_findings(needed, settings.repetitions, max(one.num_trials for one in measured)),
        *_findings_of_stops([one for one in stopped if one.criterion == "undecided"]),
    ]


def about_efficiency(settings: StudySettings) -> str:
    """The trials and the reference, for captions."""
    place = Folder(settings.score_place)
    scores, store = place.read_npz(MEMORIZATION), RowStore.existing(place / TRIALS)
    trials = counted(len(scores.get("trial", ())), "trial")
    reference = "trials of another folder" if settings.reference else "the half of the trials that no estimate has"
    missing = "" if store and "train_probability" in store.fields else "; no probabilities, which were not kept"
    return (
        f"{counted(len(scores['mem']), 'training sample')}, {trials}, {counted(settings.repetitions, 'repetition')}; "
        f"reference: {reference}{missing}"
    )


def draw_efficiency(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """The agreement over the number of trials, and the trials that each estimator needs."""
    table = pd.read_csv(io.BytesIO(folder.read(AGREEMENT)))
    compared = table.query(f"estimator != '{OWN}'")
    panels = {words: _curves(table if metric == "spearman" else compared, metric) for metric, words in MEASURES.items()}
    note, largest = about["note"], int(compared["num_trials"].to_numpy().max())
    needed, stopped = (pd.read_csv(io.BytesIO(folder.read(name))) for name in (NEEDED, STOPPED))
    aim = int(needed["aim"].to_numpy()[0])
    return {
        "efficiency": agreement_over_trials(
            panels,
            title="Memorization from few trials, compared with a long reference",
            note=fill(f"{note}. Lines: medians; band: 95% of the repetitions of the {IN_WORDS[PLAIN]}", LINE),
            band=IN_WORDS[PLAIN],
        ),
        "efficiency_trials_needed": needed_trials(
            {words: _needed(needed, metric, aim) for metric, words in MEASURES.items()},
            largest=largest / aim,
            title=f"Trials for the agreement that the {IN_WORDS[PLAIN]} has with {aim:,}, as a share",
            note=fill(f"{note}. Point: median; line: 95% of the repetitions; arrow: not reached", LINE),
        ),
        "efficiency_stopping": points_by_category(
            [
                Panel(
                    words,
                    words if name == "num_trials" else "share",
                    _by_criterion(stopped, name),
                    name != "num_trials",
                )
                for name, words in STOPS.items()
            ],
            title="Where runs end that stop when it is enough (memorize --num_trials auto)",
            xlabel="rule, its target, and how often it was met",
            note=fill(note, LINE),
        ),
    }


def _measured(stored: StoredOutcomes, others: Mapping[str, Outcomes | None], repetitions: int) -> list[Measured]:
    """`measure`; after the first repetition the log says how long all will take."""
    found, start = [], time.monotonic()
    for one in measure(stored.outcomes, mask_plan=stored.mask_plan, **others, repetitions=repetitions):
        if found and found[-1].repetition == 0 and one.repetition == 1:
            minutes = (time.monotonic() - start) * repetitions / 60
            log.info("efficiency: %s, about %.1f minutes", counted(repetitions, "repetition"), minutes)
        found.append(one)
    return found


def _other(stored: StoredOutcomes, settings: StudySettings, option: str) -> Outcomes | None:
    """The outcomes of `--reference` or `--balanced`; None if it is not given."""
    place = getattr(settings, option)
    if place is None:
        return None
    other = read_outcomes(place)
    check_comparable(stored, other, option)
    if option == "balanced" and other.mask_plan != "balanced":
        raise UserError(f"balanced {place} has trials with --mask_plan {other.mask_plan}: give some with balanced ones")
    return other.outcomes


def _findings(needed: Sequence[Needed], repetitions: int, largest: int) -> list[Finding]:
    """What each estimator needs, as a share of what the difference of means needs; what is not reached counts as the
    largest number that was tried.
    """
    findings = []
    for claim, metric in CLAIMED.items():
        for one in needed:
            if one.metric != metric or one.estimator == PLAIN:
                continue
            estimate, low, high = (min(value, largest) / one.aim for value in (one.median, one.low, one.high))
            more = f", at least: {largest:,} trials do not reach it" if np.isinf(one.median) else ""
            more = f", at most: fewer than {SIZES[0]} were not tried" if one.median == SIZES[0] else more
            base = f"{IN_WORDS[one.estimator]}; {one.aim:,} trials of the {IN_WORDS[PLAIN]} have {one.target:.3f}"
            how = f"{base}; 95% of {repetitions} repetitions, which share their trials{more}"
            findings.append(Finding(claim, estimate, low, high, how))
    return findings


def _findings_of_stops(runs: Sequence[StoppedRun]) -> list[Finding]:
    """Where runs end that wait for most samples to be decided, and how far these decisions are the reference's.

    Runs whose trials were too few for the rule say nothing of its end: then there is no estimate.
    """
    num_met = sum(one.is_met for one in runs)
    base = f"rule met in {num_met} of {len(runs)} repetitions; 95% of these, which share their trials"
    ends = [one.num_trials / AIM if num_met == len(runs) else np.nan for one in runs]
    values = {"stops_early": ends, "stopped_agrees": [one.agrees for one in runs]}
    findings = []
    for claim, of in values.items():
        estimate, low, high = map(float, np.quantile(of, [0.5, 0.025, 0.975]))
        findings.append(Finding(claim, estimate, low, high, base))
    return findings


def _by_criterion(stopped: pd.DataFrame, name: str) -> dict[str, dict[str, list[float]]]:
    """A value of each repetition by stopping rule, in words."""
    groups: dict[Any, pd.DataFrame] = dict(iter(stopped.groupby("criterion", sort=False)))
    rules = {}
    for criterion, rows in groups.items():
        rule = f"{criterion}\n{TARGETS[criterion]:g}, {rows['is_met'].to_numpy().sum()} of {len(rows)}"
        rules[rule] = rows[name].dropna().tolist()
    return {"a repetition; line: mean": rules}


def _curves(table: pd.DataFrame, metric: str) -> dict[str, AgreementCurve]:
    """Median and central 95% of the repetitions, by estimator in words."""
    curves = {}
    for name, words in IN_WORDS.items():
        of = table[table["estimator"] == name].groupby("num_trials")[metric]
        if not of.ngroups:
            continue
        low, median, high = (of.quantile(q) for q in (0.025, 0.5, 0.975))
        curves[words] = AgreementCurve(median.index.tolist(), median.tolist(), low.tolist(), high.tolist())
    return curves


def _needed(table: pd.DataFrame, metric: str, aim: int) -> dict[str, NeededTrials]:
    """By estimator in words, without the difference of means itself."""
    rows = table.query(f"metric == '{metric}' and estimator != '{PLAIN}'")
    return {
        IN_WORDS[row["estimator"]]: NeededTrials(*(row[name] / aim for name in ("median", "low", "high")))
        for row in rows.to_dict("records")
    }
