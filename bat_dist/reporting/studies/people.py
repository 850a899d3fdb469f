"""What people say of samples, for the study `poisoning`: labels that they gave anyway, and answers to its questions."""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib.figure import Figure

from bat_dist.figures.study_figures import Estimate, human_labels
from bat_dist.memorization.agreement import spearman_with_interval
from bat_dist.results.claims import Finding
from bat_dist.results.published import published_answers
from bat_dist.results.statistics import LEVEL
from bat_dist.storage.files import Folder
from bat_dist.studies.annotation import (
    ANSWERS,
    PAPER,
    Answered,
    agreements,
    share_of_other_class,
    table_of_answers,
)
from bat_dist.studies.people import HumanLabels, mean_difference, mean_of_images, share_of
from bat_dist.studies.poisoning import HIGH, LOW, PoisoningSamples
from bat_dist.wording import counted

LABEL_TABLE, ANSWER_TABLE, AGREEMENT = "labels.csv", "answers.csv", "kappa.csv"
BY_SCORE, BY_MEM = "poisoning score", "mem"
GIVEN, DIFFERS, NETWORKS, THIRD = "y1", "not y1", "y2", "a third"  # y1: the given class, y2: the network's
MEM_EDGES = (0.02, 0.15, 0.4, 0.7)  # the first two are the paper's


def analyse_labels(
    folder: Folder,
    samples: PoisoningSamples,
    labels: HumanLabels,
    given: Int64[np.ndarray, " train"],
    mem: Float[np.ndarray, " train"],
) -> list[Finding]:
    """Write the table of labels; returns what they say of the high set against the low one, and of memorization.

    labels, given and mem are of the whole training split.
    """
    differ = 1 - share_of(labels, given)
    named = share_of(labels[samples.index], samples.y2)
    rows = [*_by_score(samples, differ[samples.index], named), *_by_mem(differ, mem)]
    folder.write(LABEL_TABLE, pd.DataFrame(rows).to_csv(index=False).encode())
    seeds = counted(samples.scores.shape[1], "seed")
    known = ~np.isnan(differ) & ~np.isnan(mem)
    spearman, interval = spearman_with_interval(differ[known], mem[known], 1000, 0, LEVEL)
    return [
        _compared("poisoning_look_alike", differ[samples.index], samples, seeds),
        _compared("poisoning_named_class", named, samples, seeds),
        Finding(
            "people_disagree_on_memorized",
            spearman,
            *interval,
            f"{known.sum():,} training samples with labels, bootstrap over them",
        ),
    ]


def analyse_answers(folder: Folder, samples: PoisoningSamples, answered: Answered) -> list[Finding]:
    """Write the paper's table and Cohen's kappa of each pair of annotators."""
    rows = [
        {"annotator": row.annotator, "set": row.of, "n": row.n, **dict(zip(ANSWERS, row.percent, strict=True))}
        for row in table_of_answers(answered, samples)
    ]
    folder.write(ANSWER_TABLE, pd.DataFrame(rows).to_csv(index=False).encode())
    pairs = pd.DataFrame(agreements(answered), columns=["first", "second", "n", "kappa"])
    folder.write(AGREEMENT, pairs.to_csv(index=False).encode())
    basis = f"{counted(len(answered), 'person', 'people')}, {counted(samples.scores.shape[1], 'seed')}"
    return [_compared("poisoning_answers", share_of_other_class(answered), samples, basis)]


def draw_labels(folder: Folder, note: str) -> Figure:
    """What people call samples of high and low scores, and how often they differ by memorization."""
    rows = _rows(folder, LABEL_TABLE)
    by_answer = {f"{of} scores": _estimates(_of_set(rows, of)[1:], "label") for of in (HIGH, LOW)}  # [0]: given
    by_mem = _estimates([row for row in rows if row["by"] == BY_MEM], "group")
    return human_labels(by_answer, by_mem, note=f"{note}; bars: 95% t interval over images")


