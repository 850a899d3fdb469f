"""Tables of methods as Markdown, CSV, LaTeX (booktabs), and JSON in RobustBench's shape."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bat_dist.artifacts.export import architecture, pixels
from bat_dist.results.compare import ComparedResults, Table, TableCell
from bat_dist.results.published import PAPER
from bat_dist.results.rows import ALL, MethodRow
from bat_dist.storage.provenance import without_passwords

BETTER, WORSE, NOISE, ONE_SEED = "▲", "▼", "≈", "†"
_LATEX_MARKS = {
    BETTER: r"$\blacktriangle$",
    WORSE: r"$\blacktriangledown$",
    NOISE: r"$\approx$",
    ONE_SEED: r"$\dagger$",
}
_COLUMNS = {
    "clean": "Clean",
    "fgsm": "FGSM",
    "autoattack": "AA",
    "autoattack_fast": "AA (APGD only)",
    "autoattack_rand": "AA (rand)",
}
LEGEND = (
    "Accuracies in percent: mean ± standard deviation over seeds. Against the reference: "
    f"{BETTER} better, {WORSE} worse (paired test over seeds and images, p < 0.05 for the whole column after Holm), "
    f"{NOISE} within noise, {ONE_SEED} one seed each: no word on other seeds. Bold is what is better ({BETTER})."
)
_LATEX_SPECIALS = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "σ": r"$\sigma$",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    '"': "''",
}


def heading(attack: str) -> str:
    """`PGD-100` for pgd100."""
    if attack in _COLUMNS:
        return _COLUMNS[attack]
    name, at, worst = attack.partition("@")
    letters, digits = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
    words = letters.upper() + (f"-{digits}" if digits else "")
    return f"{words} (worst of seeds)" if at and worst else words


def mark(cell: TableCell) -> str:
    """How it stands to the reference, as a sign; empty for the reference."""
    if cell.compared is None:
        return ""
    if cell.compared.found.num_seeds < 2:
        return ONE_SEED
    if not cell.compared.is_significant:
        return NOISE
    return BETTER if cell.compared.found.difference > 0 else WORSE


def percent(cell: TableCell) -> str:
    """`36.1 ± 0.8`, or `36.1` for one seed; `-` where no image is."""
    value = cell.value
    if math.isnan(value.mean):
        return "-"
    spread = "" if math.isnan(value.deviation) else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{spread}"


def difference(cell: TableCell | None) -> str:
    """`+1.0 [-0.3, +2.3], p = 0.12 ≈`, in points; empty without a comparison."""
    if cell is None or cell.compared is None:
        return ""
    found = cell.compared.found
    interval = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.difference:+.1f} {interval}, p {p_text(cell.compared.adjusted)}{sign(cell)}"


def sign(cell: TableCell) -> str:
    """The mark after a space."""
    return f" {found}" if (found := mark(cell)) else ""


def p_text(p: float) -> str:
    """`= 0.12`, or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"


# --- Markdown


def markdown(comparison: ComparedResults) -> str:
    """All tables, what is missing, and what was left out."""
    parts = ["# Tables", LEGEND] if comparison.tables else ["# Tables", "There is no finished evaluation."]
    for table in comparison.tables:
        parts += [f"## {_md(table.title)}", _md(table.about), *_table_parts(table)]
    if comparison.missing:
        parts += ["## Not there yet", _bullets(comparison.missing)]
    if comparison.left_out:
        parts += ["## Left out", _bullets([f"{one.place}: {one.reason}" for one in comparison.left_out])]
    return without_passwords("\n\n".join(parts)) + "\n"


def _table_parts(table: Table) -> Iterator[str]:
    head = ["Method", "Checkpoint", "Seeds"]
    numbers = range(len(table.rows))
    columns = list(map(heading, table.attacks))
    yield _grid(
        [*head, *columns], [[*_names(table, number), *map(_bold, table.cells_of(number))] for number in numbers]
    )
    others = [number for number in numbers if table.rows[number].label != table.reference]
    if table.reference and others:
        yield f"Difference to {_md(table.reference)}, in points, with 95% intervals; p-values hold for a column:"
        body = [[*_names(table, number)[:2], *map(difference, table.cells_of(number))] for number in others]
        yield _grid([*head[:2], *columns], body)
    if len(table.subsets) > 1:
        yield from _subset_parts(table)
    if table.published:
        yield from _published_parts(table)
    if table.missing:
        yield "Missing:\n\n" + _bullets(table.missing)
    if table.notes:
        yield "Mind:\n\n" + _bullets(table.notes)


