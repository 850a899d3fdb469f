"""A training from settings to a network: what `bat-dist train` and `bat_dist.train` do."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bat_dist.api.calls import public, settings_of
from bat_dist.api.parts import ANY_NAME, arch_of, chooses_samples, data_of, name_of
from bat_dist.methods.table import Method
from bat_dist.settings.train import TrainSettings
from bat_dist.workers.private_ray import prepare_environment

if TYPE_CHECKING:
    from torch import nn

    from bat_dist.api.scores import Scores
    from bat_dist.data.datasets import Dataset

__all__ = ["Method", "carry_out", "train"]


class TrainedRun(NamedTuple):
    """What came of a run.  text: for the terminal. summary: what `run.json` says."""

    text: str
    summary: Any


def carry_out(settings: TrainSettings, dataset: "Dataset") -> TrainedRun:
    """Train, or go on, or find that it is done; show progress on stderr, and write the run's files.

    Raises UserError and RunError.
    """
    from bat_dist.jobs import train as job
    from bat_dist.jobs.training_plan import make_plan
    from bat_dist.reporting.training import report_training
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver
    from bat_dist.training.files import read_history

    plan = make_plan(dataset, settings)
    folder = Folder(settings.out)
    with only_driver(folder):
        summary = job.carry_out(plan, is_shown=True)
        return TrainedRun(report_training(folder, summary, read_history(folder)), summary)


@public
def train(
    model: Any,
    train: Any,
    test: Any = None,
    *,
    out: str | Path,
    method: Any = "bat",
    scores: "Scores | str | Path | None" = None,
    which: str = "best",
    **settings: Any,
) -> "nn.Module":
    """Train a network, adversarially or not, in this process; on Ray if `num_workers` is given.

    What is finished is kept in the folder `out`: the same call goes on from the last epoch, and returns the network at
    once if all epochs are done.

    Args:
        model, train, test: as for `bat_dist.memorize`; validation samples are held out of `train`, and the test samples
            are not looked at.  With `scores` of a `memorize` that held its test split out of `train`, the same happens.
        out: the run's folder, or a URI.
        method: "erm", "pgd_at", "trades", "mart", "gairat" or "bat", or a class or an object of your own that has what
            `Method` asks for.
        scores: what "bat" needs: `Scores`, or a file of them, of the same data in the same order.
        which: the network of the epoch that was best on the validation samples, or of the last one: "best" or "last".
        **settings: all options of `bat-dist train`, by name, such as epochs=30, recipe="fast", epsilon=8/255,
            num_steps=10, alpha=1.0, beta=0.2 or num_workers=2.

    Returns:
        The network in eval mode, on the CPU: images [batch, 3, height, width] in [0, 1] -> logits [batch, classes].

    Raises:
        UserError: for settings that do not exist or do not fit (all at once, as ConfigError), for scores of other data,
            and for a folder that holds another run.
        RunError: if the training fails, such as with a loss that is not finite.

    Example:
        >>> network = train("auto", "digits", method="bat", scores=scores, out="run", epochs=20)  # doctest: +SKIP
    """
    from bat_dist.artifacts.checkpoints import load_model

    arch = arch_of(model)
    given = {**settings, "out": out, "arch": arch, **_method(method, settings.get("hyper", ()))}
    given |= {} if scores is None else {"scores": _location(scores)}
    stand_in = {"dataset": train if isinstance(train, str) else ANY_NAME}
    asked = settings_of(TrainSettings, given, call="train", stand_in=stand_in)
    if asked.num_workers:
        prepare_environment(asked.ray_address)
    dataset = _data(train, test, asked, scores)
    carry_out(dataclasses.replace(asked, dataset=name_of(train)), dataset)
    return load_model(str(out), which, model=None if isinstance(arch, str) else arch)


def _method(method: Any, hyper: Sequence[str]) -> Mapping[str, Any]:
    """The settings `method` and, for an object, `hyper`, in which its fields are hyper-parameters."""
    if isinstance(method, str):
        return {"method": method}
    from bat_dist.methods.own import OwnMethod, own_method

    if isinstance(method, type | OwnMethod):
        return {"method": method if isinstance(method, OwnMethod) else own_method(method)}
    own = own_method(type(method))
    values = {one.name: getattr(method, one.name) for one in dataclasses.fields(own.made) if one.init}
    words = [f"{name}={'none' if value is None else value}" for name, value in values.items()]
    return {"method": own, "hyper": [*words, *hyper]}


def _location(scores: "Scores | str | Path") -> str:
    return str(getattr(scores, "location", scores))


def _data(train: Any, test: Any, asked: TrainSettings, scores: Any) -> "Dataset":
    """The data of the call; those of the scores, if no test set is given and these have the same training samples.

    For a test set is part of what tells data from others, and a training does not look at it.  Settings that choose
    among the samples ask for other data than those of the scores.
    """
    known: Dataset | None = getattr(scores, "data", None)
    if known is None or test is not None or chooses_samples(asked) or isinstance(train, str | type(known)):
        return data_of(train, test, asked)
    import numpy as np

    from bat_dist.data.own import split_of

    split = split_of(train, what="the training set")
    is_same = np.array_equal(split.images, known.train.images) and np.array_equal(split.labels, known.train.labels)
    return known if is_same else data_of(train, test, asked)
