"""Tables of methods for LaTeX, with booktabs."""

from bat_dist.reporting.cells import BETTER, LEGEND, NOISE, ONE_SEED, WORSE, heading, mark, percent
from bat_dist.results.compare import ComparedResults, Table

_MARKS = {
    BETTER: r"$\blacktriangle$",
    WORSE: r"$\blacktriangledown$",
    NOISE: r"$\approx$",
    ONE_SEED: r"$\dagger$",
}
_SPECIALS = {
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
    **_MARKS,
}


def latex(comparison: ComparedResults) -> str:
    """`tables.tex`: a table environment each, for `\\input` into a document."""
    head = "% Needs \\usepackage{amsmath, amssymb, booktabs} in the preamble.\n"
    return head + "\n".join(map(_table, comparison.tables))


def _table(table: Table) -> str:
    columns = "lll" + "r" * len(table.attacks)
    heads = " & ".join(["Method", "Checkpoint", "Seeds", *(_tex(heading(attack)) for attack in table.attacks)])
    lines = []
    for number, row in enumerate(table.rows):
        words = [_tex(row.label), row.which, str(len(row.networks))]
        for cell in table.cells_of(number):
            value, found = (_tex(percent(cell)), mark(cell)) if cell else ("--", "")
            words.append(rf"\textbf{{{value}}}" if found == BETTER else value)
            words[-1] += f" {_MARKS[found]}" if found else ""
        lines.append(" & ".join(words) + r" \\")
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


def _tex(text: str) -> str:
    """Escaped for LaTeX; letters that its fonts lack become question marks."""
    return "".join(_SPECIALS.get(char, char if char.isascii() and char.isprintable() else "?") for char in text)