def _subset_parts(table: Table) -> Iterator[str]:
    subsets = [name for name in table.subsets if name != ALL]
    counts = {name: _count(table, name) for name in subsets}
    yield "By kind of test image (" + ", ".join(f"{name}: {count:,}" for name, count in counts.items()) + "):"
    heads = [f"{heading(attack)}, {name}" for attack in table.attacks for name in subsets]
    body = []
    for number in range(len(table.rows)):
        cells = [table.cells.get((number, attack, name)) for attack in table.attacks for name in subsets]
        if any(cells):
            body.append([*_names(table, number)[:2], *(_bold(cell) for cell in cells)])
    yield _grid(["Method", "Checkpoint", *heads], body)


def _published_parts(table: Table) -> Iterator[str]:
    yield f"In the paper ({table.published_in}; {PAPER}):"
    attacks, values = beside_paper(table)
    body = [[*_names(table, number)[:2], *cells] for number, cells in values.items()]
    yield _grid(["Method", "Checkpoint", *map(heading, attacks)], body)
    if table.departures:
        yield "Where no difference is given, the setting is not the paper's: " + "; ".join(table.departures) + "."


def beside_paper(table: Table) -> tuple[list[str], dict[int, list[str]]]:
    """The attacks that the paper has too, and by row its values for them."""
    attacks = [attack for attack in table.attacks if any(attack in row.accuracies for row in table.published.values())]
    cells = {number: [table.cells.get((number, attack, ALL)) for attack in attacks] for number in table.published}
    return attacks, {number: list(map(_of_paper, row)) for number, row in cells.items()}


def _of_paper(cell: TableCell | None) -> str:
    """The paper's value, and ours minus it where the setting is the paper's."""
    if cell is None or cell.published is None:
        return ""
    away = "" if cell.published_difference is None else f" (ours {100 * cell.published_difference:+.1f})"
    return f"{100 * cell.published:.1f}{away}"


def _count(table: Table, subset: str) -> int:
    return next(cell.value.num_images for (_, _, name), cell in table.cells.items() if name == subset)


def _names(table: Table, number: int) -> list[str]:
    row = table.rows[number]
    note = " (reference)" if row.label == table.reference else ""
    return [_md(row.label) + note, row.which, str(len(row.networks))]


def _bold(cell: TableCell | None) -> str:
    if cell is None:
        return "missing"
    words = percent(cell)
    return f"**{words}** {BETTER}" if mark(cell) == BETTER else words + sign(cell)


def _md(text: str) -> str:
    """Text that Markdown leaves as it is."""
    for char in "\\`*_|<>[]":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"* {_md(line)}" for line in lines)


def _grid(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(heads) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *body))


# --- CSV


def records(comparison: ComparedResults) -> list[dict[str, Any]]:
    """A flat record for each cell; accuracies and differences are fractions, NaN where undefined."""
    return [_record(table, cell) for table in comparison.tables for cell in table.cells.values()]


def _record(table: Table, cell: TableCell) -> dict[str, Any]:
    row, value, nan = cell.row, cell.value, math.nan
    settings = row.trained_by.get("method_settings", {})
    found = cell.compared.found if cell.compared else None
    known = [network for network in row.networks if cell.attack in network.flags]
    places = dict.fromkeys(network.source(cell.attack).place for network in known)
    return {
        "dataset": table.bed.dataset,
        "arch": table.bed.arch,
        "epsilon": table.bed.epsilon,
        "num_test": table.bed.num_test,
        "fingerprint": table.bed.fingerprint,
        "method": row.method,
        "label": row.label,
        "alpha": settings.get("alpha", nan),
        "beta": settings.get("beta", nan),
        "which": row.which,
        "attack": cell.attack,
        "subset": cell.subset,
        "num_images": value.num_images,
        "num_seeds": len(value.per_seed),
        "seeds": " ".join(str(network.seed[0]) for network in known if network.seed),
        "accuracy": value.mean,
        "sd_over_seeds": value.deviation,
        "se_over_images": value.image_se,
        "per_seed": " ".join(map(repr, value.per_seed)),
        "reference": (table.reference or "") if found else "",
        "difference": found.difference if found else nan,
        "difference_low": found.low if found else nan,
        "difference_high": found.high if found else nan,
        "p_value": found.p_value if found else nan,
        "p_value_holm": cell.compared.adjusted if cell.compared else nan,
        "num_paired_seeds": found.num_seeds if found else 0,
        "is_significant": bool(cell.compared and cell.compared.is_significant),
        "published": nan if cell.published is None else cell.published,
        "published_difference": nan if cell.published_difference is None else cell.published_difference,
        "sources": " ".join(map(without_passwords, places)),
    }


