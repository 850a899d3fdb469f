"""Scores as an object to work with: arrays, sets of samples, tables and pictures."""

import base64
import html
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float, Int, Shaped

from bat_dist.api.calls import public
from bat_dist.errors import UserError
from bat_dist.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from bat_dist.data.datasets import Dataset
    from bat_dist.figures.style import ShownFigure
    from bat_dist.memorization.influence import InfluencePairs

MEM = "mem"
THUMBNAIL = 72  # pixels, the side of a picture in a notebook's cell
Values = Float[np.ndarray, " train"]


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """What leave-out trials say of each training sample; all arrays are in the order of the training split.

    Attributes:
        mem: how much the sample is memorized, in [-1, 1]: how often networks that were trained on it classify it right,
            less how often networks without it do.  NaN for a sample that was in all trials, or in none.
        mem_se: its standard error, 0 where the networks all agree: see low and high then.
        low, high: a 95% interval of mem (Newcombe), sound for few trials too.
        n_in, n_out: numbers of trials with the sample and without it.
        shrunk: the posterior mean of mem with a prior that all samples together give (empirical Bayes), of smaller
            error than mem where trials are few.
        probability_atypical: the posterior probability of mem > 0.15, likewise.
        labels: class numbers.
        ids: names of the samples: their files, or their positions in the data that were given.
        location: the file that holds the scores, for `train(scores=...)` and `bat-dist train --scores`.
        decided: of a run with `num_trials="auto"`: 1 where mem > 0.15 is decided, -1 where its contrary is, 0 where
            neither, each sample wrongly with probability 5% at most whenever the run ended; None for other runs.
        num_test: of test samples, whose positions `influence` takes; None where it is not known.
        kind: "mem", or which cheaper score of an ensemble stands in mem's place (higher is more atypical).

    What is not known is NaN (standard errors and intervals), 0 (numbers of trials) or None (shrunk, decided).
    """

    mem: Values
    mem_se: Values
    low: Values
    high: Values
    n_in: Int[np.ndarray, " train"]
    n_out: Int[np.ndarray, " train"]
    labels: Int[np.ndarray, " train"]
    ids: Shaped[np.ndarray, " train"]
    location: str
    kind: str = MEM
    data: "Dataset | None" = None
    pairs: "InfluencePairs | None" = field(default=None, repr=False)
    decided: Int[np.ndarray, " train"] | None = None
    shrunk: Values | None = None
    probability_atypical: Values | None = None
    num_test: int | None = None

    def __len__(self) -> int:
        return len(self.mem)

    def atypical(self, sigma: float | None = None) -> Int[np.ndarray, " found"]:
        """Positions of the samples whose score is above sigma, ascending; None is the paper's 0.15.

        Raises UserError without sigma for a cheaper score, which has a scale of its own.
        """
        from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD

        if sigma is None and self.kind != MEM:
            raise UserError(
                f"{self.kind} has a scale of its own: say which sigma, such as np.quantile(scores.mem, 0.9)"
            )
        return np.flatnonzero(self.mem > (ATYPICAL_THRESHOLD if sigma is None else sigma))

    def top(self, n: int = 10) -> Int[np.ndarray, " n"]:
        """Positions of the n samples of the highest score, falling; of equal ones the earlier comes first."""
        order = np.argsort(-self.mem, kind="stable")  # NaN comes last
        return order[: min(n, int(np.isfinite(self.mem).sum()))]

    def influence(self, *, test: int | None = None, train: int | None = None) -> "InfluencePairs":
        """The pairs of one test sample, or of one training sample, the largest influence first.

        test, train: positions in their splits; give one, or both for the pair.  Only pairs above `influence_threshold`
        (0.15) are kept by `memorize`, and with `influence_top` the largest of each test sample; a file of Feldman &
        Zhang has all pairs of a class.
        Returns train_index, test_index, influence and influence_se [pairs], see `InfluencePairs`.
        Raises UserError if the scores have no influences, or for a position that does not exist.
        """
        from dataclasses import replace

        if self.pairs is None:
            raise UserError(
                f"{self.location} has no influences beside it: leave-out trials have, cheaper scores do not"
            )
        if test is None and train is None:
            raise UserError("whose influence? Give test=POSITION, train=POSITION, or both")
        kept = np.ones(len(self.pairs.influence), bool)
        for split, asked, number in (("train", train, len(self)), ("test", test, self.num_test)):
            if asked is not None and number is not None and not 0 <= asked < number:
                raise UserError(f"{split} must be a position from 0 to {number - 1}, got {asked}")
            kept &= True if asked is None else getattr(self.pairs, f"{split}_index") == asked
        names = ("train_index", "test_index", "influence", "influence_se")
        columns = {name: getattr(self.pairs, name)[kept] for name in names}
        return replace(self.pairs, **columns, num_found=int(kept.sum()))

    @public
    def to_pandas(self) -> "pd.DataFrame":
        """A table with a row for each training sample, in their order.  Needs the extra `report`."""
        import pandas as pd

        names = ("ids", "labels", "mem", "mem_se", "low", "high", "n_in", "n_out")
        columns = {{"ids": "id", "labels": "label"}.get(name, name): getattr(self, name) for name in names}
        return pd.DataFrame(columns).rename(columns={MEM: self.kind})

    @public
    def plot(self, n: int = 24) -> "ShownFigure":
        """The n most and the n least memorized samples as pictures; a notebook shows the figure.

        Needs the extra `report`, and the images: see `load_scores`.  Raises UserError if they are not at hand.
        """
        from bat_dist.figures.galleries import MemorizedSamples, extremes_gallery

        data = self._with_images()
        samples = MemorizedSamples(data.train, data.class_names, self.mem, self.low, self.high)
        return cast("ShownFigure", extremes_gallery(samples, k=n))

    def __repr__(self) -> str:
        return f"<Scores: {self._sentence()}>"

    def _sentence(self) -> str:
        trials = int(np.max(self.n_in + self.n_out, initial=0))
        of = f" from {counted(trials, 'trial')}" if trials else ""
        if self.kind != MEM:
            return f"{self.kind} of {counted(len(self), 'training sample')}"
        found = len(self.atypical())
        return (
            f"{found:,} of {counted(len(self), 'training sample')} ({found / max(1, len(self)):.1%}) are memorized, "
            f"mem > 0.15{of}"
        )

    def _repr_html_(self) -> str:
        """The sentence, and the ten most memorized samples, with pictures where the images are at hand."""
        cells = []
        for i in self.top(10):
            picture = f"<img src='data:image/png;base64,{_png(self.data.train.images[i])}'>" if self.data else ""
            bounds = f" [{self.low[i]:.2f}, {self.high[i]:.2f}]" if np.isfinite(self.low[i]) else ""
            name = self.data.class_names[self.labels[i]] if self.data else f"class {self.labels[i]}"
            text = f"{html.escape(str(self.ids[i]))}<br>{html.escape(name)}<br>{self.mem[i]:.2f}{bounds}"
            cells.append(f"<td style='text-align:center;vertical-align:bottom;font-size:11px'>{picture}<br>{text}</td>")
        return f"<div><p>{html.escape(self._sentence())}</p><table><tr>{''.join(cells)}</tr></table></div>"

    def _with_images(self) -> "Dataset":
        if self.data is not None:
            return self.data
        raise UserError(
            "the images are not at hand: load_scores(..., data=...) takes the data that the scores were computed on"
        )


