"""An evaluation on Ray: stages of attacks, cut into units, each into a row store; then flags by image."""

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
import torch
from jaxtyping import Bool, Float, Int64

from bat_dist.config import RunError, UserError
from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.attack import Settings, attack_images, largest_move, prepare
from bat_dist.evaluation.hygiene import FOUND, Check, judge, square_check
from bat_dist.evaluation.plan import (
    CHECKS,
    CLEAN_STAGE,
    PROBE,
    Stage,
    Unit,
    checked_images,
    cut,
    is_whole_autoattack,
    make_plan,
    unit_size,
)
from bat_dist.evaluation.probe import probe
from bat_dist.evaluation.result import Evaluation, Row
from bat_dist.orchestration.pool import Failed, Resources, Work, run_units
from bat_dist.orchestration.rows import note_failure, progress
from bat_dist.orchestration.session import describe_resources, ray_session
from bat_dist.orchestration.settings import EvaluateSettings
from bat_dist.orchestration.subject import Subject
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.storage.status import failure_name
from bat_dist.training.precision import default_device

log = logging.getLogger(__name__)

STORE = "units"
NO_IMAGE = -1
THOUSAND = 1000


@dataclass
class _Progress:
    """What is known of one stage."""

    units: list[Int64[np.ndarray, " unit"]]
    store: RowStore
    robust: Bool[np.ndarray, " images"]
    missing: set[int]
    found: Float[np.ndarray, " found"]
    seconds: float = 0.0
    max_delta: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)


def evaluate(folder: Folder, dataset: Dataset, settings: EvaluateSettings, subject: Subject) -> Evaluation:
    """Attack what the folder lacks, and put all together by image.

    Raises UserError if the folder holds an evaluation of something else, RunError if a unit failed.
    """
    desk = _Desk(folder, dataset, settings, subject)
    desk.check_stores()
    queue = desk.begin()
    if queue:
        with ray_session(settings.ray_address):
            desk.work_off(queue, _resources(settings))
    return desk.evaluation()


