"""Influences from all complete trials: here, or for a large problem in parts on Ray, which a later call goes on with.

A part that is done is a file in the result folder, written by the driver.  Workers need no folder in common: they get
their samples' trials, a bit each, by Ray's object store.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import ray
from jaxtyping import Bool, UInt8

from bat_dist.artifacts.scores import Trials
from bat_dist.data.datasets import Dataset
from bat_dist.errors import RunError, UserError
from bat_dist.jobs.fill_rows import Rows, fill_rows
from bat_dist.memorization.columns import Matrix
from bat_dist.memorization.influence_blocks import BLOCK_BYTES, Index, Labels
from bat_dist.memorization.influence_parts import (
    Gathered,
    InfluencePart,
    Influences,
    Wanted,
    by_class,
    find_influences,
    num_pairs,
    parts_of,
    samples_at,
)
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, SetRule
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import DIGEST, RowStatus, RowStore
from bat_dist.wording import bytes_of, counted
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.nodes import job_session
from bat_dist.workers.resources import worker_resources
from bat_dist.workers.units import Row, Work

log = logging.getLogger(__name__)

MAX_PAIRS = 1_000_000  # kept in influence.npz; more are counted
WORK_HERE = 2**41  # trials x pairs up to which the driver does it alone: a few minutes of a processor core
PARTS, WHAT = "influence", "parts"  # the folder of parts that are done, and what they are called
ALL, RECORD = "all.npz", "parts.json"


def leave_out_influences(
    folder: Folder, dataset: Dataset, settings: MemorizeSettings, store: RowStore, trials: Trials, mem: np.ndarray
) -> Influences:
    """What the settings want of all pairs, within `scores_memory`.

    Up to `WORK_HERE` it is computed at once.  Beyond, it is computed in parts by Ray's workers, parts of an earlier
    call are taken over, and what all of them give is kept in `folder`/influence.
    Raises RunError if parts failed: a later call tries these again.
    """
    rule, memory = SetRule(settings.typicality, level=settings.typicality_level), bytes_of(settings.scores_memory)
    wanted = Wanted(
        threshold=settings.influence_threshold,
        same_class=settings.influence_pairs == "same_class",
        max_pairs=MAX_PAIRS,
        top=settings.influence_top,
        tested=rule.tested,
        within_class=rule.within_class,
    )
    labels, block_bytes = (dataset.train.labels, dataset.test.labels), min(BLOCK_BYTES, memory // 8)
    atypical = mem > ATYPICAL_THRESHOLD
    work = len(trials.numbers) * num_pairs(*labels, same_class=wanted.only_same_class)
    if work <= WORK_HERE:
        matrices = trials.mask, trials.test_correct
        return find_influences(wanted, *matrices, *labels, atypical, block_bytes=block_bytes)
    parts = parts_of(len(trials.numbers), *labels, same_class=wanted.only_same_class)
    identity = _identity(wanted, parts, dataset.fingerprint, store.read(DIGEST, trials.numbers))
    files = PartFiles(folder / PARTS, identity, len(parts))
    if (done := files.all()) is None:
        if not files.status().complete.all():
            _fill(folder, settings, files, parts, trials, labels, atypical, wanted, block_bytes)
        done = files.gather(wanted, parts, *labels)
    return done


class PartFiles:
    """The parts of one problem, a file each, in a folder; those of another problem there are removed."""

    def __init__(self, folder: Folder, identity: str, num_parts: int):
        self.folder, self.num_parts = folder, num_parts
        record = {"identity": identity, "num_parts": num_parts}
        if not folder.exists(RECORD) or folder.read_json(RECORD) != record:
            self.remove()
            folder.create()
            folder.write_json(RECORD, record)

    def status(self) -> RowStatus:
        """Which parts are there; a damaged file counts as not there."""
        there, damaged = set(self.folder.names("part-*.npz")), []
        complete = np.array([self._name(part) in there for part in range(self.num_parts)], bool)
        for part in np.flatnonzero(complete).tolist():
            try:
                self.read(part)
            except UserError:
                complete[part] = False
                damaged.append(part)
        return RowStatus(complete, tuple(damaged))

    def write(self, row: int, values: Mapping[str, Any]) -> None:
        """Write one part."""
        self.folder.write_npz(self._name(row), **values)

    def read(self, part: int) -> Influences:
        """Read one part.  Raises UserError if it is missing or damaged."""
        return self._read(self._name(part))

    def all(self) -> Influences | None:
        """What all parts together give, if that is there."""
        try:
            return self._read(ALL) if self.folder.exists(ALL) else None
        except UserError as error:
            log.warning("%s: it is put together again", error)
            return None

    def gather(
        self, wanted: Wanted, parts: Sequence[InfluencePart], train_labels: Labels, test_labels: Labels
    ) -> Influences:
        """Put the parts together, keep the result, and remove them."""
        train, test = by_class(train_labels), by_class(test_labels)
        gathered = Gathered(wanted, len(test_labels))
        for number, part in enumerate(parts):
            gathered.add(self.read(number), samples_at(train, part.train), samples_at(test, part.test))
        found = gathered.found()
        self.folder.write_npz(ALL, **found.arrays())
        self.folder.remove_files(["part-*.npz"])
        return found

    def remove(self) -> None:
        """Remove all that is here."""
        self.folder.remove_files(["part-*.npz", ALL, RECORD])

    def _name(self, part: int) -> str:
        return f"part-{part:06d}.npz"

    def _read(self, name: str) -> Influences:
        arrays = self.folder.read_npz(name)
        try:
            return Influences.of(arrays)
        except KeyError as error:
            raise UserError(f"{self.folder}/{name} lacks {error}") from None


def build_part_work(
    parts: Sequence[InfluencePart],
    inside: Mapping[tuple[int, int], Any],
    correct: Mapping[tuple[int, int], Any],
    labels: tuple[Labels, Labels],
    atypical: Bool[np.ndarray, " train"],
    num_trials: int,
    wanted: Wanted,
    block_bytes: int,
) -> Work:
    """The function of a part's number.

    inside, correct: for each span of places a reference to its samples' trials, as `bits_of` gives them.
    """
    orders = tuple(map(by_class, labels))

    def unpacked(bits: UInt8[np.ndarray, "samples bytes"]) -> Bool[np.ndarray, "trials samples"]:
        return np.unpackbits(bits, axis=1, count=num_trials).view(bool).T

    def work(number: int) -> Row:
        part = parts[number]
        train, test = (samples_at(order, places) for order, places in zip(orders, part, strict=True))
        matrices = unpacked(ray.get(inside[part.train])), unpacked(ray.get(correct[part.test]))
        of_part = labels[0][train], labels[1][test], atypical[train]
        return dict(find_influences(wanted, *matrices, *of_part, block_bytes=block_bytes).arrays())

    return work


def bits_of(matrix: Matrix, samples: Index) -> UInt8[np.ndarray, "samples bytes"]:
    """The trials of some samples, a bit each."""
    return np.packbits(np.ascontiguousarray(matrix[:, samples].T), axis=1)


def _fill(
    folder: Folder,
    settings: MemorizeSettings,
    files: Rows,
    parts: Sequence[InfluencePart],
    trials: Trials,
    labels: tuple[Labels, Labels],
    atypical: Bool[np.ndarray, " train"],
    wanted: Wanted,
    block_bytes: int,
) -> None:
    """Compute the missing parts on Ray.  Raises RunError if some failed."""
    heart = Heartbeat(folder, WHAT, total=len(parts))
    with heart, job_session(settings, folder, all_write=False) as terms:
        resources = worker_resources(settings.cpus_per_trial, 0.0, of="trial", wait_minutes=terms.wait_minutes)
        orders = tuple(map(by_class, labels))
        inside, correct = (
            {places: ray.put(bits_of(matrix, samples_at(order, places))) for places in {part[side] for part in parts}}
            for side, (matrix, order) in enumerate(zip((trials.mask, trials.test_correct), orders, strict=True))
        )
        filled = fill_rows(
            files,
            folder,
            len(parts),
            build_part_work,
            [parts, inside, correct, ray.put(labels), ray.put(atypical), len(trials.numbers), wanted, block_bytes],
            what=WHAT,
            resources=resources,
            num_workers=settings.num_workers,
            give_up_on=(),
            heart=heart,
            terms=terms,
        )
    if filled.failed:
        number, reason = min(filled.failed.items())
        failed = counted(len(filled.failed), "part")
        raise RunError(f"{failed} of the influences failed, part {number} with {reason}; the same command goes on")


def _identity(
    wanted: Wanted, parts: Sequence[InfluencePart], fingerprint: str, digests: UInt8[np.ndarray, "trials 32"]
) -> str:
    """A digest of all that parts depend on: the trials' rows, the data, the division, and what is wanted."""
    asked = [asdict(wanted), parts, fingerprint, hashlib.sha256(digests.tobytes()).hexdigest()]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
