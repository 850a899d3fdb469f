"""Data-parallel training and a sharded AutoAttack lose a worker host, and end as if nothing had happened."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from bat_dist.config import parse
from bat_dist.data.datasets import load_dataset
from bat_dist.evaluation.result import Evaluation
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.evaluate_here import evaluate_here
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.known import of_checkpoint, resumed
from bat_dist.storage.files import Folder
from tests.cluster.drills import DATA, Result, host_at_work, records
from tests.cluster.lab import Lab
from tests.helpers.waiting import until

pytestmark = pytest.mark.cluster

# With two CPUs a worker, each is on a host of its own.
RUN = ("--num_train", "400", "--num_val", "40", "--num_steps", "3", "--epochs", "6")
TRAIN = ("--method", "pgd_at", *DATA, *RUN, "--num_workers", "2", "--cpus_per_worker", "2")
ATTACKS = (
    "--attacks",
    "clean",
    "pgd10",
    "autoattack",
    "--num_test",
    "80",
    "--check_images",
    "0",
    "--batch_size",
    "32",
)
EVALUATE = ("--dataset", "digits", "--loader", "memory", *ATTACKS)


@pytest.fixture(autouse=True)
def _all_nodes(lab: Lab) -> None:
    lab.wait_for_nodes()


@pytest.fixture(scope="module")
def trained(lab: Lab) -> Path:
    """A training of two workers, undisturbed."""
    out = lab.hosts.shared / "trained"
    job = lab.submit("train", *TRAIN, "--out", str(out))
    assert job.wait() == 0, job.output
    return out


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Its evaluation, undisturbed, in this process."""
    words = ["--checkpoint", str(trained), *EVALUATE, "--out", str(tmp_path_factory.mktemp("evaluated"))]
    settings, _ = parse(EvaluateSettings, words, prog="", known=resumed("evaluate", EvaluateSettings, of_checkpoint))
    dataset = load_dataset(settings.dataset, **settings.data)
    return evaluate_here(Folder(settings.out), dataset, settings, load_subject(dataset, settings))


def test_training_loses_a_host(lab: Lab, trained: Path, results: list[Result]) -> None:
    out = lab.hosts.shared / "trained-hurt"
    job = lab.submit("train", *TRAIN, "--out", str(out))
    until(lambda: epochs(out) >= 2, what="two epochs")
    host = next(name for name in ("w1", "w2") if lab.hosts.processes(name, "RayTrainWorker"))
    before = epochs(out)
    with switched_off(lab, host):
        recovered = until(lambda: epochs(out) > before + 1, what="another epoch")
        assert job.wait() == 0, job.output
    results.append(
        Result("training on 2 workers", "a worker host loses power", None, recovered, "the epoch that was running", 1)
    )
    assert epochs(out) == 6
    for name in ("last.safetensors", "best.safetensors"):
        got, wanted = load_file(out / name), load_file(trained / name)
        for key, value in wanted.items():
            np.testing.assert_array_equal(got[key], value, err_msg=f"{name} {key}", strict=True)


def test_autoattack_loses_a_host(lab: Lab, trained: Path, evaluated: Evaluation, results: list[Result]) -> None:
    """In the middle of a unit; a job that ended before that is given once more."""
    for attempt in itertools.count():
        out = lab.hosts.shared / f"evaluated-hurt-{attempt}"
        job = lab.submit("evaluate", "--checkpoint", str(trained), *EVALUATE, "--out", str(out))
        if host := host_at_work(lab, job):
            at = time.time()
            with switched_off(lab, host):
                assert job.wait() == 0, job.output
            if bad := [r for r in records(out) if r["event"] in ("lost", "retried") and r["at"] > at]:
                break
        assert job.wait() == 0, job.output
        lab.wait_for_nodes()
    lost = sum(r.get("seconds", 0.0) for r in bad)
    seen = min(r["at"] for r in bad) - at
    results.append(Result("AutoAttack", "a worker host loses power", seen, None, f"{len(bad)} units, {lost:.0f} s", 1))
    found = Folder(str(out)).read_npz("flags.npz")
    assert found["attacks"].tolist() == [row.name for row in evaluated.rows]
    np.testing.assert_array_equal(found["flags"], [row.robust for row in evaluated.rows])


def epochs(out: Path) -> int:
    """Finished ones."""
    history = out / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.exists() else 0


@contextmanager
def switched_off(lab: Lab, host: str) -> Iterator[None]:
    """A host is off while the block runs."""
    lab.hosts.switch_off(host)
    try:
        yield
    finally:
        lab.hosts.switch_on(host)
