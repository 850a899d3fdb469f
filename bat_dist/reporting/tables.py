"""Tables of methods for people: as Markdown, and for the terminal."""

from collections.abc import Iterator, Sequence

from bat_dist.reporting.cells import BETTER, LEGEND, beside_paper, difference, heading, mark, percent, sign
from bat_dist.results.compare import ComparedResults, Table, TableCell
from bat_dist.results.published import PAPER
from bat_dist.results.rows import ALL
from bat_dist.storage.provenance import without_passwords


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
    columns, numbers = list(map(heading, table.attacks)), range(len(table.rows))
    body = [[*_names(table, number), *map(_bold, table.cells_of(number))] for number in numbers]
    yield _grid(["Method", "Checkpoint", "Seeds", *columns], body)
    others = [number for number in numbers if not table.is_reference(table.rows[number])]
    if table.reference and others:
        yield f"Difference to {_md(table.reference)}, in points, with 95% intervals; p-values hold for a column:"
        body = [[*_names(table, number)[:2], *map(difference, table.cells_of(number))] for number in others]
        yield _grid(["Method", "Checkpoint", *columns], body)
    if len(table.subsets) > 1:
        yield from _subset_parts(table)
    if table.published:
        yield f"In the paper ({table.published_in}; {PAPER}):"
        attacks, values = beside_paper(table)
        body = [[*_names(table, number)[:2], *cells] for number, cells in values.items()]
        yield _grid(["Method", "Checkpoint", *map(heading, attacks)], body)
        if table.departures:
            yield "Where no difference is given, the setting is not the paper's: " + "; ".join(table.departures) + "."
    if table.missing:
        yield "Missing:\n\n" + _bullets(table.missing)
    if table.notes:
        yield "Mind:\n\n" + _bullets(table.notes)


def _subset_parts(table: Table) -> Iterator[str]:
    """The accuracies on parts of the test images, such as typical and atypical."""
    counts: dict[str, int] = {}
    for (_, _, subset), cell in table.cells.items():
        counts.setdefault(subset, cell.value.num_images)
    subsets = [name for name in table.subsets if name != ALL]
    yield "By kind of test image (" + ", ".join(f"{name}: {counts[name]:,}" for name in subsets) + "):"
    heads = [f"{heading(attack)}, {name}" for attack in table.attacks for name in subsets]
    body = []
    for number in range(len(table.rows)):
        cells = [table.cells.get((number, attack, name)) for attack in table.attacks for name in subsets]
        if any(cells):
            body.append([*_names(table, number)[:2], *map(_bold, cells)])
    yield _grid(["Method", "Checkpoint", *heads], body)


def _names(table: Table, number: int) -> list[str]:
    row = table.rows[number]
    note = " (reference)" if table.is_reference(row) else ""
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


def terminal(comparison: ComparedResults) -> Iterator[str]:
    """The tables for the terminal, without the differences' numbers."""
    for table in comparison.tables:
        yield f"{table.title}: {table.about}"
        lines = [["method", "checkpoint", "seeds", *map(heading, table.attacks)]]
        for number, row in enumerate(table.rows):
            cells = [percent(cell) + sign(cell) if cell else "missing" for cell in table.cells_of(number)]
            lines.append([row.label, row.which, str(len(row.networks)), *cells])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            yield "  " + "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        yield from (f"  missing: {words}" for words in table.missing)
        yield from (f"  mind: {words}" for words in table.notes)
    if comparison.tables:
        yield LEGEND
    yield from (f"not there yet: {without_passwords(words)}" for words in comparison.missing)
    yield from (f"left out: {without_passwords(one.place)}: {one.reason}" for one in comparison.left_out)
