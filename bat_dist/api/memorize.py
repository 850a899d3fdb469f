"""Leave-out trials from settings to scores: what `bat-dist memorize` and `bat_dist.memorize` do."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bat_dist.api.calls import public, settings_of
from bat_dist.api.parts import ANY_NAME, arch_of, data_of, name_of
from bat_dist.api.scores import Scores, load_scores
from bat_dist.data.table import augmentation_of
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.wording import counted
from bat_dist.workers.private_ray import prepare_environment

if TYPE_CHECKING:
    from bat_dist.data.datasets import Dataset
    from bat_dist.jobs.fill_rows import Filled

log = logging.getLogger(__name__)

Auto = Literal["auto"]


class ScoredRun(NamedTuple):
    """What came of a run.  text: for the terminal. filled: what was computed of `what`, trials or members; None for
    scores that were imported.
    """

    text: str
    filled: "Filled | None"
    what: str


def carry_out(settings: MemorizeSettings, dataset: "Dataset") -> ScoredRun:
    """Do what the result folder lacks, and write scores, figures and the page.  Raises UserError and RunError."""
    from bat_dist.config import to_dict
    from bat_dist.jobs.memorize import as_carried_out
    from bat_dist.jobs.merge import merge_folders
    from bat_dist.jobs.scores import ensemble_scores, imported_scores, leave_out_scores
    from bat_dist.reporting.memorization import report_ensemble, report_leave_out
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver

    folder = Folder(settings.out)
    dataset = dataset.augmented(**augmentation_of(settings))
    with only_driver(folder):
        if settings.merge:
            settings = merge_folders(folder, dataset, settings, settings.merge)
        if settings.score != "leave_out":
            ensemble, filled = ensemble_scores(folder, dataset, settings)
            asked = to_dict(as_carried_out(folder, dataset, settings))
            return ScoredRun(report_ensemble(folder, dataset, asked, ensemble), filled, "members")
        if settings.import_scores:
            scores = imported_scores(folder, dataset, settings, settings.import_scores)
            return ScoredRun(report_leave_out(folder, dataset, to_dict(settings), scores), None, "trials")
        scores, filled = leave_out_scores(folder, dataset, settings)
        asked = to_dict(as_carried_out(folder, dataset, settings))
        return ScoredRun(report_leave_out(folder, dataset, asked, scores, failed=filled.failed), filled, "trials")


@public
def memorize(
    model: Any, train: Any, test: Any = None, *, out: str | Path, num_trials: int | Auto = 1000, **settings: Any
) -> Scores:
    """How much is each training sample memorized, and which training sample decides which test sample?

    Trains `num_trials` networks, each on a random part of the training set, on Ray: on the cluster that this machine
    is part of, else on all of its cores.  What is finished is kept in the folder `out`: the same call goes on from
    there, and returns at once if all is done.

    Args:
        model: a class or a function that makes a network (called with `num_classes` if it takes that); a network, whose
            architecture is taken and whose weights are drawn anew for each trial, by the `reset_parameters` of its
            layers; or a name, such as "resnet18", "timm:resnet50" or "auto".  Networks get images
            [batch, 3, height, width], normalized with the mean and std of the data, and give logits [batch, classes].
        train: a map-style data set of (image, label), as torch.utils.data.Dataset and torchvision have them; a pair
            of arrays, images (uint8 [n, height, width, 3] or floats in [0, 1], [n, 3, height, width]) and labels [n];
            a `Dataset`; or a dataset's name, such as "digits".
        test: the same for the test samples; None for a dataset that has both splits.  Without one a fifth of each class
            is held out of `train`: the scores are then of the others, whose positions in `train` are their `ids`.
        out: the result folder, or a URI such as s3://bucket/run.
        num_trials: from 30 on standard errors mean something; the paper takes 1000.  "auto": as many as are enough.
        **settings: all options of `bat-dist memorize`, by name, such as epochs=20, recipe="fast", subset_ratio=0.5,
            num_workers=4, ray_address="local", or stop_when="width" for num_trials="auto".

    Returns:
        The scores of all trials that are complete; a line of the log says how many failed.

    Raises:
        UserError: for settings that do not exist or do not fit (all at once, as ConfigError), for data that cannot be
            taken, and for a folder that holds results of other data or settings.
        RunError: if no trial is complete.

    Example:
        >>> scores = memorize("auto", "digits", num_trials=12, out="scores")  # doctest: +SKIP
        >>> scores.top(10)  # doctest: +SKIP
    """
    asked = settings_of(
        MemorizeSettings,
        {**settings, "out": out, "num_trials": num_trials, "arch": arch_of(model)},
        call="memorize",
        stand_in={"dataset": train if isinstance(train, str) else ANY_NAME},
    )
    prepare_environment(asked.ray_address)
    dataset = data_of(train, test, asked)
    asked = dataclasses.replace(asked, dataset=name_of(train))
    made = carry_out(asked, dataset)
    if made.filled and made.filled.failed:
        number, first = len(made.filled.failed), min(made.filled.failed)
        log.warning(
            "%s failed, %d with %s; the same call runs them again",
            counted(number, made.what.removesuffix("s")),
            first,
            made.filled.failed[first],
        )
    return load_scores(asked.out, data=dataset, score=None if asked.score == "leave_out" else asked.score)
