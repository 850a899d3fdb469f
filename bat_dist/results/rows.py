"""Evaluations of networks put together: one row for each method, training setting and checkpoint, over its seeds."""

import dataclasses
import math
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from bat_dist.data.table import AUGMENTATION, check_dataset
from bat_dist.errors import UserError
from bat_dist.evaluation.names import SINGLE, steps_of
from bat_dist.results.evaluation_file import FoundEvaluation
from bat_dist.results.find import LeftOut
from bat_dist.results.labels import label_of, method_name
from bat_dist.settings.decides import facts_of
from bat_dist.settings.train import TrainSettings

# Those of no setting: samples left to train on, how averages begin, and what networks from elsewhere are called.
_OTHER_FACTS = frozenset({"num_train", "train_subset", "ema_warm_up", "model", "weights"})
# The networks of a row differ in their seeds, its table is of one architecture, and watching changes no network.
_NOT_OF_A_ROW = frozenset({"seed", "val_seed", "arch", "watch"})
_PLACE_IN_NAMES = {"method": -3, "method_settings": -2, "scores": -1, **dict.fromkeys(AUGMENTATION, 1)}  # else 0
ALL = "all"  # the subset of all images


class Comparability(NamedTuple):
    """What evaluations must share to stand in one table: test images, threat, architecture.

    epsilon, step_size: in [0, 1] pixels.
    """

    dataset: str
    fingerprint: str  # of the data, training and test images, in order
    num_test: int
    epsilon: float
    step_size: float
    restarts: int
    arch: str


@dataclass(frozen=True)
class Network:
    """One trained network on the test set, from one folder or from several with different attacks.

    seed: (seed, validation seed) of its training, None for networks from elsewhere.
    """

    seed: tuple[int, int] | None
    digest: str
    evaluations: tuple[FoundEvaluation, ...]

    @property
    def flags(self) -> dict[str, Bool[np.ndarray, " images"]]:
        """Which test images stay right, by attack."""
        return {name: flags for one in reversed(self.evaluations) for name, flags in one.flags.items()}

    @property
    def subsets(self) -> dict[str, Bool[np.ndarray, " images"]]:
        """Which test images belong to each subset, by its name; the whole is among them."""
        first = next(iter(self.flags.values()))
        named = {name: members for one in self.evaluations for name, members in one.subsets.items()}
        return {ALL: np.ones(len(first), bool), **named}

    def source(self, attack: str) -> FoundEvaluation:
        """The evaluation that its flags of an attack come from."""
        return next(one for one in self.evaluations if attack in one.flags)


class Value(NamedTuple):
    """An accuracy, as a fraction: mean and standard deviation (n - 1) over seeds, and each seed's own.

    image_se: standard error of a single network's accuracy over test images, sqrt(p (1 - p) / n).
    """

    mean: float
    deviation: float
    per_seed: tuple[float, ...]
    num_images: int
    image_se: float


