"""A training run: learns, resumes to the last bit, keeps the best, stops before a loss that is not finite."""

import contextlib
import csv
import dataclasses
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bat_dist.artifacts.checkpoints import load_checkpoint, load_tensors
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import Loader, dataset_loader
from bat_dist.errors import UserError
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.table import METHODS, build_method
from bat_dist.storage.files import Folder
from bat_dist.training import files, run
from bat_dist.training.awp import perturbation, perturbed
from bat_dist.training.epoch import NonFiniteBatch, StepSettings, train_epoch
from bat_dist.training.progress import Progress, WarmedAverage
from bat_dist.training.recipe import Recipe
from bat_dist.training.run import Record, TrainingData, TrainingSettings
from bat_dist.training.seeding import seeded_model
from bat_dist.training.sgd import Sgd
from bat_dist.training.splits import hold_out
from bat_dist.training.step import batch_sizes
from bat_dist.training.world import THIS_PROCESS, World

CPU = torch.device("cpu")
ATTACK = TrainingAttack(epsilon=16 / 255, step_size=4 / 255, num_steps=3)
RECIPE = Recipe(epochs=4, batch_size=32, lr=0.05, schedule="multistep", milestones=(0.5,))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_train=300, num_test=10)


@pytest.fixture(scope="module")
def loader(digits: Dataset) -> Loader:
    return dataset_loader("memory", digits, "train")


@pytest.fixture(scope="module")
def material(digits: Dataset, loader: Loader) -> TrainingData:
    mem = np.random.default_rng(0).random(300) * 0.4
    subsets = {"typical": mem < 0.1, "atypical": mem > 0.15, "none": mem > 1}
    return TrainingData(digits, loader, hold_out(digits.train.labels, 60, seed=0), mem, subsets)


def settings(method: str = "pgd_at", *, recipe: Recipe = RECIPE, **changes: Any) -> TrainingSettings:
    hyper, step = changes.pop("hyper", {}), {k: changes.pop(k) for k in ("awp", "clip_norm") if k in changes}
    steps = StepSettings(build_method(method, hyper), ATTACK, "fp32", **step)
    return TrainingSettings("tinynet", recipe, steps, ATTACK, "val_pgd", seed=1, **changes)


def record(out: Path, **identity: Any) -> Record:
    return Record(Folder(out), {"seed": 1} | identity, {"method": "pgd_at"})


def trained(out: Path, chosen: TrainingSettings, material: TrainingData) -> dict[str, torch.Tensor]:
    run.begin(record(out))
    history = run.train(chosen, material, record(out), device=CPU)
    run.finish(record(out), chosen, history)
    return load_checkpoint(str(out), "last").model.state_dict()


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    """What ends a process between any two instructions."""


