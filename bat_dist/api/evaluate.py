"""An evaluation from settings to accuracies: what `bat-dist evaluate` and `bat_dist.evaluate` do."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bat_dist.api.calls import public, settings_of
from bat_dist.api.parts import ANY_NAME, images_as_dataset
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.workers.private_ray import prepare_environment

if TYPE_CHECKING:
    from torch import nn

    from bat_dist.data.datasets import Dataset
    from bat_dist.evaluation.result import Evaluation
    from bat_dist.jobs.attacked_network import AttackedNetwork
    from bat_dist.results.evaluation_file import EvaluationDocument

OF_FILES = ("checkpoint", "which", "weights_key", "allow_pickle", "split", "scores", "data_dir", "download")
OF_FILES += ("num_train", "num_test", "num_classes", "image_size", "test_share", "image_storage", "loader")


def carry_out(
    settings: EvaluateSettings, dataset: "Dataset", subject: "AttackedNetwork", *, on_ray: bool = True
) -> "tuple[Evaluation, EvaluationDocument]":
    """Attack what the result folder lacks, and write its files.  on_ray: else in this process.

    settings: with what the folder's earlier evaluation has, see `with_earlier`. Raises UserError and RunError.
    """
    from bat_dist.config import to_dict
    from bat_dist.jobs.attacked_images import attacked
    from bat_dist.results.evaluation_file import write_evaluation
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver

    folder = Folder(settings.out)
    dataset, subsets = attacked(dataset, settings, subject.facts)
    with only_driver(folder):
        if on_ray:
            from bat_dist.jobs.evaluate import evaluate as on_workers

            evaluation = on_workers(folder, dataset, settings, subject)
        else:
            from bat_dist.jobs.evaluate_here import evaluate_here

            evaluation = evaluate_here(folder, dataset, settings, subject)
        asked = {**to_dict(settings), "fresh": False}  # which it was for once
        facts, digest = subject.facts, subject.digest
        document = write_evaluation(folder, dataset, asked, evaluation, subsets=subsets, facts=facts, digest=digest)
    return evaluation, document


@public
def evaluate(
    model: "nn.Module | str | Path",
    images: Any,
    labels: Any = None,
    *,
    attacks: Sequence[str] = ("clean", "pgd20"),
    epsilon: float = 8 / 255,
    step_size: float | None = None,
    out: str | Path | None = None,
    num_workers: int | None = None,
    class_names: Sequence[str] | None = None,
    **settings: Any,
) -> "Evaluation":
    """How robust is a network?  The accuracy on these images, clean and after each attack in the l_inf ball.

    Works in this process, without Ray, unless `num_workers` is given.

    Args:
        model: a network, images [batch, 3, height, width] in [0, 1] -> logits [batch, classes]; or what `load_model`
            takes.  A network that wants normalized images is given with `mean` and `std`.  It is not changed.
        images: floats in [0, 1], [n, 3, height, width] or uint8 [n, height, width, 3], as tensor or array; or a
            map-style data set of (image, label).  Floats are rounded to steps of 1/255, as files have them.
        labels: class numbers [n], as tensor, array or list; None if `images` is a data set.
        attacks: names, as `bat-dist evaluate --attacks` takes them: clean, fgsm, pgd20, cw, autoattack, ...
        epsilon: the radius of the ball, in [0, 1] pixels.
        step_size: of PGD and CW; None is epsilon / 4.
        out: a folder where the result is kept, and from which the same call goes on; None keeps nothing.
        num_workers: units at a time on Ray; None is this process.
        class_names: of the classes, in the order of the network's outputs; None calls them 0, 1, ...
        **settings: other options of `bat-dist evaluate`, by name: seeds, restarts, check_images, batch_size, mean, std,
            first, keep_adversarial, ray_address, ...

    Returns:
        `.accuracy` [by attack], `.flags` (for each attack whether each image stayed right), `.checks` (signs that the
        numbers are too good), `.to_pandas()`; as text it is a table.

    Raises:
        UserError: for settings that do not exist or do not fit, for images or labels that cannot be taken, and for a
            network that does not take these images.

    Example:
        >>> found = evaluate(network, images, labels, attacks=("clean", "pgd20"), epsilon=8 / 255)  # doctest: +SKIP
        >>> found.accuracy["pgd20"]  # doctest: +SKIP
    """
    step_size = epsilon / 4 if step_size is None else step_size
    given = {**settings, "attacks": list(attacks), "epsilon": epsilon, "step_size": step_size}
    given |= {"num_workers": num_workers} if num_workers is not None else {}
    given |= {"out": out} if out is not None else {}
    stand_in = {"dataset": ANY_NAME, "model": _name(model), **({} if out is not None else {"out": "nowhere"})}
    asked = settings_of(EvaluateSettings, given, call="evaluate", stand_in=stand_in, without=OF_FILES)
    asked = dataclasses.replace(asked, dataset="images")
    if num_workers is not None:
        prepare_environment(asked.ray_address)
    return _evaluated(asked, model, images, labels, class_names, is_kept=out is not None)


def _evaluated(
    asked: EvaluateSettings, model: Any, images: Any, labels: Any, class_names: Any, *, is_kept: bool
) -> "Evaluation":
    """The settings' evaluation.  is_kept: in the folder `out`."""
    from bat_dist.data.own import split_of
    from bat_dist.jobs.attacked_images import attacked
    from bat_dist.jobs.attacked_network import answers, check_can_travel, check_fits, passed_subject, saved_subject
    from bat_dist.jobs.evaluate_here import evaluate_here, with_earlier
    from bat_dist.storage.files import Folder

    if isinstance(model, str | Path):
        subject, own_names = saved_subject(str(model))
    else:
        subject, own_names = passed_subject(model, asked), None
    split = split_of(images if labels is None else (images, labels), what="the images")
    num_classes = next(answers(subject.network, split.images)).shape[1]
    dataset = images_as_dataset(split, num_classes, own_names if class_names is None else class_names)
    if is_kept:
        asked = with_earlier(Folder(asked.out), asked)
    check_fits(subject.network, dataset, asked.attacks)
    if asked.num_workers is None and not is_kept:
        return evaluate_here(None, attacked(dataset, asked, subject.facts)[0], asked, subject)
    if asked.num_workers is not None:
        check_can_travel(subject.network)
    return carry_out(asked, dataset, subject, on_ray=asked.num_workers is not None)[0]


def _name(model: Any) -> str:
    return str(model) if isinstance(model, str | Path) else type(model).__qualname__
