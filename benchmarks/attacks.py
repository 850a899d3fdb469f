"""Evaluation: AutoAttack and PGD-20 of ours against other packages', on a network that is trained for it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bat_dist.api.train import carry_out
from bat_dist.artifacts.checkpoints import load_model
from bat_dist.attacks.batches import ON_CPU
from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.attack import Settings
from bat_dist.evaluation.plan import Stage, Unit
from bat_dist.evaluation.work import build_work
from bat_dist.settings.train import TrainSettings
from benchmarks import rivals
from benchmarks.adversarial import EPSILON, STEP_SIZE
from benchmarks.apart import apart, done_apart
from benchmarks.data import images
from benchmarks.measurement import Context, Quantities, Side, Sides, Unavailable

NUM_STEPS = 20


def trained(context: Context, data: Dataset, out: Path, arch: str) -> Path:
    """The folder of a PGD-AT network, after a short training."""
    settings = TrainSettings(
        dataset=data.name,
        out=str(out),
        method="pgd_at",
        arch=context.pick(arch, arch, "tinynet"),
        recipe="fast",
        epochs=context.pick(4, 1, 1),
        batch_size=context.pick(128, 128, 16),
        num_steps=context.pick(10, 3, 1),
        num_val=context.pick(200, 50, 10),
        cpus_per_worker=context.cores,
    )
    done_apart(context, carry_out, settings, data)
    return out


@contextmanager
def pgd20(context: Context) -> Iterator[Sides]:
    """PGD-20 on test images, each side with a thread per core."""
    torch.set_num_threads(context.cores)
    data = images(context, *context.pick((5000, 250), (500, 60), (40, 10)))
    x = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float().div(255).contiguous()
    y = torch.from_numpy(data.test.labels)

    def side(plain: nn.Module, attack: rivals.PgdOfOthers | Unavailable) -> Side | Unavailable:
        if isinstance(attack, Unavailable):
            return attack

        def theirs(number: int) -> Quantities:
            torch.manual_seed(number)
            found = attack(plain, x, y, EPSILON, STEP_SIZE, NUM_STEPS)
            with torch.no_grad():
                return {"accuracy": 100 * float((plain(found).argmax(1) == y).float().mean())}

        return theirs

    with tempfile.TemporaryDirectory() as place:
        run = str(trained(context, data, Path(place) / "run", "resnet9-w16"))
        model = load_model(run)
        with apart(context, our_pgd20, run, data, context.cores) as sides:
            yield {
                **sides,
                "torchattacks": side(load_of(model), rivals.pgd_of_torchattacks()),
                "foolbox": side(load_of(model), rivals.pgd_of_foolbox()),
                "ART": side(load_of(model), rivals.pgd_of_art()),
            }


def our_pgd20(run: str, data: Dataset, cores: int) -> Sides:
    """As a worker does a unit."""
    torch.set_num_threads(cores)
    settings = Settings(EPSILON, STEP_SIZE, restarts=1)
    work = build_work(data, load_model(run), settings, keep_adversarial=False, device=torch.device("cpu"))
    images = tuple(range(len(data.test)))

    def ours(number: int) -> Quantities:
        row = work(Unit(Stage(("pgd20",), number), 0, images, ON_CPU))
        return {"accuracy": 100 * float(np.asarray(row["robust"]).mean())}

    return {"ours": ours}


def load_of(model: nn.Module) -> nn.Module:
    """A copy in eval mode as others load it: NCHW, with parameters that ask for gradients."""
    from copy import deepcopy

    copy = deepcopy(model).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return copy.eval().requires_grad_(True)


@contextmanager
def autoattack(context: Context) -> Iterator[Sides]:
    """AutoAttack standard: `evaluate` by a single-thread worker per core, and pyautoattack with a thread per core.

    In an open Ray session; the start of the workers is included.  equal: percent of equal flags.
    """
    from bat_dist.jobs.attacked_network import load_subject
    from bat_dist.jobs.evaluate import evaluate
    from bat_dist.settings.evaluate import EvaluateSettings
    from bat_dist.storage.files import Folder
    from bat_dist.workers.session import ray_session

    torch.set_num_threads(context.cores)
    data = images(context, *context.pick((5000, 50), (500, 10), (40, 10)))
    rival = rivals.pyautoattack()
    flags: dict[int, np.ndarray] = {}  # ours, by round
    with tempfile.TemporaryDirectory() as place, ray_session("local", num_cpus=context.cores):
        run = trained(context, data, Path(place) / "run", "resnet9-w8")
        model = load_of(load_model(str(run)))
        x = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float().div(255).contiguous()
        y = torch.from_numpy(data.test.labels)

        def ours(number: int) -> Quantities:
            with tempfile.TemporaryDirectory() as out:
                settings = EvaluateSettings(
                    dataset=data.name,
                    out=out,
                    checkpoint=str(run),
                    attacks=("autoattack",),
                    epsilon=EPSILON,
                    num_workers=context.cores,
                    check_images=0,
                )
                row = evaluate(Folder(out), data, settings, load_subject(data, settings)).rows[-1]
            flags[number] = row.robust
            return {"accuracy": 100 * float(row.robust.mean())}

        def theirs(number: int) -> Quantities:
            assert not isinstance(rival, Unavailable)
            attack = rival(model, eps=EPSILON, seed=0, version="standard", device="cpu")
            x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
            with torch.no_grad():
                robust = (model(x_adv).argmax(1) == y).numpy()
            return {"accuracy": 100 * float(robust.mean()), "equal": 100 * float((robust == flags[number]).mean())}

        yield {"ours": ours, "pyautoattack": rival if isinstance(rival, Unavailable) else theirs}
