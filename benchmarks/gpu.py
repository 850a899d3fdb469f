"""What one GPU makes of it: training steps, leave-out trials and AutoAttack, against their rivals and the limit.

    python benchmarks/gpu.py [--images cifar.npz] [--only waits steps trials autoattack] [--out docs/results]

Needs neither Ray nor FFCV. `--images`: `train_images`, `train_labels`, `test_images`, `test_labels` (uint8, NHWC);
without it the images are random, which changes no speed but leaves AutoAttack nothing to do. Each table is written as
soon as it is measured, to `gpu.md` and `gpu.json`. `--device cpu --quick` walks the same path with small numbers.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bat_dist.attacks.autoattack import autoattack
from bat_dist.attacks.folding import faster
from bat_dist.attacks.graphs import SWITCH
from bat_dist.attacks.pgd import pgd
from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.methods.bat import Bat
from bat_dist.methods.erm import Erm
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.table import Method, build_method
from bat_dist.models.build import build
from bat_dist.training.epoch import StepSettings, train_epoch
from bat_dist.training.loop import fit
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import RECIPES, Precision, Recipe
from bat_dist.training.world import THIS_PROCESS

EPSILON, STEP_SIZE, NUM_STEPS = 8 / 255, 2 / 255, 10
RECIPE = Recipe(epochs=100, batch_size=128, lr=0.01, schedule="multistep", milestones=(0.5,))


class Page:
    """The tables so far, written anew after each."""

    def __init__(self, out: Path, about: dict[str, str]) -> None:
        self._out, self.data = out, {"about": about, "tables": {}}
        self._lines = ["# Measured on a GPU", "", *(f"* {name}: {value}" for name, value in about.items())]
        self.write()

    def table(self, title: str, head: list[str], rows: list[list[str]], *notes: str) -> None:
        """One more."""
        self.data["tables"][title] = {"head": head, "rows": rows, "notes": notes}
        self._lines += ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        self._lines += ["| " + " | ".join(row) + " |" for row in rows]
        self._lines += ["", *notes] if notes else []
        self.write()
        print("\n".join(self._lines[-len(rows) - len(notes) - 5 :]), flush=True)

    def write(self) -> None:
        """Both files."""
        self._out.mkdir(parents=True, exist_ok=True)
        (self._out / "gpu.md").write_text("\n".join(self._lines) + "\n")
        (self._out / "gpu.json").write_text(json.dumps(self.data, indent=1) + "\n")


def about(device: torch.device) -> dict[str, str]:
    """What the numbers were measured on."""
    found = {
        "command": " ".join(["python", *sys.argv]),
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        found["GPU, driver, memory"] = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
        found |= {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}
    found["CPU cores"] = str(len(os.sched_getaffinity(0)))
    return found


@contextmanager
def tf32(on: bool) -> Any:
    """Whether fp32 convolutions and products of others may be rounded to TF32; ours are as their precision says."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def synchronize(device: torch.device) -> None:
    """Until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# --------------------------------------------------------------------------------------------------- training steps


def network(arch: str, device: torch.device, *, channels_last: bool = True, seed: int = 0) -> nn.Module:
    """On the device, with the same weights for all contestants."""
    torch.manual_seed(seed)
    model = build(arch, 10, mean=(0.5,) * 3, std=(0.25,) * 3).to(device)
    return model.to(memory_format=torch.channels_last) if channels_last else model  # pyright: ignore[reportCallIssue]


def textbook(arch: str, device: torch.device, precision: Precision, batch: int) -> Callable[[int], None]:
    """NCHW, a backward pass through all parameters at each step of the attack."""
    model = network(arch, device, channels_last=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, y = torch.rand(batch, 3, 32, 32, device=device), torch.arange(batch, device=device) % 10
    cast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    def steps(count: int) -> None:
        for _ in range(count):
            model.eval()
            x_adv = (x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
            for _ in range(NUM_STEPS):
                x_adv.requires_grad_()
                with cast:
                    loss = functional.cross_entropy(model(x_adv), y)
                loss.backward()
                assert x_adv.grad is not None
                moved = x_adv.detach() + STEP_SIZE * x_adv.grad.sign()
                x_adv = (x + (moved - x).clamp(-EPSILON, EPSILON)).clamp(0, 1)
            model.train()
            optimizer.zero_grad()
            with cast:
                loss = functional.cross_entropy(model(x_adv), y)
            loss.backward()
            optimizer.step()

    return steps


def ours(
    arch: str, device: torch.device, precision: Precision, batch: int, method: Method, *, graphs: bool = True
) -> Callable[[int], None]:
    """An epoch of so many steps, with loader, augmentation and all."""
    rng = np.random.default_rng(0)
    progress = Progress(network(arch, device), RECIPE)
    settings = StepSettings(method, TrainingAttack(EPSILON, STEP_SIZE, NUM_STEPS, precision=precision), precision)
    images, labels = rng.integers(0, 256, (64 * batch, 32, 32, 3), dtype=np.uint8), np.arange(64 * batch) % 10
    loader = MemoryLoader(images, labels, crop_padding=4, flip=True, device=device)
    mem = torch.where(torch.arange(64 * batch) % 3 == 0, 0.5, 0.0).to(device)
    recipe = Recipe(epochs=100, batch_size=batch, lr=0.01, schedule="multistep", milestones=(0.5,))

    def steps(count: int) -> None:
        os.environ[SWITCH] = "1" if graphs else "0"
        everyone = np.arange(count * batch)
        how: dict[str, Any] = {"recipe": recipe, "settings": settings, "mem": mem, "seed": 0, "world": THIS_PROCESS}
        train_epoch(progress, progress.network, loader, everyone, **how)

    return steps


def floor(arch: str, device: torch.device, batch: int) -> Callable[[int], None]:
    """The network's own passes in bf16 and channels_last, as CUDA graphs: 10 with the images' gradient, 1 with all."""
    model = network(arch, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, foreach=True)
    x = torch.rand(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last).requires_grad_()
    y = torch.arange(batch, device=device) % 10

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return functional.cross_entropy(model(x), y)

    def attack() -> None:
        torch.autograd.grad(loss(), x)

    def update() -> None:
        optimizer.zero_grad(set_to_none=False)
        loss().backward(inputs=list(model.parameters()))
        optimizer.step()

    update()
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    run_attack = graphed(attack, device)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
    run_update = graphed(update, device)
    memory_of_the_graphs = model, optimizer, x, y

    def steps(count: int, _: Any = memory_of_the_graphs) -> None:
        for _ in range(count):
            for _ in range(NUM_STEPS):
                run_attack()
            run_update()

    return steps


def graphed(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The same kernels, launched at once; itself without a GPU."""
    if device.type != "cuda":
        return work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def measure_steps(page: Page, device: torch.device, args: argparse.Namespace) -> None:
    """ResNet-18 and WRN-28-10 at batch 128."""
    for arch, count in (("tinynet", 2),) if args.quick else (("resnet18", 6), ("wrn28-10", 2)):
        batch = 16 if args.quick else 128
        contestants: dict[str, tuple[bool, Callable[[], Callable[[int], None]]]] = {
            "textbook, fp32": (False, lambda a=arch, b=batch: textbook(a, device, "fp32", b)),
            "textbook, TF32": (True, lambda a=arch, b=batch: textbook(a, device, "fp32", b)),
            "textbook, bf16": (True, lambda a=arch, b=batch: textbook(a, device, "bf16", b)),
            "PGD-AT, fp32": (False, lambda a=arch, b=batch: ours(a, device, "fp32", b, PgdAt())),
            "PGD-AT, TF32": (True, lambda a=arch, b=batch: ours(a, device, "tf32", b, PgdAt())),
            "PGD-AT, bf16": (True, lambda a=arch, b=batch: ours(a, device, "bf16", b, PgdAt())),
            "PGD-AT, bf16, without CUDA graphs": (
                True,
                lambda a=arch, b=batch: ours(a, device, "bf16", b, PgdAt(), graphs=False),
            ),
            "BAT, bf16": (True, lambda a=arch, b=batch: ours(a, device, "bf16", b, Bat())),
            "the network's passes alone, bf16, as CUDA graphs": (True, lambda a=arch, b=batch: floor(a, device, b)),
        }
        ready: dict[str, tuple[bool, Callable[[int], None]]] = {}
        for name, (allowed, make) in contestants.items():
            with tf32(allowed):
                try:
                    steps = make()
                    steps(2)
                    synchronize(device)
                    ready[name] = allowed, steps
                except Exception as error:
                    print(f"{arch}, {name}: {type(error).__name__}: {error}", flush=True)
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(2 if args.quick else 5):
            for name, (allowed, steps) in ready.items():
                with tf32(allowed):
                    synchronize(device)
                    start = time.perf_counter()
                    steps(count)
                    synchronize(device)
                    seconds[name].append((time.perf_counter() - start) / count)
        slow = np.array(seconds["textbook, fp32"])
        rows = [
            [
                name,
                f"{1000 * median(s):.1f}",
                f"{1000 * min(s):.1f} to {1000 * max(s):.1f}",
                f"{np.median(slow / s):.2f}",
            ]
            for name, s in seconds.items()
        ]
        head = ["what", "ms a step, median", "range", "times as fast as the textbook in fp32"]
        note = f"10 attack steps, {len(slow)} rounds of {count} steps each, in turn."
        page.table(f"A training step of {arch} at batch {batch}", head, rows, note)


