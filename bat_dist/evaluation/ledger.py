"""What of an evaluation is done: a row store per stage, and which units are to be done next.  No torch, no ray."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy.typing import ArrayLike

from bat_dist.errors import RunError
from bat_dist.evaluation.hygiene import FOUND, Check, judge, square_check
from bat_dist.evaluation.names import PROBE
from bat_dist.evaluation.plan import (
    CLEAN_STAGE,
    EvaluationPlan,
    Stage,
    Unit,
    cut,
    is_whole_autoattack,
    spread,
    unit_size,
)
from bat_dist.evaluation.result import Evaluation, ResultRow
from bat_dist.storage.files import Folder
from bat_dist.storage.memory_rows import MemoryRows
from bat_dist.storage.rows import Field, RowStore
from bat_dist.storage.status import UNITS
from bat_dist.wording import counted

log = logging.getLogger(__name__)

NO_IMAGE = -1


@dataclass(frozen=True)
class EvaluationIdentity:
    """What is evaluated, and what decides how it is cut into units.

    batch_size: what the units are cut for; a worker may attack more or fewer images at once.
    """

    identity: Mapping[str, Any]  # all that a flag depends on, beside the stage: network, data, epsilon, ...
    epsilon: float
    image_shape: tuple[int, int, int]
    num_images: int
    batch_size: int
    num_checked: int
    keep_adversarial: bool

    def identity_of(self, stage: Stage) -> Mapping[str, Any]:
        """The identity of the stage's store."""
        own = {"batch_size": self.batch_size, "keep_adversarial": self.keep_adversarial}
        return {**self.identity, **own, **({"check_images": self.num_checked} if stage.among == "checked" else {})}

    def fields_of(self, stage: Stage) -> dict[str, Field]:
        """The fields of the stage's store, a row per unit. spent: seconds, and the largest change of a pixel."""
        spent = {"spent": Field("float64", (2,))}
        if stage.attack == PROBE:
            return {"found": Field("float64", (len(FOUND),)), **spent}
        size = min(unit_size(stage, self.batch_size), self.num_images)
        fields = {"images": Field("int64", (size,)), "robust": Field("bool", (size,)), **spent}
        if self.keep_adversarial:
            fields["adversarial"] = Field("float32", (size, *self.image_shape))
        return fields


def cut_for(folder: Folder) -> int | None:
    """The batch size that the folder's units were cut for, and are; None where there are none yet."""
    store = RowStore.existing(folder / UNITS / str(CLEAN_STAGE))
    return None if store is None else store.identity.get("batch_size")


@dataclass
class _Progress:
    """What is known of one stage."""

    units: list[Int64[np.ndarray, " unit"]]
    store: RowStore | MemoryRows
    missing: set[int]
    robust: Bool[np.ndarray, " images"]
    found: Float[np.ndarray, " found"]
    seconds: float = 0.0
    max_delta: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def images(self) -> Int64[np.ndarray, " images"]:
        """The images that it attacks."""
        return np.concatenate([np.empty(0, np.int64), *self.units])