@public
def load_scores(location: str | Path, data: Any = None, *, score: str | None = None) -> Scores:
    """Scores from the folder of an earlier `memorize`, or from a file.

    Args:
        location: the folder; a memorization.npz or ensemble_scores.npz; or a file in the format of Feldman & Zhang
            (2020), such as those that they publish for CIFAR-100.  On any file system that fsspec knows.
        data: the data that they were computed on, for pictures: a `Dataset`, or what `memorize` takes as `train`, or a
            pair (train, test) of such.  None looks for a dataset by name, which the folder names; without images
            everything but `plot` works.
        score: of an ensemble's scores, which: "disagreement" (default), "confidence", "true_class_confidence",
            "forgetting", "learning_time", "el2n" or "self_influence".

    Raises:
        UserError: if there are none, or if they are damaged or of other data.

    Example:
        >>> scores = load_scores("results/digits")  # doctest: +SKIP
        >>> scores.to_pandas().sort_values("mem").tail()  # doctest: +SKIP
    """
    from bat_dist.artifacts.scores import ENSEMBLE_SCORES, INFLUENCE, MEMORIZATION, read_all_influence
    from bat_dist.storage.files import Folder, split_location

    if str(location).endswith(".npz"):
        folder, name = split_location(str(location))
    else:
        folder = Folder(str(location))
        name = ENSEMBLE_SCORES if score is not None or not folder.exists(MEMORIZATION) else MEMORIZATION
    arrays = folder.read_npz(name)
    place = f"{folder.location.rstrip('/')}/{name}"
    if "tr_mem" in arrays:
        return _feldman_zhang(folder.read(name), place, data)
    chosen = MEM if MEM in arrays else score or "disagreement"
    if chosen not in arrays:
        raise UserError(f"{folder}/{name} holds neither mem nor {chosen}: it is no file of bat-dist memorize")
    fingerprint = str(arrays["fingerprint"])
    dataset = _data(data, folder, fingerprint)
    nothing, zeros = np.full(len(arrays[chosen]), np.nan), np.zeros(len(arrays[chosen]), np.int64)
    is_mem = chosen == MEM
    return Scores(
        arrays[chosen],
        **{name: arrays.get(f"mem_{end}", nothing) if is_mem else nothing for name, end in _ENDS.items()},
        n_in=arrays.get("n_in", zeros),
        n_out=arrays.get("n_out", zeros),
        labels=arrays["train_labels"],
        ids=arrays["train_ids"],
        location=place,
        kind=chosen,
        data=dataset,
        pairs=read_all_influence(folder, fingerprint) if is_mem and folder.exists(INFLUENCE) else None,
        decided=arrays.get("decided") if is_mem else None,
        shrunk=arrays.get("mem_shrunk") if is_mem else None,
        probability_atypical=arrays.get("probability_atypical") if is_mem else None,
        num_test=len(arrays["test_labels"]) if "test_labels" in arrays else None,
    )


