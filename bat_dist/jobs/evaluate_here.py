"""An evaluation in this process, unit after unit; and what it has in common with one on Ray.  Imports no ray."""

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from bat_dist.attacks.batches import usual_batch_size
from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.evaluation.attack import Settings
from bat_dist.evaluation.ledger import EvaluationIdentity, Ledger, cut_for
from bat_dist.evaluation.plan import checks_of, make_plan
from bat_dist.evaluation.result import Evaluation
from bat_dist.evaluation.work import build_work
from bat_dist.jobs.attacked_network import AttackedNetwork
from bat_dist.jobs.fresh import remove_evaluation
from bat_dist.results.evaluation_file import ATTACKS, EVALUATION
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.storage.computed_on import HardwareLog
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings
from bat_dist.training.freed_memory import keep_freed_memory
from bat_dist.training.precision import computed_on, default_device

VERB = "evaluate"

log = logging.getLogger(__name__)


def with_earlier(folder: Folder, settings: EvaluateSettings) -> EvaluateSettings:
    """The settings, with what the folder's finished evaluation has and this call leaves out: results are added to.

    Raises UserError where both cannot stand in one result.
    """
    if settings.fresh or not folder.exists(EVALUATION):
        return settings
    before: Mapping[str, Any] = folder.read_json(EVALUATION).get("settings", {})
    attacks, seeds = before.get("attacks", ()), before.get("seeds", settings.seeds)
    lost = [name for name in attacks if name not in settings.attacks]
    if set(seeds) != set(settings.seeds) and (lost or not set(seeds) <= set(settings.seeds)):
        asked = f"--attacks {' '.join(dict.fromkeys([*attacks, *settings.attacks]))}"
        raise UserError(
            f"{folder} holds results of {' '.join(attacks)} with seeds {' '.join(map(str, seeds))}, which those of "
            f"other seeds would replace; for all in one: {asked} "
            f"--seeds {' '.join(map(str, sorted({*seeds, *settings.seeds})))}; else another --out, or --fresh"
        )
    changes: dict[str, Any] = {"attacks": (*settings.attacks, *lost)} if lost else {}
    changes |= {
        name: before[name] for name in ("check_images", "scores") if before.get(name) and not getattr(settings, name)
    }
    if changes:
        kept = lost + [f"{name} {changes[name]}" for name in changes if name != "attacks"]
        log.info("%s holds results of %s too, which stay", folder, ", ".join(kept))
    return dataclasses.replace(settings, **changes)


def evaluate_here(
    folder: Folder | None,
    dataset: Dataset,
    settings: EvaluateSettings,
    subject: AttackedNetwork,
    *,
    tell: Callable[[int], None] = lambda number: None,
) -> Evaluation:
    """Do as `evaluate.evaluate` in this process, unit after unit: so many networks can be evaluated at once.

    folder: None keeps nothing, and needs no zarr. tell: called after each unit with its number of images.
    """
    at_once, device = batch_size_of(settings, on_gpu=default_device().type == "cuda"), default_device()
    if folder and settings.fresh:
        remove_evaluation(folder)
    cut = (cut_for(folder) if folder else None) or at_once
    ledger = open_ledger(folder, dataset, settings, subject, cut)
    queue = deque(ledger.begin())
    if folder:
        note_settings(folder, VERB, dataclasses.replace(settings, fresh=False))
    if queue:
        keep_freed_memory()
        attack = attack_settings(dataset, settings)
        work = build_work(dataset, subject.network, attack, keep_adversarial=settings.keep_adversarial, device=device)
        if folder:
            HardwareLog(folder, ATTACKS).add([computed_on()])
        while queue:
            unit = queue.popleft().at_once(at_once)
            queue.extend(ledger.record(unit, work(unit)))
            tell(len(unit.images))
    return ledger.evaluation()


def attack_settings(dataset: Dataset, settings: EvaluateSettings) -> Settings:
    """What all attacks share; the dataset's numbers where the settings have none."""
    return Settings(
        epsilon=settings.epsilon or dataset.spec.epsilon,
        step_size=settings.step_size or dataset.spec.step_size,
        restarts=settings.restarts,
    )


def batch_size_of(settings: EvaluateSettings, *, on_gpu: bool) -> int:
    """How many images a worker attacks at once; what is left to us is said."""
    if settings.batch_size is not None:
        return settings.batch_size
    chosen = usual_batch_size(on_gpu=on_gpu)
    log.info("batch_size %d (for %s)", chosen, "GPUs" if on_gpu else "CPUs")
    return chosen


def open_ledger(
    folder: Folder | None, dataset: Dataset, settings: EvaluateSettings, subject: AttackedNetwork, cut: int
) -> Ledger:
    """The ledger of an evaluation.  cut: the batch size that units are cut for."""
    attack = attack_settings(dataset, settings)
    checks = checks_of(len(dataset.class_names)) if settings.check_images else ()
    plan = make_plan(settings.attacks, settings.seeds, checks=checks)
    identity = {"network": subject.digest, "dataset": dataset.name, "data_fingerprint": dataset.fingerprint}
    frame = EvaluationIdentity(
        identity=identity | vars(attack),
        epsilon=attack.epsilon,
        image_shape=dataset.test.images.shape[1:],
        num_images=len(dataset.test),
        batch_size=cut,
        num_checked=settings.check_images,
        keep_adversarial=settings.keep_adversarial,
    )
    return Ledger(folder, plan, frame)
