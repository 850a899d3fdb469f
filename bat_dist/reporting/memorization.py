"""The end of a memorization run: figures, page, `summary.json`, and a few lines for the terminal."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from bat_dist.artifacts.scores import INFLUENCE, MEMORIZATION_TABLE, SCORES_TABLE, EnsembleScores, LeaveOutScores
from bat_dist.data.datasets import Dataset
from bat_dist.figures.galleries import NUM_PAIRS, MemorizedSamples
from bat_dist.figures.selection import distinct_pairs
from bat_dist.memorization.influence import influence_intervals
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TYPICAL_THRESHOLD
from bat_dist.reporting import figures, findings
from bat_dist.reporting.explanations import explained
from bat_dist.reporting.explorer import PAGE as EXPLORER
from bat_dist.reporting.explorer import explorer_page
from bat_dist.reporting.page import as_texts, render_memorization_page, save_figures
from bat_dist.reporting.summary import ensemble_summary, in_words, leave_out_summary
from bat_dist.results.summary_file import SUMMARY
from bat_dist.storage.computed_on import read_hardware
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance
from bat_dist.storage.status import STORES

PAGE = "index.html"
FILES = {
    "Sample explorer": EXPLORER,
    **{name: name for name in (MEMORIZATION_TABLE, SCORES_TABLE, INFLUENCE, SUMMARY)},
}
"""What lies beside the page of leave-out scores."""


def report_leave_out(
    folder: Folder,
    dataset: Dataset,
    settings: Mapping[str, Any],
    scores: LeaveOutScores,
    *,
    failed: Mapping[int, str] | None = None,
) -> str:
    """Write figures/, explorer.html, index.html and summary.json of leave-out scores; returns the lines to print."""
    summary = leave_out_summary(
        dataset,
        scores,
        influence_threshold=settings["influence_threshold"],
        failed=failed or {},
        mask_plan=settings["mask_plan"],
    )
    folder.write(EXPLORER, explorer_page(dataset, scores, settings).encode())
    drawn = _leave_out_figures(dataset, scores)
    return _write(folder, f"Memorization of {dataset.name}", summary, settings, drawn, files=FILES)


def report_ensemble(folder: Folder, dataset: Dataset, settings: Mapping[str, Any], found: EnsembleScores) -> str:
    """Write the same of the cheaper scores, into files of their own, named ensemble_*; returns the lines to print."""
    chosen = settings["score"]
    summary = ensemble_summary(dataset, chosen, found)
    drawn = {}
    if found.mem is not None:
        agreement = found.alignments[chosen]
        drawn["alignment_scatter"] = figures.alignment_scatter(
            found.scores[chosen],
            found.mem,
            score_name=chosen,
            spearman=agreement.spearman,
            spearman_interval=agreement.spearman_interval,
            auroc=agreement.auroc,
            atypical_threshold=ATYPICAL_THRESHOLD,
        )
    title = f"{chosen.replace('_', ' ').capitalize()} of {dataset.name}"
    return _write(folder, title, summary, settings, drawn, prefix="ensemble_")


def _leave_out_figures(dataset: Dataset, scores: LeaveOutScores) -> dict[str, Figure]:
    found, mem = scores.memorization, scores.memorization.mem
    samples = MemorizedSamples(dataset.train, dataset.class_names, mem, *found.interval(), found.accuracy_out)
    # Fig. 7: the others' large influences are mostly noise, since who is not memorized decides nothing alone.
    pairs = scores.pairs.of(mem > ATYPICAL_THRESHOLD)
    pairs = pairs.take(distinct_pairs(pairs.train_index, pairs.test_index, pairs.influence, NUM_PAIRS))
    low = high = None
    if trials := scores.trials:
        low, high = influence_intervals(trials.mask, trials.test_correct, pairs.train_index, pairs.test_index)
    drawn = {
        "memorization_histogram": figures.memorization_histogram(
            mem,
            num_trials=len(scores.trials.numbers) if scores.trials else 0,
            dataset=dataset.name,
            thresholds=(TYPICAL_THRESHOLD, ATYPICAL_THRESHOLD),
        ),
        "memorization_gallery": figures.memorization_gallery(samples),
        "extremes_gallery": figures.extremes_gallery(samples),
        "influence_pairs_gallery": figures.influence_pairs_gallery(samples, dataset.test, pairs, low=low, high=high),
    }
    if trials:
        accuracies = (trials.accuracy_in, trials.accuracy_out, trials.test_accuracy)
        drawn["accuracy_by_trial"] = figures.accuracy_by_trial(*accuracies, dataset=dataset.name)
    if scores.enough:
        drawn["undecided_by_trials"] = figures.undecided_by_trials(
            scores.enough.looks, dataset=dataset.name, sigma=scores.enough.rule.sigma, goal=scores.enough.rule.in_words
        )
    return drawn


def _write(
    folder: Folder,
    title: str,
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
    drawn: Mapping[str, Figure],
    *,
    files: Mapping[str, str] | None = None,
    prefix: str = "",
) -> str:
    origin = provenance(read_hardware(folder, STORES["ensemble" if prefix else "trials"]))
    words = in_words(summary)
    images = save_figures(folder / f"{prefix}figures", drawn)
    page = render_memorization_page(
        title=title,
        findings=list(findings.of_scores({**summary, "settings": settings})),
        files=files or {"ensemble_scores.npz": "ensemble_scores.npz", "ensemble_summary.json": "ensemble_summary.json"},
        summary=words,
        figures=[explained(name, image) for name, image in images.items()],
        warnings=summary["warnings"],
        provenance=as_texts({**origin, "data": summary["fingerprint"], "settings": settings}),
    )
    folder.write(f"{prefix}{PAGE}", page.encode())
    folder.write_json(f"{prefix}{SUMMARY}", {**summary, "settings": dict(settings), "provenance": origin})
    width = max(map(len, words)) + 1
    lines = [f"{name:{width}s}{value}" for name, value in words.items()]
    lines += [f"warning: {text}" for text in summary["warnings"]]
    lines += [f"page: {folder}/{prefix}{PAGE}", *([f"samples to explore: {folder}/{EXPLORER}"] if files else [])]
    return "\n".join([title, *lines])