class _Desk:
    """The driver's desk: which stages are where, and the only hand that writes."""

    def __init__(self, folder: Folder, dataset: Dataset, settings: EvaluateSettings, subject: Subject):
        self.folder, self.dataset, self.settings, self.subject = folder, dataset, settings, subject
        classes = len(dataset.class_names)
        checks = tuple(name for name in CHECKS if classes > 3 or name != "apgd-t3") if settings.check_images else ()
        self.plan = make_plan(settings.attacks, settings.seeds, checks=checks)
        self.attack = Settings(
            settings.epsilon or dataset.spec.epsilon, settings.step_size or dataset.spec.step_size, settings.restarts
        )
        self.checked = checked_images(len(dataset.test), settings.check_images)
        self.states: dict[Stage, _Progress] = {}

    # --- stores

    def identity(self, stage: Stage) -> dict[str, Any]:
        """All that a stage's rows depend on."""
        common = {"network": self.subject.digest, "dataset": self.dataset.name}
        common |= {"data_fingerprint": self.dataset.fingerprint, "batch_size": self.settings.batch_size}
        common |= {"epsilon": self.attack.epsilon, "step_size": self.attack.step_size}
        common |= {"restarts": self.attack.restarts, "keep_adversarial": self.settings.keep_adversarial}
        if stage.among == "checked":
            common["check_images"] = self.settings.check_images
        return common

    def fields(self, stage: Stage) -> dict[str, Field]:
        """Of one unit of a stage."""
        if stage.attack == PROBE:
            return {"found": Field("float64", (len(FOUND),)), "spent": Field("float64", (2,))}
        size = min(unit_size(stage, self.settings.batch_size), len(self.dataset.test))
        fields = {"images": Field("int64", (size,)), "robust": Field("bool", (size,)), "spent": Field("float64", (2,))}
        if self.settings.keep_adversarial:
            fields["adversarial"] = Field("float32", (size, *self.dataset.test.images.shape[1:]))
        return fields

    def place(self, stage: Stage) -> Folder:
        """Where a stage's units lie."""
        return self.folder / STORE / str(stage)

    def check_stores(self) -> None:
        """Raise UserError if the folder holds another evaluation; nothing is written."""
        for stage in self.plan.stages:
            if (store := RowStore.existing(self.place(stage))) is not None:
                store.check(self.fields(stage), self.identity(stage))

    # --- stages

    def begin(self, after: Stage | None = None) -> deque[Unit]:
        """Begin the stages that can: those on all images, or those that wait for `after`; the units that they lack."""
        stages = [s for s in self.plan.stages if s.before is None] if after is None else self.plan.after(after)
        units: deque[Unit] = deque()
        for stage in stages:
            units.extend(self._begin(stage))
        return units

    def _begin(self, stage: Stage) -> Sequence[Unit]:
        images = np.arange(len(self.dataset.test)) if stage.among == "all" else self.checked
        if stage.before is not None:
            stands = self.states[stage.before].robust
            images = images[stands[images]]
        units = cut(images, stage, self.settings.batch_size)
        store = RowStore.open(
            self.place(stage), fields=self.fields(stage), identity=self.identity(stage), num_rows=len(units)
        )
        robust = np.zeros(len(self.dataset.test), bool)
        state = _Progress(units, store, robust, set(range(len(units))), np.full(len(FOUND), np.nan))
        self.states[stage] = state
        status = store.status()
        for number in np.flatnonzero(status.complete[: len(units)]):
            self._take(stage, int(number), {name: store.read(name, np.array([number]))[0] for name in store.fields})
        if damaged := sorted(set(status.damaged) & state.missing):
            log.warning("%s: units %s damaged in the store: computing again", stage, ", ".join(map(str, damaged)))
        if not state.missing:
            return self.begin(stage)
        batch = min(self.settings.batch_size, max(len(unit) for unit in units))
        return [Unit(stage, n, tuple(units[n].tolist()), batch) for n in sorted(state.missing)]

    def _take(self, stage: Stage, number: int, row: dict[str, Any]) -> bool:
        """Note a finished unit; False if it is of other images than the unit has now."""
        state = self.states[stage]
        if stage.attack == PROBE:
            state.found = np.asarray(row["found"])
        else:
            images = state.units[number]
            listed = np.full(len(row["images"]), NO_IMAGE)
            listed[: len(images)] = images
            if not np.array_equal(listed, row["images"]):
                return False
            state.robust[images] = row["robust"][: len(images)]
        seconds, delta = row["spent"]
        state.seconds, state.max_delta = state.seconds + float(seconds), max(state.max_delta, float(delta))
        state.missing.discard(number)
        return True

    # --- work

    def work_off(self, queue: deque[Unit], resources: Resources) -> None:
        """Have all units done on Ray; a stage that is complete lets the next ones begin."""
        self._in_order(queue)
        args = [ray.put(self.dataset), ray.put(self.subject.network), self.attack, self.settings.keep_adversarial]
        done, failures, start = 0, 0, time.monotonic()
        with progress("thousand passes", total=self._thousands(queue), done=0) as tick:
            for outcome in run_units(
                queue,
                build_work,
                args,
                resources=resources,
                num_workers=self.settings.num_workers,
                give_up_on=(ValueError,),
                smaller=_halved,
            ):
                unit: Unit = outcome.unit
                state = self.states[unit.stage]
                if isinstance(outcome, Failed):
                    state.failed[unit.number] = outcome.reason
                    failures += 1
                    note_failure(self.folder, str(unit.stage), unit.number, outcome)
                else:
                    row = _padded(outcome.row, state.store.fields)
                    state.store.write(unit.number, row)
                    self._take(unit.stage, unit.number, row)
                    self.folder.remove(failure_name(str(unit.stage), unit.number))
                    if not state.missing:
                        self._say(unit.stage)
                        queue.extend(self.begin(unit.stage))
                        self._in_order(queue)
                before, done = done // THOUSAND, done + unit.passes
                tick(failures, by=done // THOUSAND - before, total=done // THOUSAND + self._thousands(queue))
        log.info("attacked in %.0f s", time.monotonic() - start)

    def _in_order(self, queue: deque[Unit]) -> None:
        """First what others wait for, and what takes long."""
        weights = {stage: self.plan.weight(stage) for stage in self.plan.stages}
        units = sorted(queue, key=lambda unit: -weights[unit.stage])
        queue.clear()
        queue.extend(units)

    def _thousands(self, queue: deque[Unit]) -> int:
        """What is still to be done at most: the queue, and what would come after if every image stood."""
        weights = {stage: self.plan.weight(stage) for stage in self.plan.stages}
        return sum(weights[unit.stage] * len(unit.images) for unit in queue) // THOUSAND

    def _say(self, stage: Stage) -> None:
        state = self.states[stage]
        if stage.attack != PROBE:
            met = sum(map(len, state.units))
            log.info("%s: %d of %d images stand, %.1f s of work", stage, state.robust.sum(), met, state.seconds)

    # --- the end

    def evaluation(self) -> Evaluation:
        """All rows.  Raises RunError if a unit failed."""
        failed = {f"{stage} {n}": reason for stage, s in self.states.items() for n, reason in s.failed.items()}
        if failed:
            unit, reason = next(iter(failed.items()))
            raise RunError(f"{len(failed)} units failed, {unit} with {reason}; the same command goes on")
        checks = [*self._checks(), *(self._square(stage) for stage in self.states if is_whole_autoattack(stage))]
        warnings = tuple(dict.fromkeys(check.name for check in checks if not check.passed))
        rows = tuple(self._row(name, stages, warnings) for name, stages in self.plan.rows.items())
        return Evaluation(rows, tuple(checks), len(self.checked) if self.settings.check_images else 0)

    def _row(self, name: str, stages: tuple[Stage, ...], warnings: tuple[str, ...]) -> Row:
        robust = np.all([self.states[stage].robust for stage in stages], axis=0)
        chain = [self.states[link] for link in dict.fromkeys(link for stage in stages for link in stage.chain)]
        return Row(name, robust, sum(s.seconds for s in chain), max(s.max_delta for s in chain), warnings)

    def _square(self, stage: Stage) -> Check:
        before = self.states[stage.chain[-2]]
        return square_check(float(before.robust.mean()), float(self.states[stage].robust.mean()))

    def _checks(self) -> tuple[Check, ...]:
        attacks = [stage for stage in self.states if stage.attack not in ("clean", PROBE)]
        delta = max((self.states[stage].max_delta for stage in attacks if "large" not in stage.attack), default=0.0)
        if not self.settings.check_images:
            return tuple(judge(None, {}, epsilon=self.attack.epsilon, max_delta=delta))
        of_checks = [stage for stage in self.plan.stages if stage.among == "checked"]
        right = self.checked[self.states[CLEAN_STAGE].robust[self.checked]]
        robust = {s.attack: self.states[s].robust[right] for s in of_checks if s.attack != PROBE}
        (found,) = (self.states[s].found for s in of_checks if s.attack == PROBE)
        named = dict(zip(FOUND, found.tolist(), strict=True))
        return tuple(judge(named, robust, epsilon=self.attack.epsilon, max_delta=delta))


def build_work(dataset: Dataset, network: torch.nn.Module, attack: Settings, keep_adversarial: bool) -> Work:
    """Runs once in each worker: the network on its device, and a function of the unit alone."""
    test, spec, device = dataset.test, dataset.spec, default_device()
    networks = prepare(network, test.images[:4], device)

    def work(unit: Unit) -> dict[str, Any]:
        start, at = time.perf_counter(), np.array(unit.images)
        x, y = networks.tensor(test.images[at]), torch.from_numpy(test.labels[at]).to(device)
        if unit.stage.attack == PROBE:
            found = probe(networks.model, x, y, mean=spec.mean, std=spec.std)
            return {"found": [found[name] for name in FOUND], "spent": [time.perf_counter() - start, 0.0]}
        ids, settings = torch.from_numpy(at).to(device), {"settings": attack, "batch_size": unit.batch_size}
        outcome = attack_images(networks, x, y, ids, attack=unit.stage.attack, seed=unit.stage.seed or 0, **settings)
        row = {"images": at, "robust": outcome.robust.cpu().numpy()}
        if keep_adversarial:
            row["adversarial"] = outcome.x_adv.permute(0, 2, 3, 1).cpu().numpy()
        row["spent"] = np.array([time.perf_counter() - start, largest_move(x, outcome)])
        return row

    return work


def _padded(row: dict[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """As the store wants it: the last unit of a stage may have fewer images than the others."""
    padded = {}
    for name, of in fields.items():
        padded[name] = np.full(of.shape, NO_IMAGE if name == "images" else 0, of.dtype)
        padded[name][: len(row[name])] = row[name]
    return padded


def _halved(unit: Unit) -> Unit:
    """Tried after a worker died in it."""
    return unit._replace(batch_size=max(1, unit.batch_size // 2))


def _resources(settings: EvaluateSettings) -> Resources:
    """What a worker occupies.  Raises UserError if the user's own machine can never hold one."""
    resources = Resources.of_worker(settings.cpus_per_worker, settings.gpus_per_worker)
    if settings.num_workers is None and not any(resources.fit_into(node["Resources"]) for node in ray.nodes()):
        raise UserError(
            f"no node holds a worker with {resources.cpus} CPUs and {resources.gpus:g} GPUs: there are "
            f"{describe_resources()}; lower cpus_per_worker or gpus_per_worker, or give num_workers to wait for larger "
            "nodes"
        )
    return resources