_ENDS = {"mem_se": "se", "low": "low", "high": "high"}


def _feldman_zhang(content: bytes, place: str, data: Any) -> Scores:
    from bat_dist.memorization.exchange import load_feldman_zhang

    dataset = None if data is None else _read(data)
    labels = {} if dataset is None else {"train_labels": dataset.train.labels, "test_labels": dataset.test.labels}
    try:
        found = load_feldman_zhang(BytesIO(content), **labels, allow_undefined=True)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    nothing, zeros = np.full(len(found.mem), np.nan), np.zeros(len(found.mem), np.int64)
    return Scores(
        found.mem,
        mem_se=nothing,
        low=nothing,
        high=nothing,
        n_in=zeros,
        n_out=zeros,
        labels=found.train_labels,
        ids=np.arange(len(found.mem)).astype(str) if dataset is None else dataset.train.ids,
        location=place,
        data=dataset,
        pairs=found.pairs_above(-np.inf),
        num_test=len(found.test_labels),
    )


def _data(data: Any, folder: Any, fingerprint: str) -> "Dataset | None":
    """The data that were passed; else those that the folder names, if they are at hand."""
    from bat_dist.data.table import DATASETS
    from bat_dist.storage.recorded import data_of_scores

    if data is None:
        asked = {name: one.value for name, one in data_of_scores(f"{folder.location}/x.npz").items()}
        if asked.get("dataset") not in DATASETS:
            return None
        from bat_dist.data.datasets import load_dataset

        try:
            dataset = load_dataset(asked.pop("dataset"), **asked)
        except UserError:  # they are elsewhere now
            return None
        return dataset if dataset.fingerprint == fingerprint else None
    dataset = _read(data)
    if dataset.fingerprint != fingerprint:
        raise UserError(f"{folder} holds scores of other data than those given, or of another order of them")
    return dataset


def _read(data: Any) -> "Dataset":
    from bat_dist.data.datasets import Dataset, load_dataset
    from bat_dist.data.own import dataset_of

    if isinstance(data, Dataset):
        return data
    if isinstance(data, str):
        return load_dataset(data)
    train, test = data if isinstance(data, tuple) and len(data) == 2 and not hasattr(data[0], "ndim") else (data, None)
    return dataset_of(train, test, name="data")


def _png(image: np.ndarray) -> str:
    """An image of THUMBNAIL pixels or more as base64; small ones are enlarged without smoothing."""
    from PIL import Image

    picture, factor = Image.fromarray(image), -(-THUMBNAIL // max(image.shape[:2]))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    with BytesIO() as file:
        picture.save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode()