class KillAfter:
    """A tracker that ends the process in its n-th epoch, before that epoch is saved."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def log(self, epoch: int, values: Any) -> None:
        self.left -= 1
        if not self.left:
            raise Killed

    def close(self) -> None: ...


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_as_an_undisturbed_one_to_the_last_bit(
    method: str, tmp_path: Path, material: TrainingData
) -> None:
    chosen = settings(method, ema=0.9, clip_norm=1.0, hyper={"num_negatives": 3} if method == "bat" else {})
    undisturbed = trained(tmp_path / "undisturbed", chosen, material)
    for epochs in (2, 2):  # killed in the second epoch, and again in the third
        with pytest.raises(Killed):
            run.train(
                chosen,
                material,
                record(tmp_path / "killed"),
                device=CPU,
                open_trackers=lambda first, epochs=epochs: [KillAfter(epochs)],
            )
        torch.manual_seed(99)  # a new process knows nothing of the old one's generators
        torch.rand(7)
    assert_equal(undisturbed, trained(tmp_path / "killed", chosen, material))
    rows = [
        [
            {k: v for k, v in row.items() if "seconds" not in k}
            for row in csv.DictReader(io.StringIO((tmp_path / name / "history.csv").read_text()))
        ]
        for name in ("undisturbed", "killed")
    ]
    assert rows[0] == rows[1]
    assert [int(row["epoch"]) for row in rows[0]] == [1, 2, 3, 4]


class Noting:
    """A loader that notes the orders of its epochs."""

    def __init__(self, loader: Loader) -> None:
        self.eval_epoch, self._loader, self.orders = loader.eval_epoch, loader, []

    def train_epoch(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        batches = list(self._loader.train_epoch(*args, **kwargs))
        self.orders.append(tuple(torch.cat([batch.indices for batch in batches]).tolist()))
        return iter(batches)


def test_every_epoch_has_all_samples_in_an_order_of_its_own(tmp_path: Path, material: TrainingData) -> None:
    noting: Any = Noting(material.loader)
    trained(tmp_path, settings("erm"), dataclasses.replace(material, loader=noting))
    assert len(set(noting.orders)) == len(noting.orders) == 4
    assert {tuple(sorted(order)) for order in noting.orders} == {tuple(material.held.train)}


class Marking(World):
    """Ranks whose running statistics come to 7."""

    def average_buffers(self, network: nn.Module) -> None:
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.fill_(7)


def test_what_is_kept_of_an_epoch_has_the_statistics_of_all_ranks(tmp_path: Path, material: TrainingData) -> None:
    run.train(settings("erm"), material, record(tmp_path), device=CPU, world=Marking())
    kept = dict(load_checkpoint(str(tmp_path), "last").model.named_buffers())
    assert {name: buffer.unique().tolist() for name, buffer in kept.items() if "running" in name} == {
        name: [7.0] for name in kept if "running" in name
    }


def test_killed_in_the_middle_of_an_epoch_or_of_a_save(
    tmp_path: Path, material: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = trained(tmp_path / "undisturbed", settings(), material)
    out = tmp_path / "killed"
    for place in (run, "save_tensors"), (run, "save_model"), (Sgd, "step"):
        calls = [0]
        real = getattr(*place)

        def dying(*args: Any, real: Any = real, calls: list[int] = calls, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == 2:
                raise Killed
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(*place, dying)
            with pytest.raises(Killed):
                run.train(settings(), material, record(out), device=CPU)
    assert_equal(undisturbed, trained(out, settings(), material))


def test_killed_before_any_file_of_an_epoch_the_best_and_the_last_are_kept(
    tmp_path: Path, material: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=2)
    chosen = dataclasses.replace(settings("erm", recipe=recipe), best_by="val_clean")
    undisturbed, whole = tmp_path / "undisturbed", trained(tmp_path / "undisturbed", chosen, material)
    best = load_checkpoint(str(undisturbed), "best")
    assert best.facts["epoch"] == 2
    names = {"save_model": run.save_model, "save_tensors": run.save_tensors}
    for victim in (3, 4, 5):  # of each epoch the best, the last, the state
        out, calls = tmp_path / str(victim), iter(range(6))
        for name, real in names.items():

            def dying(*args: Any, real: Any = real, calls: Any = calls, victim: int = victim) -> None:
                if next(calls, None) == victim:
                    raise Killed
                real(*args)

            monkeypatch.setattr(run, name, dying)
        with contextlib.suppress(Killed):
            run.train(chosen, material, record(out), device=CPU)
        monkeypatch.undo()
        assert_equal(whole, trained(out, chosen, material))
        kept = load_checkpoint(str(out), "best")
        assert kept.facts == best.facts
        assert_equal(best.model.state_dict(), kept.model.state_dict())


def test_bat_without_its_parts_is_pgd_at_to_the_last_bit(tmp_path: Path, material: TrainingData) -> None:
    plain = trained(tmp_path / "pgd", settings("pgd_at"), material)
    nothing = {"alpha": 0.0, "beta": 0.0}
    assert_equal(plain, trained(tmp_path / "bat", settings("bat", hyper=nothing), material))
    assert differ(plain, trained(tmp_path / "alpha", settings("bat", hyper={"alpha": 1.0, "beta": 0.0}), material))
    assert differ(plain, trained(tmp_path / "beta", settings("bat", hyper={"alpha": 0.0, "beta": 0.2}), material))


def test_gairat_is_pgd_at_before_it_begins(tmp_path: Path, material: TrainingData) -> None:
    plain = trained(tmp_path / "pgd", settings("pgd_at"), material)
    assert_equal(plain, trained(tmp_path / "never", settings("gairat", hyper={"begin": 1.0}), material))
    assert differ(plain, trained(tmp_path / "half", settings("gairat"), material))
    half = dataclasses.replace(RECIPE, epochs=2, milestones=())
    early = settings("gairat", recipe=half, hyper={"begin": 1.0})
    assert_equal(trained(tmp_path / "a", early, material), trained(tmp_path / "b", settings(recipe=half), material))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(method: str, tmp_path: Path) -> None:
    """On all of the digits; chance is 10%."""
    digits = load_dataset("digits", num_test=10)
    loader = dataset_loader("memory", digits, "train")
    mem = np.random.default_rng(0).random(len(digits.train)) * 0.4
    material = TrainingData(digits, loader, hold_out(digits.train.labels, 100, seed=0), mem)
    recipe = Recipe(epochs=12, batch_size=32, lr=0.1, schedule="one_cycle", nesterov=True)
    chosen = settings(method, recipe=recipe)
    run.begin(record(tmp_path))
    last = run.train(chosen, material, record(tmp_path), device=CPU)[-1]
    assert last["val_clean"] is not None
    assert last["val_pgd"] is not None
    assert last["val_clean"] > 0.6
    assert last["val_pgd"] < last["val_clean"]
    if method != "erm":
        assert last["val_pgd"] > 0.25


def test_the_best_checkpoint_is_that_of_the_best_epoch(tmp_path: Path, material: TrainingData) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=8, lr=0.2)
    chosen = settings(recipe=recipe)
    trained(tmp_path, chosen, material)
    rows = files.read_history(Folder(tmp_path))
    values = [value for row in rows if (value := row["val_pgd"]) is not None]
    assert len(values) == len(rows)
    best = load_checkpoint(str(tmp_path), "best")
    assert best.facts["val_pgd"] == max(values)
    assert best.facts["epoch"] == 1 + values.index(max(values))  # of equal ones the first
    assert best.spec.class_names == material.dataset.class_names
    # The file holds the weights of that epoch: judged again, they have its accuracy.
    clean, attacked = run.clean_and_pgd_correct(
        best.model,
        material.loader,
        material.held.validation,
        attack=ATTACK,
        precision="fp32",
        seed=run.seed_of(1, run._VALIDATION),
        world=run.THIS_PROCESS,
    )
    assert attacked is not None
    assert (clean.mean(), attacked.mean()) == (best.facts["val_clean"], best.facts["val_pgd"])


def test_of_equally_good_epochs_the_first_is_the_best() -> None:
    assert files.best_epoch([{"val_pgd": value} for value in (0.1, 0.3, 0.2, 0.3)], "val_pgd") == 2


def test_validation_by_subset_and_an_empty_one(tmp_path: Path, material: TrainingData) -> None:
    trained(tmp_path, settings(), material)
    row = files.read_history(Folder(tmp_path))[-1]
    assert row["val_clean_none"] is None
    held = material.held.validation
    members = {name: material.subsets[name][held] for name in ("typical", "atypical")}
    for name, chosen in members.items():  # a count out of as many samples as are in the subset
        assert (row[f"val_pgd_{name}"] * chosen.sum()) % 1 == pytest.approx(0, abs=1e-9)
    inside = sum(row[f"val_clean_{name}"] * chosen.sum() for name, chosen in members.items())
    assert row["val_clean"] is not None
    assert inside <= row["val_clean"] * len(held) + 1e-9


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path, material: TrainingData) -> None:
    wild = dataclasses.replace(RECIPE, lr=1e18, milestones=())
    with pytest.raises(NonFiniteBatch, match=r"epoch 1, batch \d of 8, at learning rate 1e\+18: try a lower lr"):
        run.train(settings(recipe=wild), material, record(tmp_path), device=CPU)
    told = json.loads((tmp_path / files.NON_FINITE).read_text())
    assert 2 <= len(told["indices"]) <= 32
    assert set(told["indices"]) <= set(material.held.train.tolist())
    assert told["ids"] == material.dataset.train.ids[told["indices"]].tolist()
    assert not (tmp_path / files.STATE).exists()


def test_neither_that_update_is_made_nor_a_later_one(material: TrainingData) -> None:
    """The third of eight losses is not finite: weights and momentum stay as they were, and its batch is named."""
    network = seeded_model("tinynet", material.dataset, CPU, key=(0,))
    progress = Progress(network, RECIPE)
    batches: list[torch.Tensor] = []
    before: dict[str, torch.Tensor] = {}

    class Breaks:
        def loss(self, batch: Any) -> torch.Tensor:
            batches.append(batch.labels)
            if len(batches) == 3:
                before.update({name: tensor.clone() for name, tensor in weights_and_momentum(progress).items()})
            return batch.forward(batch.images).square().mean() * (float("nan") if len(batches) == 3 else 1)

    step = dataclasses.replace(settings().step, method=Breaks())  # pyright: ignore[reportArgumentType]
    with pytest.raises(NonFiniteBatch, match="loss nan in epoch 1, batch 3 of 8") as caught:
        train_epoch(
            progress,
            network,
            material.loader,
            material.held.train,
            recipe=RECIPE,
            settings=step,
            mem=None,
            seed=0,
            world=THIS_PROCESS,
        )
    assert len(batches) == 8
    after = weights_and_momentum(progress)
    assert len(after) == len(before) > 2
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert material.dataset.train.labels[caught.value.indices].tolist() == batches[2].tolist()


def weights_and_momentum(progress: Progress) -> dict[str, torch.Tensor]:
    found = progress.tensors()
    return {name: found[name] for name in found if "running" not in name and "num_batches" not in name}


def test_a_folder_of_another_run_is_refused_by_name(tmp_path: Path) -> None:
    run.begin(record(tmp_path, alpha=1.0))
    (tmp_path / files.STATE).touch()  # an epoch is finished
    run.check_identity(record(tmp_path, alpha=1.0))
    with pytest.raises(UserError, match=r"alpha: 1\.0 in the store, 2\.0 now"):
        run.check_identity(record(tmp_path, alpha=2.0))


ONE_EPOCH: list[Any] = [{"epoch": 1, "val_pgd": 0.5, "train_seconds": 1.0, "validation_seconds": 1.0}]


def test_a_run_whose_network_is_not_there_is_not_finished(tmp_path: Path) -> None:
    """Rank 0, on another machine, has written it to a disk of its own."""
    run.begin(record(tmp_path))
    with pytest.raises(UserError, match=r"last\.safetensors is not there, .* sees another folder of that name"):
        run.finish(record(tmp_path), settings(), ONE_EPOCH)
    assert files.finished(Folder(tmp_path)) is None
    assert [path.name for path in tmp_path.iterdir()] == [files.RUN]


def test_what_a_version_with_other_noise_has_finished_is_kept_and_what_it_has_begun_is_refused(tmp_path: Path) -> None:
    now = record(tmp_path, **run.NOISE)
    run.begin(record(tmp_path))
    (tmp_path / files.STATE).touch()
    with pytest.raises(UserError, match="holds a run that an earlier version began, whose attacks started elsewhere"):
        run.check_identity(now)
    (tmp_path / files.LAST).touch()
    run.finish(record(tmp_path), settings(), ONE_EPOCH)
    run.check_identity(now)
    with pytest.raises(UserError, match=r"seed: 1 in the store, 2 now"):
        run.check_identity(record(tmp_path, **run.NOISE, seed=2))


def test_a_run_of_other_settings_that_finished_no_epoch_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.begin(record(tmp_path, alpha=1.0), threads=4)
    (tmp_path / "last.safetensors").touch()
    (tmp_path / "of_the_users_own.txt").touch()
    run.check_identity(record(tmp_path, alpha=2.0))
    with caplog.at_level(logging.INFO, "bat_dist"):
        assert run.begin(record(tmp_path, alpha=2.0), threads=2).threads == 2
    assert "not one epoch is finished: it is replaced" in caplog.text
    assert json.loads((tmp_path / files.RUN).read_text())["identity"]["alpha"] == 2.0
    assert {path.name for path in tmp_path.iterdir()} == {files.RUN, "of_the_users_own.txt"}


def test_a_run_goes_on_with_what_was_written_when_it_began(tmp_path: Path) -> None:
    first = run.begin(record(tmp_path), threads=4, chosen={"arch": "tinynet (for 8x8 images)"})
    (tmp_path / files.STATE).touch()
    again = run.begin(record(tmp_path), threads=2)
    assert (again.threads, again.chosen, again.begun) == (4, first.chosen, first.begun)


def test_a_run_lists_the_numbers_of_workers_that_it_has_had(tmp_path: Path) -> None:
    assert run.begin(record(tmp_path), workers=8).workers == [8]
    assert run.begin(record(tmp_path), workers=4).workers == [4]  # no epoch was finished by eight
    (tmp_path / files.STATE).touch()
    for workers, listed in ((4, [4]), (2, [4, 2]), (2, [4, 2]), (4, [4, 2, 4])):
        assert run.begin(record(tmp_path), workers=workers).workers == listed


@pytest.mark.parametrize(
    ("had", "sync_bn", "number"), [([4], False, 4), ([4, 2], False, 2), ([4], True, 1), (None, False, 1)]
)
def test_a_run_of_an_older_version_goes_on_with_its_number_of_workers_alone(
    tmp_path: Path, had: list[int] | None, sync_bn: bool, number: int
) -> None:
    """Those versions did not count it among what decides a result."""
    run.begin(record(tmp_path, sync_bn=sync_bn), workers=1)
    (tmp_path / files.STATE).touch()
    old = json.loads((tmp_path / files.RUN).read_text())
    assert "num_workers" not in old["identity"]
    old |= {"workers": had} if had else {}
    (tmp_path / files.RUN).write_text(json.dumps(old if had else {k: v for k, v in old.items() if k != "workers"}))
    with pytest.raises(UserError, match=f"num_workers: {number} in the store, 8 now"):
        run.check_identity(record(tmp_path, sync_bn=sync_bn, num_workers=8))
    now = record(tmp_path, sync_bn=sync_bn, num_workers=number)
    run.check_identity(now)
    run.begin(now, workers=number)
    assert (tmp_path / files.STATE).exists()  # nothing was removed


def test_a_run_of_an_older_version_goes_on_with_the_threads_that_are_asked_for(tmp_path: Path) -> None:
    run.begin(record(tmp_path))
    (tmp_path / files.STATE).touch()
    old = json.loads((tmp_path / files.RUN).read_text())
    del old["threads"]
    (tmp_path / files.RUN).write_text(json.dumps(old))
    assert run.begin(record(tmp_path), threads=3).threads == 3


def test_run_json_says_what_all_ranks_computed_on_over_all_resumes(
    tmp_path: Path, material: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(*gpus: str, killed_in: int) -> None:
        run.begin(record(tmp_path))
        ranks = [{"cpu": "a processor", "threads": 1, "gpu": gpu} for gpu in gpus]
        monkeypatch.setattr(run, "computed_on", lambda: ranks[0])
        monkeypatch.setattr(World, "concatenate", lambda world, first: [first, *ranks[1:]])
        with contextlib.suppress(Killed):
            trackers = [KillAfter(killed_in)]
            run.train(settings(), material, record(tmp_path), device=CPU, open_trackers=lambda first: trackers)

    attempt("A100", "A100", killed_in=2)
    attempt("T4", "A100", killed_in=3)
    attempt("H100", killed_in=9)
    attempt("nobody's", killed_in=9)  # nothing was left to do
    assert [one["gpu"] for one in files.read_run(Folder(tmp_path)).computed_on] == ["A100", "T4", "H100"]


def test_a_run_of_an_older_version_does_not_say_what_it_was_computed_on(tmp_path: Path) -> None:
    run.begin(record(tmp_path))
    old = json.loads((tmp_path / files.RUN).read_text())
    del old["computed_on"]
    (tmp_path / files.RUN).write_text(json.dumps(old))
    assert files.read_run(Folder(tmp_path)).computed_on == ()


def test_a_damaged_state_is_refused(tmp_path: Path, material: TrainingData) -> None:
    with pytest.raises(Killed):
        run.train(settings(), material, record(tmp_path), device=CPU, open_trackers=lambda first: [KillAfter(2)])
    state = tmp_path / files.STATE
    whole = state.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:], b""):
        state.write_bytes(damaged)
        with pytest.raises(UserError, match=r"state\.safetensors"):
            run.train(settings(), material, record(tmp_path), device=CPU)


def test_the_state_of_another_network_is_refused(tmp_path: Path, material: TrainingData) -> None:
    with pytest.raises(Killed):
        run.train(settings(), material, record(tmp_path), device=CPU, open_trackers=lambda first: [KillAfter(2)])
    other = dataclasses.replace(settings(), arch="resnet9-w4")
    with pytest.raises(UserError, match="not the state of this run"):
        run.train(other, material, record(tmp_path), device=CPU)


def test_a_state_without_the_file_that_tells_whose_it_is_is_refused_by_another_run(
    tmp_path: Path, material: TrainingData
) -> None:
    """As after `run.json` was damaged and removed."""
    run.begin(record(tmp_path))
    with pytest.raises(Killed):
        run.train(settings(), material, record(tmp_path), device=CPU, open_trackers=lambda first: [KillAfter(2)])
    (tmp_path / files.RUN).unlink()
    with pytest.raises(UserError, match=r"(?s)another run.*lr: absent in the store, 0\.2 now"):
        run.train(settings(), material, record(tmp_path, lr=0.2), device=CPU)
    assert len(run.train(settings(), material, record(tmp_path), device=CPU)) == RECIPE.epochs


def test_no_pickle_is_written(tmp_path: Path, material: TrainingData) -> None:
    with pytest.raises(Killed):
        run.train(settings(ema=0.5), material, record(tmp_path), device=CPU, open_trackers=lambda _: [KillAfter(2)])
    tensors, about = load_tensors(Folder(tmp_path), files.STATE)
    assert len(about["history"]) == 1
    assert any(name.startswith("momentum.") for name in tensors)
    assert any(name.startswith("average.") for name in tensors)
    suffixes = {path.suffix for path in tmp_path.iterdir()}
    assert suffixes <= {".safetensors", ".csv", ".json", ".yaml"}


# -------------------------------------------------------------------------------------------------- options


def test_averaged_weights_follow_their_formula(tmp_path: Path, material: TrainingData) -> None:
    progress = Progress(nn.Linear(2, 1, bias=False), RECIPE, ema=0.75)
    assert progress.average is not None
    expected, rng = 0.0, np.random.default_rng(0)
    for updates, value in enumerate(rng.normal(size=40)):
        with torch.no_grad():
            progress.network.weight.fill_(value)  # pyright: ignore[reportCallIssue]
        progress.average.update_parameters(progress.network)
        decay = min(0.75, (1 + updates) / (10 + updates)) if updates else 0  # 0.75 from the 26th on
        expected = decay * expected + (1 - decay) * value
        assert progress.judged.weight.unique().item() == pytest.approx(expected, rel=1e-4)  # pyright: ignore[reportCallIssue]
    assert differ(trained(tmp_path / "a", settings(ema=0.9), material), trained(tmp_path / "b", settings(), material))


def test_averaged_weights_are_those_of_torch(digits: Dataset) -> None:
    """Once the decay has stopped to grow; also buffers, and the first update, which takes the weights as they are."""
    model = seeded_model("tinynet", digits, CPU, key=(0,))
    ours, theirs = WarmedAverage(model, 0.1), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.1))
    for step in range(4):
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(step)) * 9)
        ours.update_parameters(model)
        theirs.update_parameters(model)
    assert int(ours.n_averaged) == int(theirs.n_averaged) == 4
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_averaged_weights_of_a_short_training_are_not_its_first(tmp_path: Path, material: TrainingData) -> None:
    """Without a warm-up of the decay they are: 0.999^80 = 0.92 of them."""
    recipe = dataclasses.replace(RECIPE, epochs=10, batch_size=30, lr=0.1)
    reached = {}
    for ema in (None, 0.999):
        trained(tmp_path / str(ema), settings("erm", recipe=recipe, ema=ema), material)
        reached[ema] = files.read_history(Folder(tmp_path / str(ema)))[-1]["val_clean"]
    assert reached[None] > 0.6
    assert reached[0.999] > reached[None] - 0.15


def test_clipping_bounds_the_step(tmp_path: Path, material: TrainingData) -> None:
    """One step of plain SGD moves the weights by at most lr * clip_norm (+ weight decay)."""
    recipe = Recipe(epochs=1, batch_size=240, lr=0.5, schedule="multistep", weight_decay=0, momentum=0)
    start = run.seeded_model("tinynet", material.dataset, CPU, key=(1, run._INIT))
    names = {name for name, _ in start.named_parameters()}

    def moved(out: str, **options: Any) -> float:
        after = trained(tmp_path / out, settings(recipe=recipe, **options), material)
        before = start.state_dict()
        return sum(((after[n] - before[n]) ** 2).sum().item() for n in names) ** 0.5

    free = moved("free")
    assert free > 0.02
    assert moved("clipped", clip_norm=0.01) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_weight_perturbation_has_the_published_length_and_direction() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    net(torch.randn(5, 3)).sum().backward()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    moved = perturbation(net, 0.01)
    assert set(moved) == {"0.weight", "1.weight"}
    for name, v in moved.items():
        weight = net.get_parameter(name)
        assert v.norm().item() == pytest.approx(0.01 * weight.norm().item(), rel=1e-5)
        assert torch.nn.functional.cosine_similarity(v.flatten(), weight.grad.flatten(), dim=0) > 1 - 1e-5  # pyright: ignore
    with perturbed(net, moved):
        assert torch.equal(net[0].weight, before[0] + moved["0.weight"])  # pyright: ignore[reportArgumentType]
    for parameter, was in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, was)


def test_awp_trains_and_differs(tmp_path: Path, material: TrainingData) -> None:
    plain = trained(tmp_path / "a", settings(), material)
    assert differ(plain, trained(tmp_path / "b", settings(awp=0.01), material))
    tiny = trained(tmp_path / "c", settings(awp=1e-12), material)  # no perturbation to speak of: the same run
    assert all(torch.allclose(plain[name], tiny[name], atol=1e-3) for name in plain)


@pytest.mark.parametrize(
    ("samples", "batch", "ranks", "sizes"),
    [(10, 5, 1, [5, 5]), (11, 5, 1, [5, 5]), (12, 5, 1, [5, 5, 2]), (11, 8, 2, [8]), (12, 8, 2, [8, 4])],
)
def test_batches_of_an_epoch(samples: int, batch: int, ranks: int, sizes: list[int]) -> None:
    assert batch_sizes(samples, batch, ranks) == sizes