@dataclass(frozen=True)
class MethodRow:
    """Networks that differ in their seeds alone.  which: best or last checkpoint; label: unique in its table."""

    shared: Comparability
    which: str
    trained_by: Mapping[str, Any]
    networks: tuple[Network, ...]
    label: str = ""

    @property
    def method(self) -> str:
        """`pgd_at`, or what a network from elsewhere is called."""
        return str(self.trained_by.get("method") or self.trained_by.get("model") or self.trained_by.get("weights"))

    @property
    def method_settings(self) -> Mapping[str, Any]:
        """The hyper-parameters of its method, such as alpha and beta of BAT."""
        return self.trained_by.get("method_settings", {})

    @property
    def num_train(self) -> int | None:
        """How many training images there were, with those of the validation split; None if that is not known."""
        return (
            self.trained_by["num_train"] + self.trained_by.get("num_val", 0) if "num_train" in self.trained_by else None
        )

    @property
    def seeds(self) -> list[tuple[int, int] | None]:
        """The seeds of its networks."""
        return [network.seed for network in self.networks]

    @property
    def attacks(self) -> list[str]:
        """Those that every one of its networks went through, in the order of the tables."""
        return [name for name in self.attacks_of_any if all(name in network.flags for network in self.networks)]

    @property
    def attacks_of_any(self) -> list[str]:
        """Those that one of its networks went through."""
        return in_order(name for network in self.networks for name in network.flags)

    def networks_with(self, attack: str, subset: str = ALL) -> list[Network]:
        """Those that went through the attack and whose test images have the subset."""
        return [network for network in self.networks if attack in network.flags and subset in network.subsets]

    def flags(
        self, attack: str, subset: str = ALL, seeds: Sequence[tuple[int, int] | None] | None = None
    ) -> Bool[np.ndarray, "seeds images"]:
        """The flags of its networks, or of those of some seeds, in their order.

        Raises KeyError if one lacks the attack or the subset.
        """
        of = {network.seed: network for network in self.networks}
        chosen = [of[seed] for seed in (self.seeds if seeds is None else seeds)]
        return np.array([network.flags[attack][network.subsets[subset]] for network in chosen])

    def value(self, attack: str, subset: str = ALL) -> Value | None:
        """The accuracy over the networks that went through the attack; None if none did."""
        known = self.networks_with(attack, subset)
        if not known:
            return None
        per_seed = tuple(float(np.mean(n.flags[attack][n.subsets[subset]])) for n in known if n.subsets[subset].any())
        if not per_seed:
            return Value(math.nan, math.nan, (), 0, math.nan)
        num_images = max(int(network.subsets[subset].sum()) for network in known)
        mean = float(np.mean(per_seed))
        deviation = float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else math.nan
        return Value(mean, deviation, per_seed, num_images, math.sqrt(mean * (1 - mean) / num_images))


def rows_of(evaluations: Iterable[FoundEvaluation]) -> tuple[list[MethodRow], list[LeftOut]]:
    """The rows, labelled, and the evaluations that are in none of them."""
    groups: dict[str, list[FoundEvaluation]] = {}
    left_out = []
    for one in evaluations:
        try:
            how = sorted((name, repr(value)) for name, value in flat(trained_by(one.document.facts)).items())
            key = repr((comparability_of(one), which_of(one), how))
        except (UserError, KeyError, TypeError, ValueError) as error:
            left_out.append(LeftOut(one.place, f"{type(error).__name__}: {error}"))
            continue
        groups.setdefault(key, []).append(one)
    rows = []
    for group in groups.values():
        networks, doubled = _networks(group)
        left_out += doubled
        rows.append(
            MethodRow(comparability_of(group[0]), which_of(group[0]), trained_by(group[0].document.facts), networks)
        )
    settings = [flat(row.trained_by) for row in rows]
    kinds = [(row.shared, row.which, row.method) for row in rows]
    labelled = []
    for row, own, kind in zip(rows, settings, kinds, strict=True):
        rivals = [other for other, its in zip(settings, kinds, strict=True) if its == kind]
        names = {method for *table, method in kinds if table == [*kind[:2]]}
        is_alone = sum(method_name(name) == method_name(row.method) for name in names) == 1
        label = label_of(row.method, own, rivals)
        labelled.append(dataclasses.replace(row, label=label if is_alone else f"{label}, {row.method.split()[-1]}"))
    return labelled, left_out


