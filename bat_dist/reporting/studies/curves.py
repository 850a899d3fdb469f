"""The studies `atypical` (Fig. 1, 8-13) and `typical` (Fig. 2, 14-19)."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bat_dist.figures.study_figures import Series, curves_with_bands
from bat_dist.results.claims import Finding
from bat_dist.settings.study import LEAST, RANDOM, WHOLE, share_name
from bat_dist.storage.files import Folder
from bat_dist.studies.curves import Curve, atypical_findings, typical_findings
from bat_dist.studies.inputs import StudyInputs

CURVES = "curves.csv"
METHODS = {"pgd_at": "PGD-AT", "erm": "ERM"}
KINDS = {"clean": "clean", "pgd": "adversarial"}


def analyse_atypical(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Accuracies of PGD-AT and ERM on the atypical sets of both splits."""
    curves = {
        (method, f"{kind}_{split}_atypical"): Curve.of(inputs.histories(method), f"{kind}_{split}_atypical")
        for method in METHODS
        for kind in KINDS
        for split in ("train", "test")
    }
    _write(
        folder, inputs, (({"method": method, "column": column}, curve) for (method, column), curve in curves.items())
    )
    watched = inputs.sets.watched
    sizes = {f"num_{split}": int(watched[f"{split}_atypical"].sum()) for split in ("train", "test")}
    return list(atypical_findings(curves, **sizes))


def draw_atypical(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """Fig. 1 and 8 to 13: for each method, clean and adversarial accuracy on train and test atypical samples."""
    groups, sizes = _read(folder, ["method", "column"]), about["sizes"]
    figures = {}
    for method, name in METHODS.items():
        panels = {
            f"{words} accuracy": {
                f"{split} atypical": groups[method, f"{kind}_{split}_atypical"] for split in ("train", "test")
            }
            for kind, words in KINDS.items()
        }
        title = f"{name} on atypical samples"
        note = f"{_band(about)}, {sizes['train_atypical']:,} train and {sizes['test_atypical']:,} test atypical samples"
        figures[f"atypical_{method}"] = curves_with_bands(panels, title=title, note=note)
    return figures


def analyse_typical(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Accuracies on the test typical set after training with parts of the atypical samples, and with the controls."""
    settings = inputs.settings
    shares = sorted(settings.shares)
    subsets = [*map(share_name, shares), *([RANDOM, LEAST] if settings.controls else [])]
    curves, flags, chosen = [], {}, inputs.sets["test_typical"]
    for method in METHODS:
        for subset in subsets:
            histories = inputs.histories(method, subset)
            for kind in KINDS:
                where = {"method": method, "training_set": subset, "kind": kind}
                curves.append((where, Curve.of(histories, f"{kind}_test_typical")))
            of_all = inputs.flags(method, subset)
            flags |= {(method, subset, kind): of_all[kind][:, chosen] for kind in KINDS}
    _write(folder, inputs, curves)
    return list(typical_findings(flags, shares))


def draw_typical(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """Fig. 2 and 14 to 19: accuracy on the test typical set by epoch, a line for each training set."""
    groups = _read(folder, ["method", "training_set", "kind"])
    subsets = list(dict.fromkeys(subset for _, subset, _ in groups))
    panels = {
        f"{METHODS[method]}, {KINDS[kind]}": {
            set_in_words(subset): groups[method, subset, kind] for subset in subsets if (method, subset, kind) in groups
        }
        for method, kind in (("pgd_at", "clean"), ("pgd_at", "pgd"), ("erm", "clean"), ("erm", "pgd"))
    }
    note = f"{_band(about)}, {about['sizes']['test_typical']:,} test typical samples"
    return {"typical": curves_with_bands(panels, title="Accuracy on test typical samples", note=note)}


def set_in_words(subset: str) -> str:
    """A training set as a legend has it."""
    words = {
        WHOLE: "all samples",
        RANDOM: "random removed",
        LEAST: "most typical removed",
    }
    return words.get(subset) or f"{subset.removeprefix('atypical')}% of atypical"


def _band(about: Mapping[str, Any]) -> str:
    return f"{about['note']} (line: mean, band: lowest to highest)"


def _write(folder: Folder, inputs: StudyInputs, curves: Iterable[tuple[Mapping[str, str], Curve]]) -> None:
    """A row for each curve, seed and epoch."""
    rows = [
        {**where, "seed": seed, "epoch": epoch, "accuracy": value}
        for where, curve in curves
        for seed, values in zip(inputs.settings.seeds, curve.values, strict=True)
        for epoch, value in zip(curve.epochs, values, strict=True)
    ]
    folder.write(CURVES, pd.DataFrame(rows).to_csv(index=False).encode())


def _read(folder: Folder, keys: Sequence[str]) -> dict[Any, Series]:
    table = pd.read_csv(io.BytesIO(folder.read(CURVES)))
    found = {}
    for key, rows in table.groupby(list(keys), sort=False):
        wide = rows.pivot_table(index="seed", columns="epoch", values="accuracy")
        found[key] = list(wide.columns), wide.to_numpy().tolist()
    return found
