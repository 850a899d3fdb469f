"""The fields of an ensemble's store: what its members keep, and which scores need it.

Nothing can be added to a member that is finished.  So a store goes on with the fields that it was begun with, and a
score that needs others is refused.
"""

from collections.abc import Mapping
from importlib import import_module

from bat_dist.artifacts.trak import TRAK_FIELDS
from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError, naming_extras
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.training.trak_features import projected_dim

DYNAMICS = ("forgetting", "learning_time", "el2n")  # fields and scores of the same names
Fields = Mapping[str, Field]


def ensemble_fields(place: Folder, settings: MemorizeSettings, dataset: Dataset) -> dict[str, Field]:
    """The fields of the ensemble in `place`, one that is begun or a new one.

    Members of a new ensemble always keep how they were trained, and gradients where `self_influence` is asked for.
    Raises UserError for a score that finished members cannot be given, and if `self_influence` lacks its package.
    """
    train, test = (len(dataset.train.labels),), (len(dataset.test.labels),)
    classes, dim = len(dataset.class_names), projected_dim(*train)
    begun = None if settings.fresh else RowStore.existing(place)
    there = set(begun.fields) if begun is not None and begun.is_begun() else None
    dynamics = {"forgetting": Field("int32", train), "learning_time": Field("int32", train)}
    dynamics["el2n"] = Field("float32", train)
    shapes = ((*train, dim), (*test, dim), train, train)
    gradients = {name: Field("float32", shape) for name, shape in zip(TRAK_FIELDS, shapes, strict=True)}
    wants_gradients = settings.score == "self_influence"
    _check(place, there, dynamics, settings.score, is_needed=settings.score in dynamics)
    _check(place, there, gradients, settings.score, is_needed=wants_gradients)
    has_gradients = wants_gradients if there is None else gradients.keys() <= there
    if has_gradients:
        with naming_extras():
            import_module("trak")
    return {
        "train_probabilities": Field("float32", (*train, classes)),
        "test_probabilities": Field("float32", (*test, classes)),
        "metrics": Field("float64", (2,)),
        **(dynamics if there is None or dynamics.keys() <= there else {}),
        **(gradients if has_gradients else {}),
    }


def _check(place: Folder, there: set[str] | None, fields: Fields, score: str, *, is_needed: bool) -> None:
    """Raise UserError if a score needs fields without which the members that are there were trained."""
    if is_needed and there is not None and not fields.keys() <= there:
        raise UserError(
            f"{place} holds members without what {score} needs, which finished members cannot be given later: "
            "take another score, or begin anew in another --out, or here with --fresh"
        )
