"""Leave-out trials and ensembles on Ray: from settings to a filled row store."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ray

from bat_dist.config import UserError
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import make_loader
from bat_dist.memorization.subsets import subset_size
from bat_dist.orchestration.pool import Resources, Work
from bat_dist.orchestration.rows import Filled, fill_rows
from bat_dist.orchestration.session import describe_resources, ray_session
from bat_dist.orchestration.settings import MemorizeSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.training.loop import NonFiniteLoss
from bat_dist.training.precision import default_device
from bat_dist.training.trial import EnsembleSettings, TrialSettings, run_member, run_trial


def fill_trials(folder: Folder, dataset: Dataset, settings: MemorizeSettings) -> tuple[RowStore, Filled]:
    """Run the leave-out trials that `folder`/trials lacks."""
    subset_size(len(dataset.train.labels), settings.subset_ratio)  # raises before anything is written
    trial_settings = TrialSettings(
        arch=settings.arch,
        recipe=settings.training,
        precision=settings.precision,
        subset_ratio=settings.subset_ratio,
        mask_plan=settings.mask_plan,
        seed=settings.seed,
    )
    train, test = (len(dataset.train.labels),), (len(dataset.test.labels),)
    fields = {
        "mask": Field("bool", train),
        "train_correct": Field("bool", train),
        "test_correct": Field("bool", test),
        "metrics": Field("float64", (2,)),
    }
    store = _open(folder / "trials", dataset, trial_settings, fields, settings.num_trials)
    return store, _fill(store, folder, dataset, settings, settings.num_trials, run_trial, trial_settings, "trials")


def fill_ensemble(folder: Folder, dataset: Dataset, settings: MemorizeSettings) -> tuple[RowStore, Filled]:
    """Train the ensemble members (Appendix A.1) that `folder`/ensemble lacks."""
    member_settings = EnsembleSettings(
        archs=settings.ensemble_archs or default_ensemble(settings.arch),
        recipe=settings.training,
        precision=settings.precision,
        seed=settings.seed,
    )
    classes = len(dataset.class_names)
    fields = {
        "train_probabilities": Field("float32", (len(dataset.train.labels), classes)),
        "test_probabilities": Field("float32", (len(dataset.test.labels), classes)),
        "metrics": Field("float64", (2,)),
    }
    store = _open(folder / "ensemble", dataset, member_settings, fields, settings.num_members)
    return store, _fill(store, folder, dataset, settings, settings.num_members, run_member, member_settings, "members")


def default_ensemble(arch: str) -> tuple[str, ...]:
    """Three architectures around `arch`: different ones are asked for, and of about the same cost."""
    return tuple(
        dict.fromkeys(
            [arch, "resnet9-w16", "resnet20"] if arch != "tinynet" else ["tinynet", "resnet9-w8", "resnet9-w4"]
        )
    )


def build_work(
    dataset: Dataset,
    loader: str,
    function: Callable[..., dict[str, Any]],
    settings: TrialSettings | EnsembleSettings,
) -> Work:
    """Runs once in each worker: the loaders, and a function of the unit's number alone."""
    device = default_device()
    train_loader, test_loader = (
        make_loader(
            loader,
            getattr(dataset, split_name),
            crop_padding=dataset.spec.crop_padding,
            flip=dataset.spec.flip,
            fingerprint=dataset.fingerprint,
            split_name=split_name,
            device=device,
        )
        for split_name in ("train", "test")
    )

    def work(unit: int) -> dict[str, Any]:
        return function(
            unit,
            settings=settings,
            dataset=dataset,
            train_loader=train_loader,
            test_loader=test_loader,
            device=device,
        )

    return work


def _open(
    folder: Folder,
    dataset: Dataset,
    settings: TrialSettings | EnsembleSettings,
    fields: dict[str, Field],
    num_rows: int,
) -> RowStore:
    flat = dataclasses.asdict(settings)
    identity = {
        **flat,
        **flat.pop("recipe"),
        "dataset": dataset.name,
        "data_fingerprint": dataset.fingerprint,
    }
    del identity["recipe"]
    return RowStore.open(folder, fields=fields, identity=identity, num_rows=num_rows)


def _fill(
    store: RowStore,
    folder: Folder,
    dataset: Dataset,
    settings: MemorizeSettings,
    num_rows: int,
    function,
    unit_settings,
    what: str,
) -> Filled:
    status = store.status()
    if status.complete[:num_rows].all():
        return Filled(num_rows, 0, (), {}, 0.0)
    with ray_session(settings.ray_address):
        args = [ray.put(dataset), settings.loader, function, unit_settings]
        return fill_rows(
            store,
            folder,
            num_rows,
            status,
            build_work,
            args,
            what=what,
            resources=_resources(settings),
            num_workers=settings.num_workers,
            give_up_on=(NonFiniteLoss,),
        )


def _resources(settings: MemorizeSettings) -> Resources:
    """What a worker occupies.  Raises UserError if the user's own machine can never hold one."""
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    gpus = settings.gpus_per_trial if settings.gpus_per_trial is not None else float(has_gpus)
    resources = Resources(settings.cpus_per_trial, gpus)
    if settings.num_workers is None and not any(resources.fit_into(node["Resources"]) for node in ray.nodes()):
        raise UserError(
            f"no node holds a worker with {resources.cpus} CPUs and {resources.gpus:g} GPUs: "
            f"there are {describe_resources()}; "
            "lower cpus_per_trial or gpus_per_trial, or give num_workers to wait for larger nodes"
        )
    return resources