def comparability_of(one: FoundEvaluation) -> Comparability:
    """What the evaluation shares with those it may stand beside.

    Raises UserError for a dataset that does not exist, or another split than the test split.
    """
    document, settings = one.document, one.document.settings
    spec = check_dataset(settings["dataset"])
    if (split := settings.get("split", "test")) != "test":
        raise UserError(f"it attacks the {split} split, and tables are of test images")
    name = spec.name
    if name == "image_folder" and settings.get("data_dir"):
        own = PurePosixPath(posixpath.normpath(str(settings["data_dir"]))).name
        name = name if own in ("", "..") else own  # of `.` nobody knows here what it was called there
    return Comparability(
        dataset=name,
        fingerprint=document.fingerprint,
        num_test=len(next(iter(one.flags.values()))),
        epsilon=document.epsilon or settings.get("epsilon") or spec.epsilon,
        step_size=document.step_size or settings.get("step_size") or spec.step_size,
        restarts=settings.get("restarts", 1),
        arch=str(document.facts.get("arch") or "own model"),
    )


def which_of(one: FoundEvaluation) -> str:
    """The checkpoint: best or last; `given` for a network from elsewhere."""
    return str(one.document.settings.get("which") or "best") if one.document.facts.get("method") else "given"


def telling_apart(settings_class: type) -> frozenset[str]:
    """Facts of a checkpoint that tell how it was trained, but for its seeds; the others tell how the training went."""
    return _OTHER_FACTS.union(facts_of(settings_class).values()) - _NOT_OF_A_ROW


TRAINED_BY = telling_apart(TrainSettings)


def trained_by(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """How a network was trained, but for its seeds; in the order in which names of rows say it."""
    known = [name for name, value in facts.items() if name in TRAINED_BY and value is not None]
    return {name: facts[name] for name in sorted(known, key=lambda name: _PLACE_IN_NAMES.get(name, 0))}


def in_order(attacks: Iterable[str]) -> list[str]:
    """The columns of a table: clean, fgsm, ..., pgd by steps, cw, the parts of AutoAttack, AutoAttack, worst case."""
    last = {"autoattack_fast": 6, "autoattack": 7, "autoattack_rand": 8, "worst_case": 9}

    def place(name: str) -> tuple[int, int, str]:
        base = name.partition("@")[0].partition(":")[0]
        if base in SINGLE:
            return 0, list(SINGLE).index(base), name
        if steps := steps_of(base):
            return 2 + base.startswith("cw"), steps, name
        return last.get(base, 5), 0, name

    return sorted(dict.fromkeys(attacks), key=place)


def is_column(attack: str) -> bool:
    """Has it a column of its own?  Parts of AutoAttack, single seeds of attacks and the worst case have none."""
    return ":" not in attack and attack != "worst_case" and not ("@" in attack and not attack.endswith("@worst"))


def flat(values: Mapping[str, Any], prefix: str = "") -> Mapping[str, Any]:
    """Nested mappings as one: `recipe.epochs`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _networks(group: Sequence[FoundEvaluation]) -> tuple[tuple[Network, ...], list[LeftOut]]:
    """One network for each seed, the seeds in order; several evaluations of one network are joined.

    Also the evaluations of which something is in no row: another network of a seed, or flags that contradict others.
    """
    networks: dict[Any, Network] = {}
    left_out = []
    for one in group:
        digest, facts = one.document.network, one.document.facts
        seed = (facts["seed"], facts.get("val_seed", 0)) if "seed" in facts else None
        known = networks.get(seed)
        if known is None:
            networks[seed] = Network(seed, digest, (one,))
        elif known.digest == digest:
            networks[seed] = dataclasses.replace(known, evaluations=(*known.evaluations, one))
            twice = [name for name in one.flags if name in known.flags and is_column(name)]
            differ = [name for name in twice if not np.array_equal(known.flags[name], one.flags[name])]
            if differ:  # batches were cut otherwise, or the machine was another
                what = f"its {', '.join(differ)}: the same network was attacked in"
                left_out.append(LeftOut(one.place, f"{what} {known.evaluations[0].place} with other outcome"))
        else:
            other = f"another network of the same settings and seed, that of {known.evaluations[0].place},"
            left_out.append(LeftOut(one.place, f"{other} is in the table"))
    return tuple(networks[seed] for seed in sorted(networks, key=repr)), left_out