def measure_waits(page: Page, device: torch.device, args: argparse.Namespace) -> None:
    """At how many places of a step the host stops until the GPU has caught up."""
    rows = []
    for name in ("erm", "pgd_at", "trades", "mart", "gairat", "bat"):
        arch, precision = ("tinynet", "fp32") if args.quick else ("resnet9", "bf16")
        steps = ours(arch, device, precision, 64, build_method(name, {}), graphs=False)
        steps(2)
        few, many = waits(steps, 2, device), waits(steps, 6, device)
        rows.append([name, f"{(sum(many.values()) - sum(few.values())) / 4:g}"])
        rows[-1].append(
            "; ".join(
                f"{place} {(count - few[place]) / 4:g}" for place, count in sorted(many.items()) if count > few[place]
            )
        )
    page.table("Waits for the GPU in a training step", ["method", "waits a step", "where"], rows)


def waits(steps: Callable[[int], None], count: int, device: torch.device) -> Counter[str]:
    """Of so many steps, by file and line, as torch warns of them."""
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        steps(count)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(one.filename).name}:{one.lineno}" for one in seen if "synchroniz" in str(one.message))


# --------------------------------------------------------------------------------------------------- trials


def trial_worker(args: argparse.Namespace) -> None:
    """One process that trains one network after another until the time is over; prints the steps of a second."""
    device = torch.device(args.device)
    images = np.random.default_rng(0).integers(0, 256, (50_000 if not args.quick else 512, 32, 32, 3), dtype=np.uint8)
    loader = MemoryLoader(images, np.arange(len(images)) % 10, crop_padding=4, flip=True, device=device)
    arch = "tinynet" if args.quick else "resnet9"
    steps = 0 if args.quick else 400  # as in a trial, recording the first of them is a small part
    recipe = Recipe(epochs=1, batch_size=args.batch, lr=0.01, schedule="one_cycle", nesterov=True)
    indices = np.arange(min(max(steps, 4) * args.batch, len(images)))

    def chunk() -> None:
        fit(
            model,
            loader,
            indices,
            method=Erm(),
            recipe=recipe,
            precision="fp32" if args.quick else "bf16",
            generator=torch.Generator().manual_seed(0),
        )

    model = network(arch, device)
    chunk()
    synchronize(device)
    print("ready", flush=True)
    sys.stdin.readline()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < args.window:
        chunk()
        count += len(indices) // args.batch
    synchronize(device)
    print(count / (time.perf_counter() - start), flush=True)