class Ledger:
    """The one hand that writes. Units come from `begin` and `record`; in which order they are done does not matter.

    folder: where the rows are kept; None keeps them in this process alone.
    """

    def __init__(self, folder: Folder | None, plan: EvaluationPlan, frame: EvaluationIdentity):
        self.folder, self.plan, self.frame = folder, plan, frame
        self._stages: dict[Stage, _Progress] = {}

    def begin(self) -> list[Unit]:
        """What can be done now.

        Raises UserError if the folder holds another evaluation; then nothing has been written.
        """
        for stage in self.plan.stages:
            if self.folder and (store := RowStore.existing(self.folder / UNITS / str(stage))) is not None:
                store.check(self.frame.fields_of(stage), self.frame.identity_of(stage))
        return self._begin(tuple(stage for stage in self.plan.stages if stage.before is None))

    def record(self, unit: Unit, row: Mapping[str, ArrayLike]) -> list[Unit]:
        """Write a finished unit; what can be done now that could not before.

        row: what the function of `work.build_work` gives.
        """
        state, values = self._stages[unit.stage], {}
        for name, of in state.store.fields.items():  # the last units of a stage may have fewer images than the first
            values[name] = np.full(of.shape, NO_IMAGE if name == "images" else 0, of.dtype)
            found = np.asarray(row[name])
            values[name][: len(found)] = found
        state.store.write(unit.number, values)
        self._take(unit.stage, unit.number, values)
        if state.missing:
            return []
        if unit.stage.attack != PROBE:
            stand, met = state.robust.sum(), len(state.images)
            log.info(
                "%s: %d of %d images still classified correctly, %.1f s of work", unit.stage, stand, met, state.seconds
            )
        return self._begin(self.plan.after(unit.stage))

    def give_up(self, unit: Unit, reason: str) -> None:
        """Note that a unit failed; what waits for it will not begin."""
        self._stages[unit.stage].failed[unit.number] = reason

    def evaluation(self) -> Evaluation:
        """All rows.  Raises RunError if a unit failed."""
        failed = {f"{stage} {n}": reason for stage, s in self._stages.items() for n, reason in s.failed.items()}
        if failed:
            unit, reason = next(iter(failed.items()))
            raise RunError(f"{counted(len(failed), 'unit')} failed, {unit} with {reason}; the same command goes on")
        checks = self._checks()
        warnings = tuple(dict.fromkeys(check.name for check in checks if not check.passed))
        rows = []
        for name, stages in self.plan.rows.items():
            robust = np.all([self._stages[stage].robust for stage in stages], axis=0)
            links = [self._stages[link] for link in dict.fromkeys(link for stage in stages for link in stage.chain)]
            seconds, max_delta = sum(s.seconds for s in links), max(s.max_delta for s in links)
            rows.append(ResultRow(name, robust, seconds, max_delta, warnings))
        checked = [len(state.images) for stage, state in self._stages.items() if stage.among == "checked"]
        return Evaluation(tuple(rows), tuple(checks), min(checked, default=0))

    def _store(self, stage: Stage, num_rows: int) -> RowStore | MemoryRows:
        fields, identity = self.frame.fields_of(stage), self.frame.identity_of(stage)
        if self.folder is None:
            return MemoryRows(fields, num_rows)
        return RowStore.open(self.folder / UNITS / str(stage), fields=fields, identity=identity, num_rows=num_rows)

    def _begin(self, stages: tuple[Stage, ...]) -> list[Unit]:
        return [unit for stage in stages for unit in self._begin_stage(stage)]

    def _begin_stage(self, stage: Stage) -> list[Unit]:
        """Its missing units; of a stage that is complete, those of the stages after it."""
        images = np.arange(self.frame.num_images)
        if stage.before is not None:
            images = images[self._stages[stage.before].robust]
        if stage.among == "checked":
            images = spread(images, self.frame.num_checked)
        units = cut(images, stage, self.frame.batch_size)
        store = self._store(stage, len(units))
        nothing = np.zeros(self.frame.num_images, bool), np.full(len(FOUND), np.nan)
        state = self._stages[stage] = _Progress(units, store, set(range(len(units))), *nothing)
        status = store.status()
        for number in np.flatnonzero(status.complete[: len(units)]).tolist():
            self._take(stage, number, {name: store.read(name, np.array([number]))[0] for name in store.fields})
        if damaged := sorted(set(status.damaged) & state.missing):
            log.warning("%s: units %s damaged in the store: computing again", stage, ", ".join(map(str, damaged)))
        if not state.missing:
            return self._begin(self.plan.after(stage))
        missing = [Unit(stage, number, tuple(units[number].tolist()), 1) for number in sorted(state.missing)]
        return [unit.at_once(self.frame.batch_size) for unit in missing]

    def _take(self, stage: Stage, number: int, row: Mapping[str, Any]) -> None:
        """Note a finished unit, unless it is of other images than the unit has now: then it is still missing."""
        state, images = self._stages[stage], self._stages[stage].units[number]
        if stage.attack == PROBE:
            state.found = np.asarray(row["found"])
        elif np.array_equal(row["images"][row["images"] != NO_IMAGE], images):
            state.robust[images] = row["robust"][: len(images)]
        else:
            return
        seconds, delta = map(float, row["spent"])
        state.seconds, state.max_delta = state.seconds + seconds, max(state.max_delta, delta)
        state.missing.discard(number)

    def _checks(self) -> list[Check]:
        """What the probe and the attacks of the checks found, judged, and AutoAttack's own check."""
        inside = [state.max_delta for stage, state in self._stages.items() if not stage.attack.endswith("-large")]
        checked = {stage.attack: state for stage, state in self._stages.items() if stage.among == "checked"}
        found = dict(zip(FOUND, checked.pop(PROBE).found.tolist(), strict=True)) if checked else None
        robust = {name: state.robust[state.images] for name, state in checked.items()}
        checks = judge(found, robust, epsilon=self.frame.epsilon, max_delta=max(inside))
        for stage in filter(is_whole_autoattack, self._stages):
            before, after = (float(self._stages[link].robust.mean()) for link in stage.chain[-2:])
            checks.append(square_check(before, after))
        return checks
