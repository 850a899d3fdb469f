"""Leave-out trials and ensembles on Ray: from settings to a filled row store."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray

from bat_dist.artifacts.scores import ENSEMBLE, TRIALS
from bat_dist.artifacts.trak import TRAK_FIELDS
from bat_dist.config import plain
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import check_cache, dataset_loader
from bat_dist.errors import UserError
from bat_dist.jobs.auto import Chosen, check_network, decide_precision, identity_in, say, without_auto
from bat_dist.jobs.ensemble_fields import ensemble_fields
from bat_dist.jobs.fill_rows import Filled, fill_rows
from bat_dist.jobs.fresh import remove_memorization
from bat_dist.jobs.own_parts import network_of
from bat_dist.jobs.until_enough import UntilEnough
from bat_dist.memorization.subsets import subset_size
from bat_dist.models.names import AUTO
from bat_dist.settings.fields import ARCH_OF_TRIALS
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.computed_on import hardware_name
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings
from bat_dist.storage.rows import Field, RowStore
from bat_dist.training.precision import check_tf32, default_device, this_hardware
from bat_dist.training.recipe import Precision
from bat_dist.training.step import NonFiniteLoss
from bat_dist.training.trial import EnsembleSettings, TrialSettings, run_member, run_trial
from bat_dist.workers.gpu_share import part_of_gpu
from bat_dist.workers.hardware import hardware_of_workers
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.metrics import CountedLoader
from bat_dist.workers.nodes import job_session
from bat_dist.workers.private_ray import wants_private
from bat_dist.workers.resources import worker_resources
from bat_dist.workers.share import HERE, ToldLoader
from bat_dist.workers.units import Row, Work

VERB = "memorize"
KEPT = ("train_probability", "test_probability")  # fields of --keep probability


def fill_trials(folder: Folder, dataset: Dataset, settings: MemorizeSettings) -> tuple[RowStore, Filled]:
    """Run the leave-out trials that `folder`/trials lacks.

    Raises UserError for settings that fit neither the data, the folder nor the cluster, before anything is written.
    """
    train, test = (len(dataset.train.labels),), (len(dataset.test.labels),)
    rule = settings.stopping_rule
    subset_size(*train, settings.subset_ratio)
    fields = {
        "mask": Field("bool", train),
        "train_correct": Field("bool", train),
        "train_predicted": Field("uint16", train, optional=True),
        "test_correct": Field("bool", test),
        "metrics": Field("float64", (2,)),
        **_probabilities(folder / TRIALS, settings, train, test),
    }
    settings, chosen = settled(folder / TRIALS, dataset, settings)
    return _fill(
        folder,
        dataset,
        settings,
        chosen,
        name=TRIALS,
        what="trials",
        function=run_trial,
        settings_of_rows=settings_of_trials(settings),
        rows=range(settings.first_trial, settings.first_trial + settings.most_trials),
        fields=fields,
        until=rule and UntilEnough(folder, rule, *train, settings.mask_plan),
    )


def settings_of_trials(settings: MemorizeSettings) -> Callable[..., TrialSettings]:
    """Makes the settings of all trials, of the precision that is given as `precision`.  settings: without auto."""
    return partial(
        TrialSettings,
        arch=settings.arch,
        recipe=settings.training,
        subset_ratio=settings.subset_ratio,
        mask_plan=settings.mask_plan,
        seed=settings.seed,
    )


def _probabilities(place: Folder, settings: MemorizeSettings, train: tuple[int], test: tuple[int]) -> dict[str, Field]:
    """The fields of `keep`, if it is asked for, or if the trials in `place` were begun with it.

    Raises UserError if they were begun without it, since a finished trial's network is gone.
    """
    fields = {name: Field("float16", shape) for name, shape in zip(KEPT, (train, test), strict=True)}
    store = None if settings.fresh else RowStore.existing(place)
    if store is None or not store.is_begun():
        return fields if settings.keep else {}
    if fields.keys() <= store.fields.keys():
        return fields
    if settings.keep:
        raise UserError(
            f"{place} holds trials without probabilities, which finished trials cannot be given later: leave keep out, "
            "or begin anew in another --out, or here with --fresh"
        )
    return {}


def fill_ensemble(folder: Folder, dataset: Dataset, settings: MemorizeSettings) -> tuple[RowStore, Filled]:
    """Train the ensemble members (Appendix A.1) that `folder`/ensemble lacks.  Raises as `fill_trials`."""
    fields = ensemble_fields(folder / ENSEMBLE, settings, dataset)
    settings, chosen = settled(folder / ENSEMBLE, dataset, settings)
    return _fill(
        folder,
        dataset,
        settings,
        chosen,
        name=ENSEMBLE,
        what="members",
        function=partial(run_member, with_gradients=TRAK_FIELDS[0] in fields),
        settings_of_rows=settings_of_members(dataset, settings),
        rows=range(settings.num_members),
        fields=fields,
    )


def settings_of_members(dataset: Dataset, settings: MemorizeSettings) -> Callable[..., EnsembleSettings]:
    """As `settings_of_trials`, of ensemble members.  Raises UserError for a network that the images do not fit."""
    # Different architectures are asked for, by default of about the same cost.
    others = ("resnet9-w8", "resnet9-w4") if settings.arch == "tinynet" else ("resnet9-w16", "resnet20")
    archs = tuple(map(network_of, settings.ensemble_archs or dict.fromkeys([settings.arch, *others])))
    for arch in archs:
        check_network(arch, dataset)
    return partial(EnsembleSettings, archs=archs, recipe=settings.training, seed=settings.seed)


def settled(place: Folder, dataset: Dataset, settings: MemorizeSettings) -> tuple[MemorizeSettings, Chosen]:
    """The settings without auto, as far as the rows in `place` and the data tell; and what was chosen."""
    return without_auto(settings, lambda: identity_in(RowStore.existing(place)), dataset, ARCH_OF_TRIALS)


def as_carried_out(folder: Folder, dataset: Dataset, settings: MemorizeSettings) -> MemorizeSettings:
    """The settings of rows that are there, as results tell of them."""
    name = TRIALS if settings.score == "leave_out" else ENSEMBLE
    return settled(folder / name, dataset, dataclasses.replace(settings, fresh=False))[0]


def build_work(
    dataset: Dataset,
    loader: str,
    function: Callable[..., Row],
    settings: TrialSettings | EnsembleSettings,
    what: str,
) -> Work:
    """The function of a unit's number; called once in each worker, which then has its loaders.

    Raises UserError in a worker that has not the precision that was asked for.
    """
    device = default_device()
    if settings.precision == "tf32":  # a worker that joins late has not been asked
        check_tf32([this_hardware()])
    train_loader, test_loader = (
        CountedLoader(dataset_loader(loader, dataset, name, device=device, gpu_share=part_of_gpu()), what)
        for name in ("train", "test")
    )
    train_loader = ToldLoader(train_loader, HERE.add, settings.recipe.epochs)

    def work(unit: int) -> Row:
        return function(
            unit,
            settings=settings,
            dataset=dataset,
            train_loader=train_loader,
            test_loader=test_loader,
            device=device,
        )

    return work


def _fill(
    folder: Folder,
    dataset: Dataset,
    settings: MemorizeSettings,
    chosen: Chosen,
    *,
    name: str,
    what: str,
    function: Callable[..., Row],
    settings_of_rows: Callable[..., TrialSettings | EnsembleSettings],
    rows: range,
    fields: dict[str, Field],
    until: UntilEnough | None = None,
) -> tuple[RowStore, Filled]:
    """Fill `folder`/name with rows: `function(number, settings=..., ...)` for each of `rows`; if merged, none is added.

    what: the rows are called.  settings_of_rows: makes their settings of the precision, which the workers decide.
    """
    place = folder / name

    def opened(precision: Precision, chosen: Chosen) -> RowStore:
        identity = identity_of_rows(settings_of_rows(precision=precision), dataset)
        return RowStore.open(place, fields=fields, identity=identity, num_rows=rows.stop, about={"chosen": chosen})

    if settings.precision != AUTO and not settings.fresh and identity_in(RowStore.existing(place)):
        store = opened(settings.precision, chosen)
        there = store.status().complete[rows.start : rows.stop]
        if settings.merge or (until.begin(store).is_over if until else there.all()):
            note_settings(folder, VERB, dataclasses.replace(settings, merge=None))
            return store, Filled(int(there.sum()), 0, (), {}, 0.0, until and until.trials)
    if wants_private(settings.ray_address):
        on_gpu = settings.gpus_per_trial != 0 and default_device().type == "cuda"
        check_cache(settings.loader, dataset, ("train", "test"), on_gpu=on_gpu)
    heart = Heartbeat(folder, what, total=len(rows), first=rows.start)
    with heart, job_session(settings, folder, all_write=False) as terms:
        asked = settings.cpus_per_trial, settings.gpus_per_trial
        resources = worker_resources(*asked, of="trial", wait_minutes=terms.wait_minutes)
        precision, why = decide_precision(settings.precision, partial(hardware_of_workers, resources))
        say(chosen := chosen | why)
        if settings.fresh:
            remove_memorization(folder)
        if not (store := opened(precision, chosen)).is_begun():
            folder.remove_files([f"failed/{what}-*.json", hardware_name(what)])  # of another store that it has replaced
        note_settings(folder, VERB, dataclasses.replace(settings, precision=precision, fresh=False))
        filled = fill_rows(
            store,
            folder,
            len(rows),
            build_work,
            [ray.put(dataset), settings.loader, function, settings_of_rows(precision=precision), what],
            what=what,
            resources=resources,
            num_workers=settings.num_workers,
            give_up_on=(NonFiniteLoss,),
            heart=heart,
            terms=terms,
            first=rows.start,
            until=until and until.begin(store),
        )
    return store, filled


def identity_of_rows(settings: TrialSettings | EnsembleSettings, dataset: Dataset) -> Mapping[str, Any]:
    """All that a row depends on, flat: rows of another identity are another experiment's."""
    flat = {name: plain(value) for name, value in vars(settings).items() if name != "recipe"}
    data = {"dataset": dataset.name, "data_fingerprint": dataset.fingerprint, **dataset.spec.own_augmentation}
    return {**flat, **settings.recipe.facts, **data}
