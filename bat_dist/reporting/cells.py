"""A number of a table in words: accuracy, mark, difference to the reference, and the value of the paper beside it."""

import math

from bat_dist.evaluation.names import SINGLE
from bat_dist.results.compare import Table, TableCell
from bat_dist.results.rows import ALL

BETTER, WORSE, NOISE, ONE_SEED = "▲", "▼", "≈", "†"
LEGEND = (
    "Accuracies in percent: mean ± standard deviation over seeds. Against the reference: "
    f"{BETTER} better, {WORSE} worse (paired test over seeds and images, p < 0.05 for the whole column after Holm), "
    f"{NOISE} within noise, {ONE_SEED} one seed each: nothing is said about other seeds. Bold: better ({BETTER})."
)
_COLUMNS = {
    **{name: attack.heading for name, attack in SINGLE.items()},
    "autoattack": "AA",
    "autoattack_fast": "AA (APGD only)",
    "autoattack_rand": "AA (rand)",
}


def heading(attack: str) -> str:
    """`PGD-100` for pgd100."""
    if attack in _COLUMNS:
        return _COLUMNS[attack]
    name, at, worst = attack.partition("@")
    letters = name.rstrip("0123456789")
    words = letters.upper() + (f"-{name.removeprefix(letters)}" if name != letters else "")
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


def sign(cell: TableCell) -> str:
    """The mark after a space."""
    return f" {found}" if (found := mark(cell)) else ""


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
    found, p = cell.compared
    interval = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.difference:+.1f} {interval}, {p_in_words(p)}{sign(cell)}"


def p_in_words(p: float) -> str:
    """`p = 0.12`; of one so small that its digits say nothing only a bound."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def beside_paper(table: Table) -> tuple[list[str], dict[int, list[str]]]:
    """The attacks that the paper has too, and by row its values for them; ours minus it where the settings agree."""
    attacks = [attack for attack in table.attacks if any(attack in row.accuracies for row in table.published.values())]
    values: dict[int, list[str]] = {}
    for number in table.published:
        values[number] = []
        for cell in (table.cells.get((number, attack, ALL)) for attack in attacks):
            words = "" if cell is None or cell.published is None else f"{100 * cell.published:.1f}"
            if cell and cell.published_difference is not None:
                words += f" (ours {100 * cell.published_difference:+.1f})"
            values[number].append(words)
    return attacks, values
