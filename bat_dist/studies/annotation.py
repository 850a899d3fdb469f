"""App. B.3: what people are asked about samples of high and low poisoning score, their answers, and their table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped
from pydantic import TypeAdapter, ValidationError

from bat_dist.errors import UserError
from bat_dist.storage.files import split_location
from bat_dist.studies.agreement import cohen_kappa
from bat_dist.studies.poisoning import HIGH, LOW, NEITHER, PoisoningSamples

Choice = Literal["first", "second", "both", "neither"]
ANSWERS = ("y1", "y2", "both", "neither")  # of the paper's table, in its order
POOLED, PAPER = "pooled", "paper"  # names of rows of the table that are no annotator
UNANSWERED = ""
Answered = Mapping[str, Shaped[np.ndarray, " samples"]]  # by annotator: one of ANSWERS, or UNANSWERED


class Question(NamedTuple):
    """A training sample, and the two classes (y1 and y2, in a random order) that it may be of."""

    sample: int
    first: int
    second: int


@dataclass(frozen=True)
class GivenAnswer:
    """What somebody chose for a sample that may be of the classes `first` and `second`."""

    sample: int
    first: int
    second: int
    answer: Choice


@dataclass(frozen=True)
class AnswerFile:
    """`answers-NAME.json`, which the annotation page saves.  fingerprint: of the data that it showed."""

    annotator: str
    fingerprint: str
    answers: Sequence[GivenAnswer]


class AnswerShares(NamedTuple):
    """A row of the table: the percentages of somebody's answers, in the order of ANSWERS; NaN where n is 0."""

    annotator: str
    of: str
    n: int
    percent: Sequence[float]


class Agreement(NamedTuple):
    """Cohen's kappa of two people, over the samples that both have answered."""

    first: str
    second: str
    n: int
    kappa: float


def questions(samples: PoisoningSamples) -> list[Question]:
    """A question for each sample of the high and of the low set; the order tells neither the set nor the given label.

    It is the same each time, so that a page that is made anew goes on where the last one stopped.
    """
    rng = np.random.default_rng(0)
    asked = rng.permutation(np.flatnonzero(samples.of != NEITHER))
    classes = rng.permuted(np.stack([samples.y1, samples.y2], axis=1)[asked], axis=1)
    return [
        Question(int(sample), int(first), int(second))
        for sample, (first, second) in zip(samples.index[asked], classes, strict=True)
    ]


def read_answers(locations: Sequence[str], fingerprint: str) -> list[AnswerFile]:
    """The files that the annotation page saved.

    Raises UserError for one that is missing, is no such file, is of other data, or has the annotator of another.
    """
    found: dict[str, AnswerFile] = {}
    for location in locations:
        folder, name = split_location(location)
        try:
            one = TypeAdapter(AnswerFile).validate_json(folder.read(name), strict=True)
        except (FileNotFoundError, IsADirectoryError):
            raise UserError(f"{location} is no file") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{location} is no file of answers that annotate.html saved: {where and where + ': '}{first['msg']}"
            ) from None
        if one.fingerprint != fingerprint:
            raise UserError(f"{location} holds answers about other data than the ones given, or another order of them")
        if not one.annotator.strip() or one.annotator in (POOLED, PAPER):
            raise UserError(f"{location}: an annotator cannot be called {one.annotator!r}")
        if one.annotator in found:
            raise UserError(
                f"{location} is the second file of annotator {one.annotator!r}: give one of them, or other names"
            )
        found[one.annotator] = one
    return list(found.values())


def answers_by_sample(files: Sequence[AnswerFile], samples: PoisoningSamples) -> Answered:
    """Each annotator's answer to each sample: `y1`, `y2`, `both`, `neither`, or nothing.

    Raises UserError for answers to what the study does not ask: they would be counted in the wrong place.
    """
    place = {int(index): at for at, index in enumerate(samples.index) if samples.of[at] != NEITHER}
    found = {}
    for one in files:
        row = np.full(len(samples.index), UNANSWERED, dtype="<U7")
        for given in one.answers:
            at = place.get(given.sample)
            if at is None or {given.first, given.second} != {int(samples.y1[at]), int(samples.y2[at])}:
                what = "is not asked about" if at is None else "is asked about with other classes"
                raise UserError(
                    f"answers of {one.annotator!r}: training sample {given.sample} {what} in this study: its scores "
                    "are others than when annotate.html was made (the same seeds, trainings and --most?)"
                )
            if row[at]:
                raise UserError(f"answers of {one.annotator!r}: training sample {given.sample} is answered twice")
            row[at] = _meaning(given, int(samples.y1[at]))
        found[one.annotator] = row
    return found


def table_of_answers(answered: Answered, samples: PoisoningSamples) -> list[AnswerShares]:
    """The paper's table: for the high and the low set, by annotator, and pooled (all answers alike)."""
    pooled = {POOLED: np.stack(list(answered.values()), axis=1)} if answered else {}
    rows = []
    for name, answers in {**answered, **pooled}.items():
        for of in (HIGH, LOW):
            given = answers[samples.members(of)]
            counts = np.array([(given == answer).sum() for answer in ANSWERS])
            total = int(counts.sum())
            percent = (100 * counts / total).tolist() if total else [float("nan")] * len(ANSWERS)
            rows.append(AnswerShares(name, of, total, percent))
    return rows


def agreements(answered: Answered) -> list[Agreement]:
    """Cohen's kappa of each pair of annotators."""
    found = []
    for first, second in combinations(answered, 2):
        both = (answered[first] != UNANSWERED) & (answered[second] != UNANSWERED)
        kappa = cohen_kappa(answered[first][both], answered[second][both])
        found.append(Agreement(first, second, int(both.sum()), kappa))
    return found


def share_of_other_class(answered: Answered) -> np.ndarray:
    """For each sample the share of the answers to it that are y2 or both; NaN without an answer."""
    answers = np.stack(list(answered.values()), axis=1)
    with np.errstate(invalid="ignore"):
        return np.isin(answers, ("y2", "both")).sum(axis=1) / (answers != UNANSWERED).sum(axis=1)


def _meaning(given: GivenAnswer, y1: int) -> str:
    named = {"first": given.first, "second": given.second}.get(given.answer)
    return given.answer if named is None else "y1" if named == y1 else "y2"
