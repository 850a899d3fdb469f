"""Settings of `bat-dist study`.  Imports neither torch nor ray, so that `--help` answers at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt

from bat_dist.config import Group, Help, from_dict
from bat_dist.settings import small
from bat_dist.settings.decides import Decides, names_of
from bat_dist.settings.fields import (
    DATA,
    Arch,
    CpusPerWorker,
    DatasetName,
    GpusOfRun,
    RunsAtATime,
    ScoreFile,
    Seeds,
    Status,
)
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.sections import DataSettings, RaySettings, check_fresh
from bat_dist.settings.small import SCORES
from bat_dist.settings.study_run import LEAST, RANDOM, WHOLE, WITHOUT_ATYPICAL, StudyRun, share_name
from bat_dist.settings.train import TrainSettings

STUDIES = {
    "atypical": "accuracy on atypical samples of both splits along the epochs (Sec. 3.1, Fig. 1, 8-13)",
    "typical": "what atypical training samples do to typical test samples (Sec. 3.2, Fig. 2, 14-19)",
    "separation": "how far apart the classes are in the penultimate layer (App. B.2 iii)",
    "poisoning": "atypical samples that look like another class, and what people say of them (Fig. 3, App. B.3)",
    "alignment": "how well cheaper scores replace memorization, and BAT with each (App. A.1)",
    "gallery": "the most and least memorized samples, and pairs of large influence (Fig. 5, 7)",
    "histogram": "how memorization is distributed (Fig. 6)",
    "theory": "Theorems 1 and 2 on a grid (Sec. 3.2, App. C)",
    "efficiency": "how many trials each estimator of memorization needs, and when a run may stop, from its trials",
}
StudyName = Literal[
    "atypical", "typical", "separation", "poisoning", "alignment", "gallery", "histogram", "theory", "efficiency"
]
STUDY, RUNS = Group("study"), Group("runs")
OF_TRAINING = ("method", "scores", "score", "alpha", "beta", "seed", "watch", "watch_steps", "train_subset", "out")
SUBSETS = "subsets"  # folder of the files that say what is trained on
OUTPUTS = "outputs.npz"  # of a run: what its last network says of samples
FINDINGS = "findings.json"  # of a study
RESULTS = "studies"  # folder of what the studies find, one below for each
ALL_SCORES = ("mem", "disagreement", "confidence")  # that BAT is trained with


@dataclass(frozen=True, kw_only=True)
class StudySettings(RaySettings, DataSettings):
    """`bat-dist study`.  Defaults: Sec. 3 and App. B of the paper, where they say; the rest is ours."""

    study: Annotated[
        tuple[StudyName, ...],
        Len(1),
        Help(f"which: {', '.join(STUDIES)}; the first words need no --study", "NAME"),
        STUDY,
    ]
    scale: Annotated[
        Literal["full", "small"],
        Help("full: CIFAR-100, WRN-28-10 and 200 epochs (Sec. 3); small: minutes on two cores, digits and tinynet"),
        STUDY,
    ] = "full"
    dataset: Annotated[DatasetName | None, Help("instead of the scale's", "NAME"), DATA] = None  # pyright: ignore
    scores: Annotated[
        ScoreFile | None,
        Help(
            "memorization.npz of these data, with typicality.npz beside it, or their folder; default: trials",
            "FILE",
        ),
        STUDY,
    ] = None
    seeds: Annotated[Seeds, Help("of every training; more can be added later"), STUDY] = (0, 1, 2)
    shares: Annotated[
        tuple[Annotated[float, Ge(0), Le(100)], ...],
        Len(2),
        Help("typical: percent of the atypical samples that are trained on", "PERCENT"),
        STUDY,
    ] = (0.0, 20.0, 100.0)
    controls: Annotated[
        bool, Help("typical: also leave out as many samples at random, and as many of the most typical"), STUDY
    ] = True
    watch_steps: Annotated[int, Ge(1), Help("PGD steps of the accuracies along the epochs"), STUDY] = 20
    watch_every: Annotated[int, Ge(1), Help("epochs between two of them"), STUDY] = 1
    most: Annotated[
        int,
        Ge(2),
        Help("poisoning: samples with the highest and with the lowest score; fewer if there are not so many"),
        STUDY,
    ] = 200
    labels: Annotated[
        str | None,
        Help(
            "poisoning: labels that people gave: a .csv of rows index,label (several for an index; a class by name or "
            "number), or a .npz of integer arrays [samples] or [samples, labels] (as CIFAR-10N) in the order of the "
            "whole training set; it must agree with most of the given labels",
            "FILE",
        ),
        STUDY,
        Decides.CONTENT,
    ] = None
    answers: Annotated[
        tuple[str, ...],
        Help("poisoning: what people answered on annotate.html: the files answers-NAME.json that it saved", "FILE"),
        STUDY,
        Decides.CONTENT,
    ] = ()
    ratios: Annotated[
        tuple[Annotated[float, Gt(2.33), Lt(1e4)], ...], Len(1), Help("theory: eta / sigma", "RATIO"), STUDY
    ] = (2.5, 3.0, 3.5, 4.0, 5.0, 7.0, 10.0, 20.0)
    reference: Annotated[
        str | None,
        Help("efficiency: a folder of other trials of these settings, which judge; else half of --scores do", "DIR"),
        STUDY,
        Decides.CONTENT,
    ] = None
    balanced: Annotated[
        str | None,
        Help("efficiency: a folder of trials of these settings with --mask_plan balanced, to compare", "DIR"),
        STUDY,
        Decides.CONTENT,
    ] = None
    repetitions: Annotated[int, Ge(2), Help("efficiency: times that trials are drawn from the store"), STUDY] = 20
    factors: Annotated[
        tuple[Annotated[float, Gt(1), Lt(1e4)], ...], Len(1), Help("theory: k of Theorem 2", "K"), STUDY
    ] = (1.2, 1.5, 2.0)

    arch: Annotated[Arch | None, Help("instead of the scale's", "NAME"), RUNS] = None
    memorize: Annotated[dict[str, Any], Help("settings of bat-dist memorize: num_trials=100 epochs=8"), RUNS] = field(
        default_factory=dict
    )
    train: Annotated[dict[str, Any], Help("settings of bat-dist train: epochs=30 num_steps=5"), RUNS] = field(
        default_factory=dict
    )

    cpus_per_worker: CpusPerWorker = 1
    gpus_per_worker: GpusOfRun = None
    num_workers: RunsAtATime = None

    redraw: Annotated[
        bool, Help("draw the figures again from the studies' data, and run nothing"), STUDY, Decides.CALL
    ] = False
    status: Status = False

    def __post_init__(self) -> None:
        """Every setting of every run is checked here, before anything is begun."""
        check_fresh(self)
        for name in ("study", "seeds", "shares"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ, got {' '.join(map(str, values))}")
        for name, given in (("memorize", self.memorize), ("train", self.train)):
            for key in given:
                if key in _GIVEN or (key == "arch" and name == "train"):
                    raise ValueError(f"{name} {key}: it is given to the studies, not to their parts")
        if self.needs_scores and not self.scores:
            _ = self.memorize_settings
        for run in self.runs():
            _ = self.training(run)

    @property
    def data_name(self) -> str:
        """The dataset."""
        return self.dataset or (small.DATASET if self.scale == "small" else "cifar100")

    @property
    def network(self) -> str:
        """The architecture of all trainings."""
        return self.arch or (small.NETWORK if self.scale == "small" else "wrn28-10")

    @property
    def data(self) -> Mapping[str, Any]:
        """The keyword arguments of `load_dataset`."""
        return {name: value for name, value in self._data.items() if name not in ("dataset", "loader")}

    @property
    def needs_scores(self) -> bool:
        """Is there a study of data, not of theory alone?"""
        return set(self.study) != {"theory"}

    @property
    def needs_data(self) -> bool:
        """Does a study look at samples?  Theory does not, and `efficiency` reads trials that are there alone."""
        return not {*self.study} <= ({"theory", "efficiency"} if self.scores else {"theory"})

    @property
    def needs_sets(self) -> bool:
        """Is there a study of typical and atypical sets, not of scores or theory alone?"""
        return not {*self.study} <= {"gallery", "histogram", "theory", "efficiency"}

    @property
    def needs_workers(self) -> bool:
        """Is there anything to be trained?  Figures of given scores need nothing."""
        return self.needs_scores and not (self.scores and not self.runs())

    @property
    def score_place(self) -> str:
        """The folder of memorization.npz, typicality.npz and ensemble_scores.npz: that of `scores`, else their own."""
        if not self.scores:
            return self.place(SCORES)
        head, slash, _ = self.scores.rpartition("/")
        return head + slash or "."

    def runs(self) -> list[StudyRun]:
        """All trainings that the studies need, each once; seed by seed, so that all is there early."""
        return list(
            dict.fromkeys(run for seed in self.seeds for name in self.study for run in self.runs_of(name, seed))
        )

    def runs_of(self, study: StudyName, seed: int) -> Iterator[StudyRun]:
        """The trainings of a study with one seed."""
        if study == "atypical":
            yield from (StudyRun(method, WHOLE, seed) for method in ("pgd_at", "erm"))
        if study in ("typical", "separation"):
            controls = (RANDOM, LEAST) if self.controls else ()
            subsets = [*map(share_name, self.shares), *controls]
            yield from (StudyRun(method, subset, seed) for subset in subsets for method in ("pgd_at", "erm"))
        if study == "poisoning":
            yield StudyRun("pgd_at", WITHOUT_ATYPICAL, seed)
        if study == "alignment":
            yield from (StudyRun("bat", WHOLE, seed, score) for score in ALL_SCORES)

    @property
    def memorize_settings(self) -> MemorizeSettings:
        """The settings of the leave-out trials.  Raises ConfigError for what is no setting of bat-dist memorize."""
        return self._memorize({"score": "leave_out"})

    @property
    def ensemble_settings(self) -> MemorizeSettings:
        """The settings of the ensemble that gives the cheaper scores."""
        return self._memorize({"score": "disagreement"})

    def training(self, run: StudyRun) -> TrainSettings:
        """The settings of one training.  Raises ConfigError for what is no setting of bat-dist train."""
        own = {"cpus_per_worker": self.cpus_per_worker, "gpus_per_worker": self.gpus_per_worker}
        given = {
            **{
                **self._data,
                **own,
                **(small.TRAIN_OF_STUDIES if self.scale == "small" else {"recipe": "study"}),
                **self.train,
            },
            **{"method": run.method, "seed": run.seed, "arch": self.network, "out": self.place(run.place)},
            **{"watch": self._score_file("typicality.npz"), "watch_steps": self.watch_steps},
            "watch_every": self.watch_every,
        }
        if run.subset != WHOLE:
            given["train_subset"] = self.place(f"{SUBSETS}/{run.subset}_seed{run.seed}.npz")
        if run.score:
            file = "memorization.npz" if run.score == "mem" else "ensemble_scores.npz"
            given |= {"scores": self._score_file(file), **({} if run.score == "mem" else {"score": run.score})}
        return from_dict(TrainSettings, given, "train")

    def place(self, name: str) -> str:
        """A folder or file of the studies."""
        return f"{self.out.rstrip('/')}/{name}"

    def _memorize(self, given: Mapping[str, Any]) -> MemorizeSettings:
        own = {"cpus_per_trial": self.cpus_per_worker, "gpus_per_trial": self.gpus_per_worker}
        arch = {"arch": self.network} if self.scale == "small" else {}
        preset = small.MEMORIZE if self.scale == "small" else {}
        asked = {**arch, **own, "num_workers": self.num_workers, **preset, **self.memorize, **given}
        return from_dict(MemorizeSettings, {**self._data, **asked, "out": self.score_place}, "memorize")

    def _score_file(self, name: str) -> str:
        return f"{self.score_place.rstrip('/')}/{name}"

    @property
    def _data(self) -> dict[str, Any]:
        names = set(names_of(DataSettings)) - {"out"}
        given = {name: getattr(self, name) for name in names} | {"dataset": self.data_name}
        if self.scale == "small" and self.num_train is None:
            given["num_train"] = small.num_train(self.data_name)
        return given


_PARTS = {*names_of(MemorizeSettings), *names_of(TrainSettings)}
_GIVEN = (
    (_PARTS & {*names_of(StudySettings)}).difference(("arch",)).union(OF_TRAINING, ("num_workers", "track", "merge"))
)
