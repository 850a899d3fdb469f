"""Settings of `bat-dist plan --table N` and `--study NAME`: a program's own, and what a plan asks beyond them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le

from bat_dist.config import Help
from bat_dist.errors import ConfigError
from bat_dist.settings.decides import Decides, names_of
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.plan import (
    EVALUATIONS,
    WORKERS,
    Currency,
    Gain,
    GivenSpeed,
    PlanSettings,
    Price,
    SavedSpeed,
    Seconds,
)
from bat_dist.settings.reproduce import ReproduceSettings, TableRun
from bat_dist.settings.study import StudySettings
from bat_dist.settings.train import TrainSettings


@dataclass(frozen=True, kw_only=True)
class PlanTerms:
    """What a plan asks beyond the options of the program that it is of."""

    workers: Annotated[int | None, Ge(1), Help("runs at a time"), WORKERS] = None
    sharing_gain: Gain = None
    price: Price = None
    currency: Currency = "USD"
    seconds: Seconds = 20.0
    save_speed: SavedSpeed = None
    speed: GivenSpeed = None


_TERMS = tuple(name for name in names_of(PlanTerms) if name != "workers")
_PLACE = ("cpus_per_worker", "gpus_per_worker")


@dataclass(frozen=True, kw_only=True)
class TablePlanSettings(PlanTerms, ReproduceSettings):
    """`bat-dist plan --table N ...`: the options of `bat-dist reproduce`, and what a plan asks beyond them."""

    out: Annotated[str, Help("as for reproduce; nothing is written there", "DIR"), Decides.CALL] = "."
    robust_share: Annotated[float, Ge(0), Le(1), Help("as below"), EVALUATIONS] = 0.5

    @property
    def plan(self) -> PlanSettings:
        """The table's runs as a plan's settings.  What is there already is counted too."""
        run = TableRun(self.methods[0], 0)
        train, evaluate = self.training(run), self.evaluation(run, "best")
        memorize = self.memorize_settings if self.needs_scores and not self.scores else None
        own = ("data_dir", "num_test", "image_size", "test_share", "robust_share", *_PLACE)
        return PlanSettings(
            dataset=self.data_name,
            arch=self.network,
            num_train=self.data["num_train"],
            workers=self.workers or self.num_workers,
            **{name: getattr(self, name) for name in (*own, *_TERMS)},
            **_trials(memorize),
            **_crops(train, memorize),
            methods=tuple(row.partition("_alpha")[0] for row in self.methods),
            num_seeds=len(self.seeds),
            recipe=train.recipe,
            epochs=train.epochs,
            batch_size=train.batch_size,
            num_steps=train.num_steps,
            num_val=train.num_val,
            precision=train.precision,
            val_steps=train.val_steps,
            num_checkpoints=len(self.which),
            attacks=self.all_attacks,
            attack_seeds=len(evaluate.seeds),
            restarts=evaluate.restarts,
            check_images=evaluate.check_images,
            attack_batch_size=evaluate.batch_size,
        )

    @property
    def not_counted(self) -> list[str]:
        """What takes time and is not in the plan, in words."""
        names = " ".join(self.studies)
        studies = [f"the studies: bat-dist plan --study {names} plans them"] * bool(names)
        return studies + _of_trainings(self.training(TableRun(self.methods[0], 0)))


def _trials(memorize: MemorizeSettings | None) -> Mapping[str, Any]:
    """What a plan is told of leave-out trials."""
    if memorize is None:
        return {"num_trials": 0}
    return {
        "num_trials": memorize.most_trials,
        "subset_ratio": memorize.subset_ratio,
        "trial_recipe": memorize.recipe,
        "trial_epochs": memorize.epochs,
        "trial_batch_size": memorize.batch_size,
        "trial_arch": memorize.arch,
        "trial_precision": memorize.precision,
    }


def _of_trainings(train: TrainSettings) -> list[str]:
    """What of trainings is not in the plan."""
    again = "a training step's second pass forward and backward with awp, after its attack"
    share = f"how much slower {train.num_workers} workers are that share a training: it counts as one worker's"
    return [again] * (train.awp is not None) + [share] * (train.num_workers > 1)


def _crops(*parts: TrainSettings | MemorizeSettings | None) -> Mapping[str, Any]:
    """What a plan is told of random-resized crops: those of the first part that has them."""
    found = next((part for part in parts if part and part.crop_scale), None)
    return {"crop_scale": found.crop_scale, "crop_size": found.crop_size} if found else {}


@dataclass(frozen=True, kw_only=True)
class StudyPlanSettings(PlanTerms, StudySettings):
    """`bat-dist plan --study NAME ...`: the options of `bat-dist study`, and what a plan asks beyond them."""

    out: Annotated[str, Help("as for study; nothing is written there", "DIR"), Decides.CALL] = "."

    @property
    def plan(self) -> PlanSettings:
        """The studies' runs as a plan's settings.

        Trainings on a part of the samples count as on all, and a look at watched sets as an evaluation of the test set.
        """
        runs = self.runs()
        if not runs and (not self.needs_scores or self.scores):
            raise ConfigError([f"{' and '.join(self.study)}: neither trials nor trainings, nothing to plan"])
        train = self.training(runs[0]) if runs else None
        own = ("data_dir", "num_test", "num_classes", "image_size", "test_share", *_PLACE)
        trainings: dict[str, Any] = {"num_seeds": 0}
        if train:
            trainings = {
                "methods": tuple(run.method for run in runs if run.seed == self.seeds[0]),
                "num_seeds": len(self.seeds),
                "recipe": train.recipe,
                "epochs": train.epochs,
                "batch_size": train.batch_size,
                "num_steps": train.num_steps,
                "num_val": train.num_val,
                "val_steps": train.val_steps,
                "num_checkpoints": math.ceil(train.training.epochs / self.watch_every) + 1,
                "attacks": ("clean", f"pgd{self.watch_steps}"),
                "check_images": 0,
                "precision": train.precision,
            }
        memorize = self.memorize_settings if self.needs_scores and not self.scores else None
        return PlanSettings(
            dataset=self.data_name,
            arch=self.network,
            num_train=self.data["num_train"],
            workers=self.workers or self.num_workers,
            **{name: getattr(self, name) for name in (*own, *_TERMS)},
            **_trials(memorize),
            ensemble_members=self.ensemble_settings.num_members if memorize and self.needs_ensemble else 0,
            **trainings,
            **_crops(train, memorize),
        )

    @property
    def not_counted(self) -> list[str]:
        """What takes time and is not in the plan, in words."""
        found = _of_trainings(self.training(self.runs()[0])) if self.runs() else []
        if self.needs_ensemble and self.scores:
            found.append("an ensemble, which is trained where there is none beside --scores yet")
        if self.needs_ensemble and not self.scores:
            found.append("other architectures of the ensemble's members, which count as trials on all samples")
            if "self_influence" in self.cheaper:
                found.append("the gradients of self_influence")
        return found
