"""Tables of methods for programs: CSV with a line for each cell, and JSON in RobustBench's shape."""

import io
import math
from collections.abc import Mapping

import pandas as pd

from bat_dist.artifacts.export import architecture, pixels
from bat_dist.results.compare import ComparedResults, Table, TableCell
from bat_dist.storage.provenance import without_passwords


def records(comparison: ComparedResults) -> list[dict[str, str | float]]:
    """A flat record for each cell; accuracies and differences are fractions, NaN where undefined."""
    return [_record(table, cell) for table in comparison.tables for cell in table.cells.values()]


def _record(table: Table, cell: TableCell) -> dict[str, str | float]:
    row, value, nan = cell.row, cell.value, math.nan
    found = cell.compared.found if cell.compared else None
    known = row.networks_with(cell.attack, cell.subset)
    places = dict.fromkeys(network.source(cell.attack).place for network in known)
    return {
        "dataset": table.shared.dataset,
        "arch": table.shared.arch,
        "epsilon": table.shared.epsilon,
        "num_test": table.shared.num_test,
        "fingerprint": table.shared.fingerprint,
        "method": row.method,
        "label": row.label,
        "alpha": row.method_settings.get("alpha", nan),
        "beta": row.method_settings.get("beta", nan),
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
        "reference": table.references.get(row.which, "") if found else "",
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


def robustbench(comparison: ComparedResults) -> list[Mapping[str, object]]:
    """An entry per row in the shape of RobustBench's model_info; accuracies as text in percent, the mean over seeds.

    `autoattack_acc` is of AutoAttack standard alone; None where that was not run. `all_accuracies` is ours.
    """
    return [_entry(table, number) for table in comparison.tables for number in range(len(table.rows))]


def _entry(table: Table, number: int) -> Mapping[str, object]:
    row, shared = table.rows[number], table.shared
    cells = zip(table.attacks, table.cells_of(number), strict=True)
    found = {attack: f"{100 * cell.value.mean:.2f}" for attack, cell in cells if cell}
    seeds = f"mean of {len(row.networks)} seeds" if len(row.networks) > 1 else "one seed"
    return {
        "link": None,
        "name": row.label,
        "authors": None,
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": shared.dataset,
        "venue": None,
        "architecture": architecture(shared.arch) if shared.arch != "own model" else shared.arch,
        "eps": pixels(shared.epsilon),
        "clean_acc": found.get("clean"),
        "reported": found.get("autoattack"),
        "autoattack_acc": found.get("autoattack"),
        "footnote": f"{seeds}, {row.which} checkpoint, {shared.num_test} test images",
        "all_accuracies": found,
    }