def label_lines(folder: Folder) -> Iterator[str]:
    """The shares of people's labels in the two sets; nothing if no labels are known."""
    if folder.exists(LABEL_TABLE):
        for of in (HIGH, LOW):
            found = _estimates(_of_set(_rows(folder, LABEL_TABLE), of), "label")
            shares = ", ".join(f"{label} {100 * found[label].share:.1f}%" for label in (GIVEN, NETWORKS, THIRD))
            yield f"people's labels, {of} scores ({counted(found[GIVEN].n, 'image')}): {shares}"


def answer_lines(folder: Folder) -> Iterator[str]:
    """The paper's table by annotator, with the paper's own rows, and the agreement; nothing if nobody was asked."""
    if not folder.exists(ANSWER_TABLE):
        return
    yield "percent of the answers (y1: the given class, y2: the network's):"
    for row in _rows(folder, ANSWER_TABLE):
        yield _answer_line(row["annotator"], row["set"], f"n = {row['n']}", [float(row[name]) for name in ANSWERS])
    for of, percent in published_answers().items():
        yield _answer_line(PAPER, of, "CIFAR-100, 2 people", percent)
    for row in _rows(folder, AGREEMENT):
        kappa = "undefined" if np.isnan(row["kappa"]) else f"{row['kappa']:.3f}"
        yield f"Cohen's kappa of {row['first']} and {row['second']}: {kappa} (n = {row['n']})"


def _answer_line(who: str, of: str, basis: str, percent: Sequence[float]) -> str:
    shares = ", ".join(f"{name} {value:.1f}" for name, value in zip(ANSWERS, percent, strict=True))
    return f"  {who}, {of} scores: {shares} ({basis})"


def _compared(claim: str, shares: Float[np.ndarray, " samples"], samples: PoisoningSamples, basis: str) -> Finding:
    """The mean share of the high set minus that of the low one, images being the unit."""
    of = {name: shares[samples.members(name)] for name in (HIGH, LOW)}
    found = mean_difference(of[HIGH], of[LOW])
    means = [mean_of_images(one) for one in of.values()]
    sizes = " and ".join(f"{name} {one.share:.3f} (n = {one.n})" for name, one in zip(of, means, strict=True))
    basis = f"{sizes}, {basis}, bootstrap over images, permutation p = {found.p_value:.4f}"
    return Finding(claim, found.difference, found.low, found.high, basis)


def _by_score(
    samples: PoisoningSamples, differ: Float[np.ndarray, " samples"], named: Float[np.ndarray, " samples"]
) -> Iterator[Mapping[str, Any]]:
    for of in (HIGH, LOW):
        members = samples.members(of)
        each = {GIVEN: 1 - differ, DIFFERS: differ, NETWORKS: named, THIRD: differ - named}
        for label, shares in each.items():
            yield {"by": BY_SCORE, "group": of, "label": label, **mean_of_images(shares[members])._asdict()}


def _by_mem(differ: Float[np.ndarray, " train"], mem: Float[np.ndarray, " train"]) -> Iterator[Mapping[str, Any]]:
    names = [f"≤ {MEM_EDGES[0]:g}", *(f"{low:g}–{high:g}" for low, high in itertools.pairwise(MEM_EDGES))]
    names.append(f"> {MEM_EDGES[-1]:g}")
    known = ~np.isnan(differ) & ~np.isnan(mem)
    bins = np.searchsorted(MEM_EDGES, mem)
    for number, name in enumerate(names):
        inside = differ[known & (bins == number)]
        if len(inside):
            yield {"by": BY_MEM, "group": name, "label": DIFFERS, **mean_of_images(inside)._asdict()}


def _of_set(rows: Sequence[Mapping[str, Any]], of: str) -> Sequence[Mapping[str, Any]]:
    return [row for row in rows if (row["by"], row["group"]) == (BY_SCORE, of)]


def _estimates(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Estimate]:
    return {row[key]: Estimate(row["share"], row["low"], row["high"], row["n"]) for row in rows}


def _rows(folder: Folder, name: str) -> list[Any]:
    """The rows of a table, as mappings."""
    names: Any = {"annotator": str, "first": str, "second": str}  # somebody may be called 7, or NA
    table = pd.read_csv(io.BytesIO(folder.read(name)), dtype=names, keep_default_na=False, na_values=[""])
    return table.to_dict("records")
