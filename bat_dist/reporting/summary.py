"""The numbers of a memorization run: as plain values for `summary.json`, and in words for terminal and page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from bat_dist.artifacts.scores import EnsembleScores, LeaveOutScores, Trials
from bat_dist.data.datasets import Dataset
from bat_dist.data.table import DatasetSpec
from bat_dist.memorization.estimate import predicted_left_out
from bat_dist.memorization.reliability import ENOUGH, reliability_in_words, split_half_reliability, trials_for
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TYPICAL_THRESHOLD
from bat_dist.wording import counted

FITTED = 0.9  # accuracy on the samples trained on, below which the networks have not learned the data
MENDED = 0.5  # share of the errors on samples left out that training on them mends, at least; without it they have not
HALF = 0.5  # share of the networks not trained on a sample that take it for one other class: its label is doubted
FEW_ERRORS = 0.01  # of which no share is told


def leave_out_summary(
    dataset: Dataset,
    scores: LeaveOutScores,
    *,
    influence_threshold: float,
    failed: Mapping[int, str],
    mask_plan: str = "uniform",
) -> Mapping[str, Any]:
    """The numbers of leave-out trials: accuracies and shares are fractions; undefined ones are NaN (null in JSON)."""
    memorization, sets = scores.memorization, scores.sets
    mem = memorization.mem[~np.isnan(memorization.mem)]
    about = _about_trials(scores.trials, failed) if scores.trials else {}
    goal = scores.enough.rule.in_words if scores.enough else ""
    not_enough = f"the most trials allowed are not enough for {goal}: a larger max_trials goes on"
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "num_train": len(dataset.train),
        "num_test": len(dataset.test),
        **about,
        "num_undefined": memorization.num_undefined,
        "mean_mem": _mean(mem),
        "mean_mem_se": _mean(memorization.mem_se),
        "median_mem": float(np.median(mem)) if len(mem) else float("nan"),
        **_about_samples(dataset, scores),
        "share_atypical": _mean(mem > ATYPICAL_THRESHOLD),
        "share_typical": _mean(mem < TYPICAL_THRESHOLD),
        "influence_threshold": influence_threshold,
        "num_influential_pairs": scores.pairs.num_found,
        **({"sets": sets.sizes()} if sets else {}),
        **({"enough": scores.enough.facts(mask_plan)} if scores.enough else {}),
        "warnings": [
            *(_doubts(dataset.spec, about) if about else []),
            *([f"{counted(len(failed), 'trial')} failed, which the scores leave out"] if failed else []),
            *([not_enough] if scores.enough and not scores.enough.is_met else []),
            *(sets.warnings if sets else []),
        ],
    }


def ensemble_summary(dataset: Dataset, score: str, found: EnsembleScores) -> Mapping[str, Any]:
    """The chosen score's mean, and the agreement of every score with memorization, where that is known."""
    unknown = ["no memorization.npz in this folder: nothing to compare with"] if found.mem is None else []
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "num_train": len(dataset.train),
        "num_test": len(dataset.test),
        "score": score,
        "mean_score": _mean(found.scores[score]),
        "alignment": {name: vars(value) for name, value in found.alignments.items()},
        "warnings": unknown,
    }


def in_words(summary: Mapping[str, Any]) -> dict[str, str]:
    """What a reader wants to know, as label -> text; what the summary lacks is left out."""
    s, rows = summary, {}
    if "num_train" in s:
        rows["data"] = f"{s['dataset']}, {s['num_train']:,} training and {s['num_test']:,} test samples"
    if "reliability" in s:
        rows["reliability of memorization"] = reliability_in_words(s["reliability"], s["num_trials"])
    if "num_trials" in s:
        rows["trials"] = f"{s['num_trials']:,} complete, {s['num_failed']} failed, {s['trial_seconds']:.1f} s each"
        for name, label in (("in", "trained on"), ("out", "left out"), ("test", "of the test set")):
            deviation = s[f"accuracy_{name}_sd"]
            spread = "" if np.isnan(deviation) else f" ± {100 * deviation:.1f}%"
            rows[f"accuracy on samples {label}"] = f"{s[f'accuracy_{name}']:.1%}{spread} (sd over trials)"
    if "enough" in s:
        enough, last = s["enough"], s["enough"]["looks"][-1]
        rows["num_trials auto"] = (
            f"{enough['goal']}: {last['undecided']:.1%} undecided, {last['above']:.1%} above, {last['below']:.1%} not, "
            f"after {last['num_trials']:,} of at most {enough['rule']['max_trials']:,} trials"
        )
        rows["what that promises"] = enough["guarantee"]
    if "mean_mem" in s:
        width = s.get("median_interval_width", float("nan"))  # not in files of earlier versions
        interval = "" if np.isnan(width) else f"; 95% interval of one sample: {width:.2f} wide (median)"
        rows["mean memorization"] = f"{s['mean_mem']:.3f}, median {s['median_mem']:.3f}{interval}"
        rows[f"atypical, mem > {ATYPICAL_THRESHOLD}"] = f"{s['share_atypical']:.1%}"
        rows[f"typical, mem < {TYPICAL_THRESHOLD}"] = f"{s['share_typical']:.1%}"
        rows["undefined"] = counted(s["num_undefined"], "sample") + " never in or never out"
        rows[f"influence > {s['influence_threshold']:g}"] = counted(s["num_influential_pairs"], "pair")
    if "sets" in s:
        rows["test set"] = f"{s['sets']['test_typical']:,} typical, {s['sets']['test_atypical']:,} atypical samples"
    if "mean_score" in s:
        rows[f"mean {s['score']}"] = f"{s['mean_score']:.3f}"
    for name, found in s.get("alignment", {}).items():
        low, high = map(_number, found["spearman_interval"])
        rows[f"{name} and memorization"] = (
            f"Spearman {_number(found['spearman'])} (95%: {low} to {high}), AUROC {_number(found['auroc'])}"
        )
    return rows


