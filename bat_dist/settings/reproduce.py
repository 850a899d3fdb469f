"""Settings of `bat-dist reproduce`.  Imports neither torch nor ray, so that `--help` answers at once."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Len
from pydantic import AfterValidator

from bat_dist.config import Group, Help, from_dict
from bat_dist.evaluation.names import check_attacks
from bat_dist.methods.table import check_method
from bat_dist.parts import Own
from bat_dist.settings import small
from bat_dist.settings.decides import Decides, names_of
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.fields import (
    DATA,
    OWN,
    CpusPerWorker,
    DataDir,
    Download,
    GpusOfRun,
    ImageSize,
    ImageStorage,
    NumTest,
    RunsAtATime,
    ScoreFile,
    Seeds,
    Status,
    TestShare,
)
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.sections import RaySettings, check_fresh
from bat_dist.settings.small import SCORES
from bat_dist.settings.study import StudySettings
from bat_dist.settings.study_names import StudyName
from bat_dist.settings.train import TrainSettings
from bat_dist.storage.places import Place

PAPER_ROWS = ("pgd_at", "trades", "mart", "gairat", "bat_alpha1_beta0.2", "bat_alpha2_beta0.2")
# Folders of an experiment, beside that of its scores.
RUNS, EVALUATIONS, REPORT, STUDIES = "runs", "evaluations", "report", "study"
TABLES = {  # of the paper: which data and architecture each is about; 1 and 4, and 2 and 6, are the same
    1: ("cifar100", "wrn28-10"),
    2: ("tiny_imagenet", "wrn28-10"),
    3: ("cifar100", "resnet18"),
    4: ("cifar100", "wrn28-10"),
    5: ("tiny_imagenet", "resnet32"),
    6: ("tiny_imagenet", "wrn28-10"),
}
RUN = Group("what is run")
_BAT = re.compile(r"bat_alpha(\d+(?:\.\d+)?)_beta(\d+(?:\.\d+)?)")
OF_A_ROW = ("method", "alpha", "beta", "seed")  # settings of `train` that a row and its seed give
_OF_A_STUDY = ("watch", "watch_steps", "watch_every", "train_subset")
_OF_THE_TEST_SET = ("checkpoint", "split", "first")  # settings of `evaluate` that are the same in all tables
# What the experiment has too, but a part may have for itself: other seeds, those of attacks, and other workers.
_OF_PARTS = ("arch", "seeds", "cpus_per_worker", "gpus_per_worker", "num_workers")
_SMALL = {"memorize": small.MEMORIZE, "train": small.TRAIN, "evaluate": small.EVALUATE}
ATTACKS = {  # of a scale
    "full": ("clean", "fgsm", "pgd100", "cw", "autoattack"),
    "small": ("clean", "fgsm", "pgd20", "cw20", "autoattack_fast"),
}


def check_row(name: str) -> str:
    """The name of a row, if it is one: a method, or bat_alphaX_betaY."""
    return name if _BAT.fullmatch(name) else check_method(name)


class TableRun(NamedTuple):
    """A row of the table, trained with one seed."""

    row: str
    seed: int

    @property
    def training(self) -> str:
        """Its folder within the experiment's."""
        return f"{RUNS}/{self.row}/seed{self.seed}"

    def evaluation(self, which: str) -> str:
        """The folder of its evaluation."""
        return f"{EVALUATIONS}/{self.row}/seed{self.seed}/{which}"


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings(RaySettings):
    """`bat-dist reproduce`."""

    table: Annotated[Literal[1, 2, 3, 4, 5, 6], Help("of the paper; 1 and 4, 2 and 6 are the same runs", "N")]
    out: Annotated[Place, Help("the experiment's folder, or a URI; what it holds is resumed", "DIR"), Decides.CALL]
    scale: Annotated[
        Literal["full", "small"],
        Help("the paper's setting; or minutes on two cores: digits and tinynet, unless said otherwise"),
    ] = "full"

    dataset: Annotated[str | None, Help("instead of the table's", "NAME"), DATA] = None
    data_dir: DataDir = None
    download: Download = False
    num_train: Annotated[int | None, Ge(1), Help("the first N/classes of each class"), DATA] = None
    num_test: NumTest = None
    image_size: ImageSize = None
    test_share: TestShare = None
    image_storage: ImageStorage = "auto"

    arch: Annotated[Annotated[str, OWN] | None, Help("instead of the table's", "NAME"), RUN] = None
    methods: Annotated[
        tuple[Annotated[str, AfterValidator(check_row)], ...],
        Len(1),
        Help("rows of the table: methods, or bat_alphaX_betaY", "NAME"),
        RUN,
    ] = PAPER_ROWS
    seeds: Annotated[Seeds, Help("of every row; more can be added later"), RUN] = (0, 1, 2)
    which: Annotated[tuple[Literal["best", "last"], ...], Len(1), Help("checkpoints that are evaluated"), RUN] = (
        "best",
    )
    attacks: Annotated[
        Annotated[tuple[str, ...], AfterValidator(check_attacks)] | None,
        Help("default: clean fgsm pgd100 cw autoattack; small: steps of 20 and autoattack_fast", "NAME"),
        RUN,
    ] = None
    scores: Annotated[
        ScoreFile | None,
        Help(
            "memorization.npz of these data, or its folder, or another score file, instead of leave-out trials",
            "FILE",
        ),
        RUN,
    ] = None
    studies: Annotated[
        tuple[StudyName, ...], Help("also these studies of bat-dist study, on the same data and scores", "NAME"), RUN
    ] = ()
    memorize: Annotated[dict[str, Any], Help("settings of bat-dist memorize: num_trials=100 epochs=8"), RUN] = field(
        default_factory=dict
    )
    train: Annotated[dict[str, Any], Help("settings of bat-dist train: epochs=30 lr=0.05"), RUN] = field(
        default_factory=dict
    )
    evaluate: Annotated[dict[str, Any], Help("settings of bat-dist evaluate: batch_size=128"), RUN] = field(
        default_factory=dict
    )

    cpus_per_worker: CpusPerWorker = 1
    gpus_per_worker: GpusOfRun = None
    num_workers: RunsAtATime = None

    status: Status = False

    def __post_init__(self) -> None:
        """Every setting of every run is checked here, before anything is begun."""
        check_fresh(self)
        for name in ("seeds", "methods", "which"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ, got {' '.join(map(str, values))}")
        for name in ("memorize", "train", "evaluate"):
            for key in getattr(self, name):
                if key in _GIVEN or (key == "arch" and name != "memorize"):
                    raise ValueError(f"{name} {key}: it is given to the experiment, not to its parts")
        if self.needs_scores and not self.scores:
            _ = self.memorize_settings
        _ = self.study_settings
        for run in self.runs():
            _ = self.training(run)
            _ = self.evaluation(run, self.which[0])

    @cached_property
    def all_attacks(self) -> tuple[str, ...]:
        """The attacks that were asked for, else those of the scale."""
        return self.attacks or ATTACKS[self.scale]

    @property
    def data_name(self) -> str:
        """The dataset."""
        return self.dataset or (small.DATASET if self.scale == "small" else TABLES[self.table][0])

    @property
    def network(self) -> str:
        """The architecture of all rows."""
        return self.arch or (small.NETWORK if self.scale == "small" else TABLES[self.table][1])

    @property
    def data(self) -> Mapping[str, Any]:
        """The keyword arguments of `load_dataset`."""
        return {name: value for name, value in self._data.items() if name != "dataset"}

    @property
    def needs_scores(self) -> bool:
        """Is there a row of BAT?"""
        return any(row.startswith("bat") for row in self.methods)

    @property
    def score_file(self) -> str:
        """The scores that were given, else the experiment's own."""
        return self.scores or self._place(f"{SCORES}/memorization.npz")

    def runs(self) -> Iterator[TableRun]:
        """All rows with the first seed, then with the next: a table of one seed is there early."""
        return (TableRun(row, seed) for seed in self.seeds for row in self.methods)

    @property
    def study_settings(self) -> StudySettings | None:
        """The settings of the studies, in a folder below the experiment's, if any are asked for.

        Raises ConfigError for what is no setting of bat-dist study.
        """
        if not self.studies:
            return None
        names = (
            "seeds",
            "cpus_per_worker",
            "gpus_per_worker",
            "num_workers",
            "ray_address",
            "min_nodes",
            "wait_minutes",
        )
        scores = {"scores": self.score_file} if self.scores or self.needs_scores else {}
        parts = {"arch": self.network, "memorize": self.memorize, "train": self.train, "scale": self.scale}
        own = {**self._data, **{name: getattr(self, name) for name in names}, **parts, **scores}
        return from_dict(StudySettings, {**own, "study": self.studies, "out": self._place(STUDIES)}, "studies")

    @property
    def memorize_settings(self) -> MemorizeSettings:
        """The settings of the leave-out trials.  Raises ConfigError for what is no setting of bat-dist memorize."""
        own = {"cpus_per_trial": self.cpus_per_worker, "gpus_per_trial": self.gpus_per_worker}
        arch = {"arch": self.network} if self.scale == "small" else {}
        given = {**arch, **own, "num_workers": self.num_workers, **self._preset("memorize"), **self.memorize}
        return from_dict(MemorizeSettings, {**self._data, **given, "out": self._place(SCORES)}, "memorize")

    def training(self, run: TableRun) -> TrainSettings:
        """The settings of one training.  Raises ConfigError for what is no setting of bat-dist train."""
        own = {"cpus_per_worker": self.cpus_per_worker, "gpus_per_worker": self.gpus_per_worker}
        given = {**own, **self._preset("train"), **self.train, **self._method(run.row), "arch": self.network}
        return from_dict(
            TrainSettings, {**self._data, **given, "seed": run.seed, "out": self._place(run.training)}, "train"
        )

    def evaluation(self, run: TableRun, which: str) -> EvaluateSettings:
        """The settings of one evaluation.  Raises ConfigError for what is no setting of bat-dist evaluate."""
        own = {"cpus_per_worker": self.cpus_per_worker, "gpus_per_worker": self.gpus_per_worker}
        given: dict[str, Any] = {"which": which, "attacks": list(self.all_attacks)}
        given |= {"checkpoint": self._place(run.training)}
        if isinstance(self.network, Own):  # which workers cannot import
            given["model"] = self.network
        epsilon = {"epsilon": self.train["epsilon"]} if "epsilon" in self.train else {}
        loader = {"loader": self.train["loader"]} if "loader" in self.train else {}
        return from_dict(
            EvaluateSettings,
            {
                **{**self._data, **own, **epsilon, **loader, **self._preset("evaluate"), **self.evaluate, **given},
                "out": self._place(run.evaluation(which)),
            },
            "evaluate",
        )

    @property
    def _data(self) -> dict[str, Any]:
        names = ("data_dir", "download", "num_train", "num_test", "image_size", "test_share", "image_storage")
        given = {name: getattr(self, name) for name in names}
        if self.scale == "small" and self.num_train is None:
            given["num_train"] = small.num_train(self.data_name)
        return {"dataset": self.data_name, **given}

    def _preset(self, name: str) -> Mapping[str, Any]:
        return _SMALL[name] if self.scale == "small" else {}

    def _method(self, row: str) -> dict[str, Any]:
        """What a row's name says of its training; beta of MART: 6 for wide networks, 5 for others (Sec. 5)."""
        if row == "mart" and str(self.network).startswith("wrn"):
            return {"method": row, "beta": 6.0}
        if not row.startswith("bat"):
            return {"method": row}
        found = _BAT.fullmatch(row)
        values = {"alpha": float(found[1]), "beta": float(found[2])} if found else {}
        return {"method": "bat", "scores": self.score_file, **values}

    def _place(self, name: str) -> str:
        return f"{self.out.rstrip('/')}/{name}"


_PARTS = {*names_of(MemorizeSettings), *names_of(TrainSettings), *names_of(EvaluateSettings)}
_GIVEN = (
    (_PARTS & {*names_of(ReproduceSettings)})
    .difference(_OF_PARTS)
    .union(OF_A_ROW, _OF_A_STUDY, _OF_THE_TEST_SET, ("merge",))
)
