"""Settings of `bat-dist tune`.  Imports neither torch nor ray, so that `--help` answers at once."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Len
from pydantic import AfterValidator

import bat_dist
from bat_dist.config import Group, Help, from_dict
from bat_dist.config.declared import declared
from bat_dist.errors import ConfigError
from bat_dist.evaluation.names import check_attacks
from bat_dist.methods.defaults import ALPHA, BETA
from bat_dist.settings.decides import Decides, SameInSweep, deciding, marks, names_of
from bat_dist.settings.fields import Seeds, Status
from bat_dist.settings.known import beside
from bat_dist.settings.sections import RaySettings, check_fresh
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.places import Place
from bat_dist.sweep.space import Dimension, Point, draws, grid, read_space, with_references, without_repetition

CONFIGS = "tune_configs"
OF_SCORES = ("scores", "score", "sigma", "atypical_share", "undefined")  # settings of `train` that decide its scores
Metric = Literal[
    "val_clean", "val_pgd", "val_clean_typical", "val_clean_atypical", "val_pgd_typical", "val_pgd_atypical"
]
TRIED, CHOSEN, RUNS = Group("what is tried"), Group("what is chosen"), Group("how it runs")


@dataclass(frozen=True, kw_only=True)
class TuneSettings(RaySettings):
    """`bat-dist tune`."""

    out: Annotated[
        Place, Help("the sweep's folder, or a URI such as s3://b/sweep; what it holds is resumed", "DIR"), Decides.CALL
    ]
    base: Annotated[dict[str, Any], Help("settings of bat-dist train that all runs share"), TRIED]
    space: Annotated[
        dict[str, Any],
        Help("settings that vary: alpha: [0, 1, 2, 3] or beta: {uniform: [0, 0.3]}; also choice, grid, loguniform"),
        TRIED,
    ]
    search: Annotated[
        Literal["grid", "random", "tpe"],
        Help("every combination; num_points drawn at random; or num_points proposed by Optuna's TPE"),
        TRIED,
    ] = "grid"
    num_points: Annotated[int | None, Ge(1), Help("of random and tpe; more can be asked for later"), TRIED] = None
    search_seed: Annotated[int, Ge(0), Help("of random and tpe"), TRIED] = 0
    seeds: Annotated[Seeds, Help("each point is trained with each; two or more give intervals"), TRIED] = (0,)

    metric: Annotated[
        tuple[Metric, ...],
        Len(1),
        Help("validation accuracy that points are chosen by, more is better; with two, the Pareto front is chosen"),
        CHOSEN,
    ] = ("val_pgd",)
    which: Annotated[
        Literal["best", "last"], Help("checkpoint of a run that counts: its best epoch, or its last"), CHOSEN
    ] = "best"
    test_attacks: Annotated[
        tuple[str, ...] | None,
        AfterValidator(lambda names: names and check_attacks(names)),
        Help(
            "on the test set, at the end, for the chosen points and PGD-AT alone; none: leave the test set alone",
            "NAME",
        ),
        CHOSEN,
    ] = ("clean", "pgd20")

    scheduler: Annotated[
        Literal["none", "asha"],
        Help("asha stops runs that lag behind; never before the learning rate has dropped"),
        RUNS,
    ] = "none"
    asha_factor: Annotated[
        float,
        Gt(1),
        Help("asha keeps one in so many at each rung, and each rung is so many times later than the last"),
        RUNS,
    ] = 3.0
    asha_first: Annotated[int, Ge(1), Help("epochs from the drop to asha's first rung"), RUNS] = 5
    concurrency: Annotated[
        int | None, Ge(1), Help("runs at a time; default: as many as the cluster holds"), RUNS, Decides.CALL
    ] = None
    max_hours: Annotated[
        float | None, Gt(0), Help("stop after so long; the same command goes on"), RUNS, Decides.CALL
    ] = None
    status: Status = False

    def __post_init__(self) -> None:
        """Raises ConfigError with all that is wrong in base and space, ValueError for what contradicts itself."""
        check_fresh(self)
        errors = [f"{name} cannot be in base: {why}" for name, why in NOT_OF_A_POINT.items() if name in self.base]
        errors += [f"{name} cannot be in space: {why}" for name, why in NOT_OF_A_POINT.items() if name in self.space]
        errors += [
            f"{name} cannot be in space: all runs of a sweep share their {what}"
            for name, what in NOT_OF_THE_SPACE.items()
            if name in self.space
        ]
        errors += [f"{name} is in base and in space: leave it in one" for name in self.base if name in self.space]
        errors += [
            f"{name} cannot be in space with one of your own: give {name} in base, and make a sweep for each"
            for name in ("arch", "method")
            if re.search(r"\w:\w", str(self.space.get(name, "")))
        ]
        if errors:
            raise ConfigError(errors)
        errors = list(dict.fromkeys(self._errors_of_points()))
        if errors:
            raise ConfigError(errors)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {' '.join(map(str, self.seeds))}")
        if (self.search == "grid") == (self.num_points is not None):
            rule = (
                "is for search random and tpe"
                if self.search == "grid"
                else f"is needed: search {self.search} has no end of its own"
            )
            raise ValueError(f"num_points {rule}")
        if self.search == "grid":
            grid(self.dimensions)
        endless = [d.name for d in self.dimensions if d.name in OF_SCORES and not d.values]
        if self.search == "tpe" and endless:  # runs are sent the subsets, which are made before any point is proposed
            raise ValueError(
                f"search tpe needs a list of values for {' and '.join(endless)}, such as {endless[0]}: [0.1, 0.2], for "
                "the scores of all runs are read before the first; or choose search random"
            )
        self._check_metric()
        if self.scheduler == "asha" and len(self.metric) > 1:
            raise ValueError(f"scheduler asha stops by one metric, got {' '.join(self.metric)}")
        if self.scheduler == "asha" and (varied := {"epochs", "recipe", "schedule"} & self.space.keys()):
            raise ValueError(f"scheduler asha compares runs at equal epochs: {' and '.join(varied)} cannot be in space")

    def _errors_of_points(self) -> Iterator[str]:
        """What is wrong with the values of each dimension, the others being at their first."""
        try:
            dimensions = read_space(self.space)
        except ValueError as error:
            yield from str(error).splitlines()
            return
        settings = declared(TrainSettings)
        for d in dimensions:
            if not d.values and d.name in settings and "number" not in settings[d.name].kinds:
                yield (
                    f"{d.name} in space must be {settings[d.name].rule}, and uniform and loguniform draw numbers with "
                    f"decimals: write a list of its values, {d.name}: [...] or {d.name}: {{choice: [...]}}"
                )
        first = {d.name: d.examples[0] for d in dimensions}
        for point in [first, *({**first, d.name: value} for d in dimensions for value in d.examples[1:])]:
            try:
                self.of_run(point, seed=0, out="x")
            except ConfigError as error:
                yield from (line.replace("(base)", "(base or space)") for line in error.errors)

    def _check_metric(self) -> None:
        first = self.example
        if first.val_steps == 0 and any("pgd" in name for name in self.metric):
            raise ValueError(f"metric {' '.join(self.metric)} needs val_steps of at least 1 in base, got 0")
        if not first.scores and any("typical" in name for name in self.metric):
            raise ValueError(f"metric {' '.join(self.metric)} needs scores in base")

    def of_run(self, point: Mapping[str, Any], *, seed: int, out: str) -> TrainSettings:
        """The settings of one run.  Raises ConfigError."""
        return from_dict(TrainSettings, {**self.base, **point, "seed": seed, "out": out}, "base")

    @cached_property
    def dimensions(self) -> list[Dimension]:
        """The space; each value is what `train` makes of it, so that `1e-3` is a number."""
        found = read_space(self.space)
        first = {d.name: d.examples[0] for d in found}

        def read(name: str, value: Any) -> Any:
            return getattr(self.of_run({**first, name: value}, seed=0, out="x"), name)

        return [dataclasses.replace(d, values=tuple(read(d.name, value) for value in d.values)) for d in found]

    @cached_property
    def example(self) -> TrainSettings:
        """The settings of one run, for what is the same in all."""
        return self.of_run({d.name: d.examples[0] for d in read_space(self.space)}, seed=self.seeds[0], out=self.out)

    @property
    def is_bat(self) -> bool:
        """Are alpha and beta those of BAT, so that both at 0 are PGD-AT?"""
        return self.base.get("method") == "bat"

    @cached_property
    def known_points(self) -> list[Point]:
        """Those that are known before any has run: PGD-AT, and all of a grid or of a random search."""
        points: list[Point] = []
        if self.search == "grid":
            points = grid(self.dimensions)
        elif self.search == "random":
            points = draws(self.dimensions, self.num_points or 0, seed=self.search_seed)
        return with_references(points, self.dimensions, self.base_values) if self.is_bat else without_repetition(points)

    @property
    def base_values(self) -> Point:
        """A value for each name of `train`: of the base, else the default; alpha and beta as BAT has them."""
        defaults = {f.name: f.default for f in dataclasses.fields(TrainSettings)}
        return {**defaults, "alpha": ALPHA, "beta": BETA, **self.base}


NOT_OF_A_POINT = {  # settings of `train` that the sweep has itself
    **{
        name: "give it to the sweep, not to its runs"
        for name in names_of(TrainSettings)
        if name in names_of(TuneSettings)
    },
    **{"out": "each run has its own folder below the sweep's --out", "status": "it is of the sweep"},
    "seed": "write seeds: [0, 1]",
    **dict.fromkeys(("watch", "watch_steps", "watch_every", "train_subset"), "it is for a single run, and for studies"),
}


def not_of_the_space(settings_class: type) -> dict[str, str]:
    """The settings of `train` that all runs of a sweep share, each with what it is part of."""
    how = dict.fromkeys(deciding(settings_class, Decides.WORKING, Decides.CALL), "way of working")
    data = dict.fromkeys(deciding(settings_class, Decides.DATA), "data")
    part_of = how | data | {name: mark.what for name, mark in marks(settings_class, SameInSweep).items()}
    return {name: what for name, what in part_of.items() if name not in NOT_OF_A_POINT}


NOT_OF_THE_SPACE = not_of_the_space(TrainSettings)


def find_config(argv: Sequence[str]) -> list[str]:
    """The words, but `tune_configs/X.yaml`, where there is no such file here, is the package's own."""
    package = Path(bat_dist.__file__).parent
    places = [package, package.parent]  # installed; in the repository

    def found(word: str) -> str:
        option, equals, _ = word.partition("=")
        before = option + equals if option == "--config" else ""
        file = word.removeprefix(before)
        if not file.startswith(f"{CONFIGS}/") or Path(file).exists():
            return word
        return before + next((str(place / file) for place in places if (place / file).is_file()), file)

    return [found(word) for word in argv]


def scores_beside(settings: TuneSettings, sources: Mapping[str, str]) -> TuneSettings:
    """The settings, but scores that are not here, and lie beside the file that names them, are those."""
    scores = settings.base.get("scores")
    if not isinstance(scores, str) or (found := beside(scores, sources.get("base", ""))) == scores:
        return settings
    return dataclasses.replace(settings, base={**settings.base, "scores": found})