def _number(value: float | None) -> str:
    """In three decimals; what is not defined is NaN, and null in JSON."""
    return "undefined" if value is None or np.isnan(value) else f"{value:.3f}"


def _doubts(spec: DatasetSpec, about: Mapping[str, Any]) -> list[str]:
    """Why the scores of trials may say little: noise, or networks that have not learned the data."""
    doubts, num_trials = [], about["num_trials"]
    reliability, fitted, left_out = (about[name] for name in ("reliability", "accuracy_in", "accuracy_out"))
    if reliability < ENOUGH:
        more = trials_for(reliability, num_trials)
        doubts.append(
            f"the reliability of memorization is {reliability:.2f}: only {max(0.0, reliability):.0%} of its variance "
            f"between samples is more than the chance of {num_trials:,} trials"
            + (f"; about {more:,} trials would make it {ENOUGH:g}" if more else "")
        )
    if fitted < FITTED or (1 - left_out > FEW_ERRORS and fitted - left_out < MENDED * (1 - left_out)):
        padding = f"--crop_padding {spec.crop_padding // 2}" * bool(spec.crop_padding)
        less = " or ".join(filter(None, (padding, "--no_flip" * spec.flip)))
        doubts.append(
            f"the networks classify only {fitted:.1%} of the samples that they were trained on, and {left_out:.1%} "
            "when these are left out: what they did not learn they cannot memorize, and mem is too low; "
            "more --epochs or another --arch fit the data better" + (f", or less augmentation ({less})" if less else "")
        )
    return doubts


def _about_trials(trials: Trials, failed: Mapping[int, str]) -> dict[str, Any]:
    accuracies = {"in": trials.accuracy_in, "out": trials.accuracy_out, "test": trials.test_accuracy}
    return {
        "reliability": split_half_reliability(trials.mask, trials.train_correct),
        "num_trials": len(trials.numbers),
        "num_failed": len(failed),
        "failed": {str(trial): reason for trial, reason in failed.items()},
        **{f"accuracy_{name}": _mean(values) for name, values in accuracies.items()},
        **{
            f"accuracy_{name}_sd": float(values.std(ddof=1)) if len(values) > 1 else float("nan")
            for name, values in accuracies.items()
        },
        "trial_seconds": _mean(trials.metrics[:, 1]),
        "mean_final_loss": _mean(trials.metrics[:, 0]),
    }


def _about_samples(dataset: Dataset, scores: LeaveOutScores) -> dict[str, Any]:
    """What the interval of each sample says, the most memorized one, and how many look wrongly labelled."""
    found, trials, train = scores.memorization, scores.trials, dataset.train
    low, high = found.interval()
    about: dict[str, Any] = {}
    if found.num_undefined < len(train):
        i = int(np.nanargmax(found.mem))
        first = {
            "id": str(train.ids[i]),
            "class": str(dataset.class_names[train.labels[i]]),
            "mem": float(found.mem[i]),
        }
        about["most_memorized"] = {**first, **({"low": float(low[i]), "high": float(high[i])} if trials else {})}
    if trials:
        widths = (high - low)[~np.isnan(low)]
        about["num_atypical_sure"] = int(np.count_nonzero(low > ATYPICAL_THRESHOLD))
        about["median_interval_width"] = float(np.median(widths)) if len(widths) else float("nan")
    if trials and trials.train_predicted is not None:
        predicted, share = predicted_left_out(trials.mask, trials.train_predicted, len(dataset.class_names))
        about["num_taken_for_another"] = int(np.count_nonzero((predicted != train.labels) & (share >= HALF)))
    return about


def _mean(values: Float[np.ndarray, " values"]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
