"""An evaluation on Ray: the ledger's units, done by workers, those first that others wait for."""

import dataclasses
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import ray
from torch import nn

from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.attack import Settings
from bat_dist.evaluation.ledger import Ledger, cut_for
from bat_dist.evaluation.plan import Unit
from bat_dist.evaluation.result import Evaluation
from bat_dist.evaluation.work import build_work
from bat_dist.jobs.attacked_network import AttackedNetwork
from bat_dist.jobs.evaluate_here import VERB, attack_settings, batch_size_of, open_ledger
from bat_dist.jobs.fill_rows import note_outcome
from bat_dist.jobs.fresh import remove_evaluation
from bat_dist.results.evaluation_file import ATTACKS
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.storage.computed_on import HardwareLog
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings
from bat_dist.training.precision import default_device
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.metrics import IMAGES
from bat_dist.workers.nodes import job_session
from bat_dist.workers.pace import progress
from bat_dist.workers.pool import run_units
from bat_dist.workers.resources import Resources, worker_resources
from bat_dist.workers.terms import ClusterTerms
from bat_dist.workers.units import Failed, Row, Work

_THOUSAND = 1000
PASSES = "thousand passes"  # of an image through the network, which is what the attacks cost

log = logging.getLogger(__name__)


def evaluate(folder: Folder, dataset: Dataset, settings: EvaluateSettings, subject: AttackedNetwork) -> Evaluation:
    """Attack what the folder lacks, on Ray, and put all together by image.

    Units stay as the folder has them; those of a new one are cut for the workers' devices, if batch_size says nothing.
    Raises UserError if the folder holds an evaluation of something else, RunError if a unit failed.
    """

    def begin(cut: int) -> tuple[Ledger, list[Unit]]:
        ledger = open_ledger(folder, dataset, settings, subject, cut)
        units = ledger.begin()
        note_settings(folder, VERB, dataclasses.replace(settings, fresh=False))
        return ledger, units

    cut = None if settings.fresh else cut_for(folder) or settings.batch_size
    begun = begin(cut) if cut else None
    if begun and not begun[1]:
        return begun[0].evaluation()
    heart = Heartbeat(folder, PASSES, total=0)
    with heart, job_session(settings, folder, all_write=False) as terms:
        asked = settings.cpus_per_worker, settings.gpus_per_worker
        resources = worker_resources(*asked, of="worker", wait_minutes=terms.wait_minutes)
        at_once = batch_size_of(settings, on_gpu=resources.gpus > 0)
        if settings.fresh:  # only now: nothing is removed for a cluster that does not answer
            remove_evaluation(folder)
        ledger, units = begun or begin(at_once)
        args = [
            ray.put(dataset),
            ray.put(subject.network),
            attack_settings(dataset, settings),
            settings.keep_adversarial,
        ]
        _work_off(ledger, units, args, settings, terms, resources, at_once, heart)
    return ledger.evaluation()


def _work_off(
    ledger: Ledger,
    units: list[Unit],
    args: Sequence[Any],
    settings: EvaluateSettings,
    terms: ClusterTerms,
    resources: Resources,
    at_once: int,
    heart: Heartbeat,
) -> None:
    """Have all units done, and those that come up on the way.  at_once: how many images a worker attacks at a time."""
    weights = {stage: ledger.plan.weight(stage) for stage in ledger.plan.stages}
    queue: deque[Unit] = deque()

    def add(units: list[Unit]) -> None:
        """Put first what others wait for, and what takes long."""
        units = [*queue, *(unit.at_once(at_once) for unit in units)]
        units = sorted(units, key=lambda unit: -weights[unit.stage])
        queue.clear()
        queue.extend(units)

    def left() -> int:
        """At most so many passes: as if every image stood to the end."""
        return sum(weights[unit.stage] * len(unit.images) for unit in queue)

    add(units)
    done, failed = 0, 0
    folder = ledger.folder
    assert folder is not None  # what workers have done is kept
    hardware = HardwareLog(folder, ATTACKS)
    pace = heart.begin(done=0, total=left() // _THOUSAND)
    with progress(pace):
        outcomes = run_units(
            queue,
            build,
            args,
            resources=resources,
            what=ATTACKS,
            num_workers=settings.num_workers,
            give_up_on=(ValueError,),
            smaller=lambda unit: unit._replace(batch_size=max(1, unit.batch_size // 2)),
            terms=terms,
            watch=pace.watch,
        )
        for outcome in outcomes:
            unit: Unit = outcome.unit
            if isinstance(outcome, Failed):
                failed += 1
                ledger.give_up(unit, outcome.reason)
            else:
                hardware.note(outcome.records)
                add(ledger.record(unit, outcome.row))
            note_outcome(folder, str(unit.stage), unit.number, outcome)
            before, done = done, done + unit.passes
            by = done // _THOUSAND - before // _THOUSAND
            pace.step(failed=failed, by=by, total=(done + left()) // _THOUSAND)


def build(dataset: Dataset, network: nn.Module, settings: Settings, keep_adversarial: bool) -> Work:
    """The function of a unit; called once in each worker."""
    work = build_work(dataset, network, settings, keep_adversarial=keep_adversarial, device=default_device())

    def counted(unit: Unit) -> Row:
        row = work(unit)
        IMAGES.tell(len(unit.images), what=ATTACKS)
        return row

    return counted