def rate(processes: int, batch: int, args: argparse.Namespace, environment: dict[str, str]) -> float:
    """Steps a second of all processes together."""
    words = [sys.executable, __file__, "--trial_worker", "--batch", str(batch), "--device", args.device]
    words += ["--window", "2" if args.quick else "6", *(["--quick"] if args.quick else [])]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(words, env=os.environ | environment, **pipes) for _ in range(processes)]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"  # pyright: ignore[reportOptionalMemberAccess]
        for worker in workers:
            worker.stdin.write("\n")  # pyright: ignore[reportOptionalMemberAccess]
            worker.stdin.flush()  # pyright: ignore[reportOptionalMemberAccess]
        return sum(float(worker.stdout.readline()) for worker in workers)  # pyright: ignore[reportOptionalMemberAccess]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@contextmanager
def multi_process_service() -> Any:
    """NVIDIA's MPS, if the machine has it: what its clients need in their environment, or None."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        where = {"CUDA_MPS_PIPE_DIRECTORY": f"{place}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{place}/log"}
        for path in where.values():
            Path(path).mkdir()
        environment = os.environ | where
        subprocess.run([control, "-d"], env=environment, check=True)
        try:
            yield where
        finally:
            with suppress(subprocess.TimeoutExpired):
                subprocess.run([control], input="quit\n", text=True, env=environment, timeout=20)


def measure_trials(page: Page, device: torch.device, args: argparse.Namespace) -> None:
    """ResNet-9 in several processes on one card."""
    rows = []
    with multi_process_service() as service:
        for batch in (64,) if args.quick else (64, 512):
            cases = [(1, False, "0"), (1, False, "1"), (4, False, "1")]
            cases += [(number, True, "1") for number in ((2, 4, 8) if batch == 64 else (4,))] if service else []
            alone = 0.0
            for processes, with_service, graphs in cases[: 2 if args.quick else None]:
                try:
                    environment = {SWITCH: graphs} | (service if with_service and service else {})
                    found = rate(processes, batch, args, environment)
                except Exception as error:
                    print(f"{processes} processes, batch {batch}: {type(error).__name__}: {error}", flush=True)
                    continue
                alone = alone or found
                steps = RECIPES["fast"].epochs * 35_000 / batch
                words = {"0": "no", "1": "yes"}
                rows.append([str(batch), str(processes), words[graphs], "yes" if with_service else "no"])
                rows[-1].append(f"{found:.0f}")
                rows[-1] += [f"{3600 * found / steps:.0f}", f"{found / alone:.2f}"]
                print(rows[-1], flush=True)
    head = [
        "batch",
        "processes",
        "CUDA graphs",
        "MPS",
        "steps a second",
        "trials an hour",
        "times as fast as the first",
    ]
    note = (
        "bf16, loader `memory`. A trial: 35,000 of CIFAR-10's 50,000 images, 20 epochs (recipe fast), counted from the "
        "steps; the verdict on all images comes on top."
    )
    none = "" if service else "MPS is not installed there."
    page.table("Leave-out trials of ResNet-9", head, rows, note, *([none] if none else []))


# --------------------------------------------------------------------------------------------------- AutoAttack


def measure_autoattack(page: Page, device: torch.device, args: argparse.Namespace) -> None:
    """Against pyautoattack, on a network that was trained for a short time."""
    from pyautoattack import AutoAttack

    data = np.load(args.images)
    count = 32 if args.quick else args.attacked
    arch, epochs = ("tinynet", 1) if args.quick else ("resnet18", args.epochs)
    precision: Precision = "fp32" if args.quick else "bf16"
    model = network(arch, device)
    recipe = Recipe(epochs=epochs, batch_size=128, lr=0.1, schedule="one_cycle", nesterov=True)
    progress = Progress(model, recipe)
    settings = StepSettings(PgdAt(), TrainingAttack(EPSILON, STEP_SIZE, NUM_STEPS, precision=precision), precision)
    loader = MemoryLoader(data["train_images"], data["train_labels"], crop_padding=4, flip=True, device=device)
    everyone = np.arange(512 if args.quick else len(data["train_labels"]))
    how: dict[str, Any] = {"recipe": recipe, "settings": settings, "mem": None, "seed": 0, "world": THIS_PROCESS}
    start = time.perf_counter()
    for _ in range(epochs):
        train_epoch(progress, model, loader, everyone, **how)
        progress.history.append({})
    synchronize(device)
    trained = time.perf_counter() - start
    model.eval().requires_grad_(False)
    at = np.linspace(0, len(data["test_labels"]) - 1, count).astype(int)
    x = torch.from_numpy(data["test_images"][at]).to(device).permute(0, 3, 1, 2).float().div(255)
    y = torch.from_numpy(data["test_labels"][at]).to(device)
    ids = torch.arange(count, device=device)
    with torch.no_grad():
        clean = (model(x).argmax(1) == y).sum().item()
    rows, flags = [], {}
    x_adv = pgd(
        model, x, y, epsilon=EPSILON, step_size=STEP_SIZE, num_steps=20, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        robust = (model(x_adv).argmax(1) == y).sum().item()

    def theirs() -> Tensor:
        plain = x.contiguous()
        rival = AutoAttack(model, eps=EPSILON, seed=0, version="standard", device=str(device))
        found = rival.run_standard_evaluation(plain, y, batch_size=count)
        images = found[0] if isinstance(found, tuple) else found
        with torch.no_grad():
            return model(images).argmax(1) == y

    def mine(batch: int, graphs: str) -> Tensor:
        os.environ[SWITCH] = graphs
        layout = x.contiguous(memory_format=torch.channels_last)
        net = faster(model, layout[:4])
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        print(f"BatchNorms left after folding: {norms}", flush=True)
        return autoattack(net, layout, y, epsilon=EPSILON, seed=0, ids=ids, batch_size=batch).robust[-1]

    with tf32(False):
        runs = {
            "pyautoattack": theirs,
            f"ours, batches of {count}": lambda: mine(count, "1"),
            f"ours, batches of {count}, without CUDA graphs": lambda: mine(count, "0"),
        }
        for name, run in runs.items():
            synchronize(device)
            start = time.perf_counter()
            flags[name] = run()
            synchronize(device)
            rows.append([name, f"{time.perf_counter() - start:.1f}", f"{flags[name].float().mean().item():.1%}"])
            print(rows[-1], flush=True)
    equal = {name: (found == flags["pyautoattack"]).float().mean().item() for name, found in flags.items()}
    rows = [[*row, f"{equal[row[0]]:.1%}"] for row in rows]
    head = ["what", "seconds", "robust", "flags equal to pyautoattack's"]
    note = (
        f"{count} test images, one run each, fp32 without TF32. The network: {arch}, PGD-AT, {epochs} "
        f"epochs of {len(everyone)} images ({trained:.0f} s); clean {clean / count:.1%}, PGD-20 {robust / count:.1%}."
    )
    page.table("AutoAttack standard", head, rows, note)


MEASURES = {"waits": measure_waits, "steps": measure_steps, "trials": measure_trials, "autoattack": measure_autoattack}


def main() -> None:
    """All tables, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int, default=15, help="of the network that AutoAttack attacks")
    parser.add_argument("--attacked", type=int, default=256, help="images that AutoAttack attacks")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see whether all runs")
    parser.add_argument("--trial_worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=64, help=argparse.SUPPRESS)
    parser.add_argument("--window", type=float, default=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial_worker:
        trial_worker(args)
        return
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --quick walks the same path with small numbers")
    page = Page(args.out, about(device))
    for name in args.only:
        start = time.perf_counter()
        try:
            MEASURES[name](page, device, args)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            raise
        finally:
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
