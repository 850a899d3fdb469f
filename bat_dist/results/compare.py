"""Tables: methods against a reference on one test set, with the paper's values, and what is missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bat_dist.config import Group
from bat_dist.errors import UserError
from bat_dist.methods.table import METHODS
from bat_dist.results.equal_subsets import with_equal_subsets
from bat_dist.results.find import Found, LeftOut, Training
from bat_dist.results.published import Published, departures, published_row
from bat_dist.results.rows import ALL, Comparability, MethodRow, Value, flat, in_order, is_column, rows_of
from bat_dist.results.statistics import LEVEL, Difference, compare_methods, holm
from bat_dist.settings.decides import marks
from bat_dist.settings.train import ATTACK, TrainSettings
from bat_dist.wording import nearest

REFERENCE = "pgd_at"  # unless another is asked for
ATTACK_SETTINGS = frozenset(name for name, group in marks(TrainSettings, Group).items() if group == ATTACK)


class Compared(NamedTuple):
    """A row against the reference.  adjusted: the p-value that holds for all rows of this column together (Holm).

    One pair of networks tells nothing of other seeds, however many images: that is never called significant.
    """

    found: Difference
    adjusted: float

    @property
    def is_significant(self) -> bool:
        """Is it significant at 5%, over all rows of the column, for other seeds and images?"""
        return self.found.num_seeds > 1 and self.adjusted < 1 - LEVEL


@dataclass(frozen=True)
class TableCell:
    """A number of a table.  compared: None for the reference itself, or where there is nothing to compare."""

    row: MethodRow
    attack: str
    subset: str
    value: Value
    compared: Compared | None
    published: float | None
    published_difference: float | None  # ours minus the paper's, where the setting is the paper's


@dataclass(frozen=True)
class Table:
    """All rows that may be compared.  cells: by (row's number, attack, subset).  notes: for the reader.

    references: the label of the row that others are compared with, by checkpoint, in the order of the rows.
    """

    shared: Comparability
    rows: tuple[MethodRow, ...]
    attacks: tuple[str, ...]
    subsets: tuple[str, ...]
    references: Mapping[str, str]
    cells: Mapping[tuple[int, str, str], TableCell]
    published: Mapping[int, Published]
    departures: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> str | None:
        """The references in words: `PGD-AT`, or each with its checkpoint if they differ; None if there is none."""
        labels = list(dict.fromkeys(self.references.values()))
        if len(labels) > 1:
            return ", ".join(f"{label} ({which} checkpoint)" for which, label in self.references.items())
        return labels[0] if labels else None

    def is_reference(self, row: MethodRow) -> bool:
        """Whether others of its checkpoint are compared with this row."""
        return self.references.get(row.which) == row.label

    @property
    def title(self) -> str:
        """`wrn28-10 on cifar100, 50,000 training images`."""
        trained = sorted({row.num_train for row in self.rows if row.num_train is not None})
        size = f", {' or '.join(f'{number:,}' for number in trained)} training images" if trained else ""
        return f"{self.shared.arch} on {self.shared.dataset}{size}"

    @property
    def about(self) -> str:
        """What its rows share, in words."""
        shared = self.shared
        pixels = [f"{255 * value:.4g}/255" for value in (shared.epsilon, shared.step_size)]
        restarts = f", {shared.restarts} restarts" if shared.restarts > 1 else ""
        held = sorted(
            {row.trained_by["num_val"] for row in self.rows if row.trained_by.keys() >= {"num_train", "num_val"}}
        )
        split = f"; validation split of {' or '.join(map(str, held))} held out of the training images" if held else ""
        return (
            f"{shared.num_test:,} test images; l_inf, epsilon {pixels[0]}, steps of {pixels[1]}{restarts}{split}; "
            f"data {shared.fingerprint[:12]}"
        )

    def cells_of(self, number: int) -> list[TableCell | None]:
        """A row's cells for all images in the order of the attacks; None where it was not attacked so."""
        return [self.cells.get((number, attack, ALL)) for attack in self.attacks]

    @property
    def published_in(self) -> str:
        """The paper's tables that have rows of this one: `Table 1 and Table 2`."""
        return " and ".join(dict.fromkeys(found.tables for found in self.published.values()))


@dataclass(frozen=True)
class ComparedResults:
    """What all results say together."""

    tables: tuple[Table, ...]
    left_out: tuple[LeftOut, ...]
    missing: tuple[str, ...]  # of no table: unfinished trainings, what a plan still lacks


def compare(found: Found, *, reference: str | None = None) -> ComparedResults:
    """Rows that share test images, threat and architecture stand in one table; others are never mixed.

    reference: a method or a label; default: PGD-AT where a table has it. Raises UserError if no table has it.
    """
    rows, doubled = rows_of(found.evaluations)
    apart = dict.fromkeys(row.shared for row in rows)
    tables = [_table([row for row in rows if row.shared == shared], reference) for shared in apart]
    if reference and tables and not any(table.reference for table in tables):
        names = {name for row in rows for name in (row.method, row.label)}
        there_are = ", ".join(sorted(names))
        raise UserError(f"no table has the reference {reference}{nearest(reference, names)} (there are: {there_are})")
    return ComparedResults(tuple(tables), (*found.left_out, *doubled), tuple(_missing(found)))


def _table(rows: Sequence[MethodRow], reference: str | None) -> Table:
    # As in the paper's tables: baselines first, BAT last; the best checkpoint before the last.
    rows = sorted(rows, key=lambda row: (row.which, [*METHODS, row.method].index(row.method), row.label))
    rows, about_subsets = with_equal_subsets(rows)
    shared = rows[0].shared
    attacks = [name for name in in_order(name for row in rows for name in row.attacks_of_any) if is_column(name)]
    subsets = dict.fromkeys([ALL, *(name for row in rows for n in row.networks for name in n.subsets)])
    references = {which: _reference(rows, which, reference) for which in dict.fromkeys(row.which for row in rows)}
    in_paper = [published_row(shared.dataset, shared.arch, row.method, row.method_settings) for row in rows]
    published = {number: found for number, found in enumerate(in_paper) if found}
    departs = {}
    for number in published:
        own = {"num_train": rows[number].num_train, "num_test": shared.num_test, "epsilon": shared.epsilon}
        departs[number] = departures(shared.dataset, {**rows[number].trained_by, **own})
    cells = {}
    for attack in attacks:
        for subset in subsets:
            compared = _column(rows, references, attack, subset)
            for number, row in enumerate(rows):
                value = row.value(attack, subset)
                if value is None:
                    continue
                paper = published[number].accuracies.get(attack) if number in published and subset == ALL else None
                same = paper is not None and not departs[number]
                away = value.mean - paper if paper is not None and same else None
                cells[number, attack, subset] = TableCell(row, attack, subset, value, compared.get(number), paper, away)
    return Table(
        shared=shared,
        rows=tuple(rows),
        attacks=tuple(attacks),
        subsets=tuple(subsets),
        references={which: row.label for which, row in references.items() if row is not None},
        cells=cells,
        published=published,
        departures=tuple(dict.fromkeys(words for found in departs.values() for words in found)),
        missing=tuple(_holes(rows, attacks)),
        notes=(*about_subsets, *_notes(rows)),
    )


def _reference(rows: Sequence[MethodRow], which: str, asked: str | None) -> MethodRow | None:
    """The row of a checkpoint that others are compared with; BAT with alpha = beta = 0 is PGD-AT, bit for bit."""
    own = [row for row in rows if row.which == which]
    wanted = (asked or REFERENCE).lower()
    for row in own:
        if wanted in (row.method.lower(), row.label.lower()):
            return row
    for row in own:
        is_plain = row.method_settings.get("alpha") == 0 == row.method_settings.get("beta")
        if asked is None and row.method == "bat" and is_plain:
            return row
    return None


def _column(
    rows: Sequence[MethodRow], references: Mapping[str, MethodRow | None], attack: str, subset: str
) -> dict[int, Compared]:
    """Each row against the reference of its checkpoint, by number."""
    found = {}
    for number, row in enumerate(rows):
        other = references[row.which]
        if other is None or row is other:
            continue
        theirs = [network.seed for network in other.networks_with(attack, subset)]
        shared = [network.seed for network in row.networks_with(attack, subset) if network.seed in theirs]
        if not shared:
            continue
        first, second = (one.flags(attack, subset, shared) for one in (row, other))
        if first.shape == second.shape and (difference := compare_methods(first, second)):
            found[number] = difference
    adjusted = holm([difference.p_value for difference in found.values()])
    return {number: Compared(found[number], p) for number, p in zip(found, adjusted, strict=True)}


def _holes(rows: Sequence[MethodRow], attacks: Sequence[str]) -> list[str]:
    """Seeds and attacks that some rows of the table have and others lack."""
    words = []
    seeds = list(dict.fromkeys(seed for row in rows for seed in row.seeds if seed))
    for row in rows:
        lacking = [str(seed[0]) for seed in seeds if seed not in row.seeds] if row.which != "given" else []
        found = [f"seed {', '.join(lacking)}"] if lacking else []
        for attack in attacks:
            without = [network.seed for network in row.networks if attack not in network.flags]
            if without:
                numbers = ", ".join(str(seed[0]) for seed in without if seed)
                found.append(attack + ("" if len(without) == len(row.networks) else f" for seed {numbers}"))
        if found:
            words.append(f"{row.label}, {row.which} checkpoint: {'; '.join(found)}")
    return words


def _notes(rows: Sequence[MethodRow]) -> list[str]:
    """Settings of training in which the methods of a table differ, so that nobody takes them for the methods' doing."""
    unfair = []
    known = [row for row in rows if row.trained_by.get("method")]
    all_settings = [flat(row.trained_by) for row in known]
    about_method = ("method", "scores", "best_by")
    for name in dict.fromkeys(key for settings in all_settings for key in settings):
        if name in about_method or name.startswith("method_settings."):
            continue
        values: dict[str, list[str]] = {}
        for row, settings in zip(known, all_settings, strict=True):
            if row.method != "erm" or name not in ATTACK_SETTINGS:  # ERM is not attacked in training
                values.setdefault(str(settings.get(name)), []).append(row.label)
        if len(values) > 1:
            words = "; ".join(f"{value}: {', '.join(dict.fromkeys(labels))}" for value, labels in values.items())
            unfair.append(f"trained with different {name} ({words})")
    evaluated = [one.document for row in rows for network in row.networks for one in network.evaluations]
    warned = dict.fromkeys(name for document in evaluated for row in document.rows for name in row.warnings)
    return unfair + [f"a hygiene check failed, these numbers may be too good: {name}" for name in warned]


def _missing(found: Found) -> Iterator[str]:
    """What was begun or planned and is not there."""
    trainings = {training.place: training for training in found.trainings}
    evaluated = {one.place for one in found.evaluations}
    for plan in found.planned:  # what `bat-dist reproduce` has still to do
        for run in plan.experiment.runs:
            places = run.evaluations.items()
            lacking = [which for which, place in places if str(plan.folder / place) not in evaluated]
            if lacking:
                training = trainings.get(str(plan.folder / run.training))
                state = _unfinished(training) if training else "not trained"
                state = state or f"trained, not evaluated ({', '.join(lacking)} checkpoint)"
                yield f"{run.label}, seed {run.seed}: {state}"
    planned = tuple(plan.folder.location.rstrip("/") + "/" for plan in found.planned)
    for training in found.trainings:
        if not training.place.startswith(planned) and (line := _unfinished(training)):
            yield f"{training.place}: {line}"
    yield from (f"{one.place}: {one.reason}" for one in found.unfinished if not one.place.startswith(planned))


def _unfinished(training: Training) -> str:
    if training.is_finished:
        return ""
    if training.failure:
        return f"failed: {training.failure}"
    epochs = training.identity.get("epochs")
    return f"trained to epoch {len(training.history)}" + (f" of {epochs}" if epochs else "")
