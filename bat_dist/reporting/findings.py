"""What was found, in sentences with n and how sure it is: the first thing on the page of a run and of a report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from bat_dist.memorization.reliability import reliability_in_words
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TYPICAL_THRESHOLD
from bat_dist.reporting.cells import BETTER, ONE_SEED, WORSE, difference, heading, mark
from bat_dist.results.claims import CLAIMS
from bat_dist.results.compare import ComparedResults, Table, TableCell
from bat_dist.results.find import Found
from bat_dist.results.findings_file import FoundStudy
from bat_dist.results.rows import ALL
from bat_dist.wording import counted

SHOWN = 3  # rows that a sentence names; the table has all


def of_scores(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on the scores of `summary.json`; what a file of an earlier version lacks is not mentioned."""
    yield from _on_memorization(numbers)
    if "num_influential_pairs" in numbers:
        pairs = counted(numbers["num_influential_pairs"], "pair")
        depend = ""
        if "sets" in numbers:
            share = f"{numbers['sets']['test_atypical']:,} of {counted(numbers['num_test'], 'test sample')}"
            depend = f"; {share} depend significantly on an atypical training sample"
            if numbers.get("settings", {}).get("typicality") == "paper":
                depend = f"; {share} depend on an atypical training sample by their estimates, which are not tested"
        above = f"An influence above {numbers['influence_threshold']:g}"
        yield f"{above} was found for {pairs} of a training and a test sample{depend}."
    for name, found in numbers.get("alignment", {}).items():
        low, high = found["spearman_interval"]
        if any(value is None or math.isnan(value) for value in (low, high, found["spearman"], found["auroc"])):
            continue
        yield (
            f"{name.replace('_', ' ').capitalize()} and memorization: Spearman's correlation {found['spearman']:.2f} "
            f"[{low:.2f}, {high:.2f}]; AUROC for the atypical samples {found['auroc']:.2f} (0.5: chance)."
        )


def _on_memorization(numbers: Mapping[str, Any]) -> Iterator[str]:
    if math.isnan(numbers.get("share_atypical", math.nan)):
        return
    known = numbers["num_train"] - numbers["num_undefined"]
    atypical = round(numbers["share_atypical"] * known)
    sure = numbers.get("num_atypical_sure")
    yield (
        f"{atypical:,} of {counted(known, 'training sample')} ({numbers['share_atypical']:.1%}) are atypical: "
        + f"mem above {ATYPICAL_THRESHOLD}"
        + ("" if sure is None else f", with the whole 95% interval above it for {sure:,} of them")
        + f"; {numbers['share_typical']:.1%} are typical: mem below {TYPICAL_THRESHOLD}."
    )
    if first := numbers.get("most_memorized"):
        yield (
            f"The most memorized sample is {first['id']} ({first['class']}): mem {first['mem']:.2f}"
            + (f" [{first['low']:.2f}, {first['high']:.2f}]" if "low" in first else "")
            + "."
        )
    if taken := numbers.get("num_taken_for_another"):
        yield (
            f"At least half of the networks that were not trained on them take {counted(taken, 'training sample')} for "
            "one other class: labels may be wrong (column predicted_left_out; a kind of samples in the explorer)."
        )
    if "reliability" in numbers:
        width = numbers.get("median_interval_width", math.nan)
        typical = "" if math.isnan(width) else f", the 95% interval of one sample is {width:.2f} wide (median)"
        words = reliability_in_words(numbers["reliability"], numbers["num_trials"])
        yield f"How sure: the reliability of these scores is {words}{typical}."


def of_report(found: Found, comparison: ComparedResults) -> Iterator[str]:
    """Sentences on all results: each table's columns, the paper's claims, the memorization runs."""
    for table in comparison.tables:
        yield from _on_table(table)
    yield from _on_claims(found.studies)
    for run in found.memorized:
        with suppress(KeyError, TypeError, ValueError):  # the section of the run says what is wrong with its file
            yield from (f"{run.summary.dataset}: {words}" for words in islice(of_scores(run.summary.numbers), 1))
    if not comparison.tables and not found.memorized and not found.studies:
        yield "Nothing is finished yet."


def _on_claims(studies: Sequence[FoundStudy]) -> Iterator[str]:
    """How many claims of the paper have which verdict, and how many controls of ours, as far as they were tested."""
    verdicts: dict[str, set[str]] = {name: set() for name in CLAIMS}
    for finding in (finding for study in studies for finding in study.findings):
        if finding.verdict != "not tested":
            verdicts[finding.claim].add(finding.verdict)

    def counts(names: Sequence[str]) -> str:
        said = [
            "with different verdicts" if len(verdicts[n]) > 1 else min(verdicts[n], default="not tested") for n in names
        ]
        return ", ".join(f"{said.count(one)} {one}" for one in dict.fromkeys(said))

    of_paper = [name for name, claim in CLAIMS.items() if claim.is_of_paper]
    ours = [name for name, claim in CLAIMS.items() if not claim.is_of_paper and verdicts[name]]
    if studies:
        yield f"Of {len(of_paper)} claims of the paper: {counts(of_paper)}."
    if ours:
        yield f"Of {counted(len(ours), 'claim')} of ours: {counts(ours)}."


def _on_table(table: Table) -> Iterator[str]:
    """What is compared, and a sentence for each attack and checkpoint."""
    columns: dict[tuple[str, str], list[TableCell]] = {}
    for (_, attack, subset), cell in table.cells.items():
        if subset == ALL and cell.compared:
            columns.setdefault((attack, cell.row.which), []).append(cell)
    size = f"{table.title}; {table.shared.num_test:,} test images"
    if not columns:
        yield f"{size}: {counted(len(table.rows), 'row')}, and nothing to compare."
        return
    seeds = [cell.compared.found.num_seeds for cells in columns.values() for cell in cells if cell.compared]
    of_seeds = counted(min(seeds), "seed") if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)} seeds"
    yield f"{size}, {of_seeds}: against {table.reference}, in points of accuracy with 95% intervals:"
    several = len({which for _, which in columns}) > 1
    for (attack, which), cells in columns.items():
        checkpoint = f", {which} checkpoint" if several else ""
        yield f"{heading(attack)}{checkpoint}: {_against(cells, table.references[which])}."


def _against(cells: Sequence[TableCell], reference: str) -> str:
    """`better than PGD-AT: BAT, +2.0 [+0.3, +3.9], p = 0.02; no significant difference for the other 4`."""
    parts = []
    for sign, word in ((BETTER, "better"), (WORSE, "worse")):
        those = sorted((cell for cell in cells if mark(cell) == sign), key=_size, reverse=True)
        named = [f"{cell.row.label}, {difference(cell).removesuffix(f' {sign}')}" for cell in those[:SHOWN]]
        more = [f"{len(those) - SHOWN} more"] * (len(those) > SHOWN)
        if those:
            parts.append(f"{word} than {reference}: {'; '.join(named + more)}")
    rest = sum(mark(cell) not in (BETTER, WORSE) for cell in cells)
    if rest:
        of = f"the other {rest}" if parts else f"any of {counted(rest, 'row')}"
        parts.append(f"no significant difference for {of}")
    if all(mark(cell) == ONE_SEED for cell in cells):
        parts.append("one seed each says nothing of other seeds")
    return "; ".join(parts)


def _size(cell: TableCell) -> float:
    return abs(cell.compared.found.difference) if cell.compared else 0.0