def csv_text(comparison: ComparedResults) -> str:
    """`tables.csv`: a line a cell; numbers with all their digits, so that they read back equal."""
    text = io.StringIO()
    pd.DataFrame(records(comparison)).to_csv(text, index=False)
    return text.getvalue()


# --- LaTeX


def latex(comparison: ComparedResults) -> str:
    """`tables.tex`: a table environment each, for `\\input` into a document."""
    head = "% Needs \\usepackage{amsmath, amssymb, booktabs} in the preamble.\n"
    return head + "\n".join(map(_latex_table, comparison.tables))


def _latex_table(table: Table) -> str:
    columns = "lll" + "r" * len(table.attacks)
    heads = " & ".join(["Method", "Checkpoint", "Seeds", *(_tex(heading(attack)) for attack in table.attacks)])
    lines = []
    for number, row in enumerate(table.rows):
        cells = map(_tex_cell, table.cells_of(number))
        lines.append(" & ".join([_tex(row.label), row.which, str(len(row.networks)), *cells]) + r" \\")
    reference = f" Reference: {table.reference}." if table.reference else ""
    caption = _tex(f"{table.title}. {table.about}.{reference} {LEGEND}")
    return "\n".join(
        [
            *(f"% missing: {_tex(words)}" for words in table.missing),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            heads + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex_cell(cell: TableCell | None) -> str:
    if cell is None:
        return "--"
    words, found = _tex(percent(cell)), mark(cell)
    bold = rf"\textbf{{{words}}}" if found == BETTER else words
    return f"{bold} {_LATEX_MARKS[found]}" if found else bold


def _tex(text: str) -> str:
    """Escaped for LaTeX; letters that its fonts lack become question marks."""
    marks = {**_LATEX_SPECIALS, **_LATEX_MARKS}
    return "".join(marks.get(char, char if char.isascii() and char.isprintable() else "?") for char in text)


# --- RobustBench


def robustbench(comparison: ComparedResults) -> list[dict[str, Any]]:
    """An entry per row in the shape of RobustBench's model_info; accuracies as text in percent, the mean over seeds.

    `autoattack_acc` is of AutoAttack standard alone; None where that was not run. `all_accuracies` is ours.
    """
    return [_entry(table, number, row) for table in comparison.tables for number, row in enumerate(table.rows)]


def _entry(table: Table, number: int, row: MethodRow) -> dict[str, Any]:
    found = {a: f"{100 * cell.value.mean:.2f}" for a in table.attacks if (cell := table.cells.get((number, a, ALL)))}
    arch = table.bed.arch
    seeds = f"mean of {len(row.networks)} seeds" if len(row.networks) > 1 else "one seed"
    return {
        "link": None,
        "name": row.label,
        "authors": None,
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": table.bed.dataset,
        "venue": None,
        "architecture": architecture(arch) if arch != "own model" else arch,
        "eps": pixels(table.bed.epsilon),
        "clean_acc": found.get("clean"),
        "reported": found.get("autoattack"),
        "autoattack_acc": found.get("autoattack"),
        "footnote": f"{seeds}, {row.which} checkpoint, {table.bed.num_test} test images",
        "all_accuracies": found,
    }


def terminal(comparison: ComparedResults) -> Iterator[str]:
    """The tables for the terminal, without the differences' numbers."""
    for table in comparison.tables:
        yield f"{table.title}: {table.about}"
        heads = ["method", "checkpoint", "seeds", *map(heading, table.attacks)]
        body = [
            [row.label, row.which, str(len(row.networks)), *map(_plain, table.cells_of(number))]
            for number, row in enumerate(table.rows)
        ]
        widths = [max(len(line[at]) for line in (heads, *body)) for at in range(len(heads))]
        for line in (heads, *body):
            yield "  " + "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        yield from (f"  missing: {words}" for words in table.missing)
        yield from (f"  mind: {words}" for words in table.notes)
    if comparison.tables:
        yield LEGEND
    yield from (f"not there yet: {without_passwords(words)}" for words in comparison.missing)
    yield from (f"left out: {without_passwords(one.place)}: {one.reason}" for one in comparison.left_out)


def _plain(cell: TableCell | None) -> str:
    return percent(cell) + sign(cell) if cell else "missing"


def settings_text(values: Mapping[str, Any]) -> str:
    """`a=1, b=2`, without what is None."""
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
