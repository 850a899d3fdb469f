"""Jobs, and what each takes: seconds, wall-clock, disk.  Pure arithmetic, no torch and no ray.

    size = Size(num_train=50_000, num_test=10_000, num_classes=10, network_bytes=45_000_000, momentum_bytes=45_000_000)
    jobs = [trials(size, count=1000, epochs=20), *(training(size, method=m, count=3) for m in ("pgd_at", "bat"))]
    costs = [cost(job, speed, workers=8) for job in jobs]

`speed` comes from `planning.speed.measure`, or is written down: see `timed_operations.Speed`.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, get_args

from bat_dist.attacks.batches import ON_CPU
from bat_dist.evaluation.cost import bill
from bat_dist.evaluation.names import CHECK_IMAGES
from bat_dist.memorization.exchange import MAX_BYTES
from bat_dist.memorization.subsets import subset_size
from bat_dist.planning.timed_operations import Piece, Speed, Work, added, times, training_work, trial_work
from bat_dist.training.splits import default_num_val

Phase = Literal["trials", "training", "evaluation"]

BLOCK_BYTES = 4096  # of a file system: the least that a file takes
PAGE_BYTES, CURVES_BYTES = 2_000_000, 100_000  # the page of memorize with its figures, and the picture of train


@dataclass(frozen=True)
class Size:
    """How large data and network are.

    num_train, num_test: images. network_bytes: bytes of weights and buffers, as a checkpoint has them. momentum_bytes:
    bytes of the parameters alone.
    """

    num_train: int
    num_test: int
    num_classes: int
    network_bytes: int
    momentum_bytes: int


@dataclass(frozen=True)
class PlannedJob:
    """`count` equal runs, such as trials or trainings, which may go on side by side.

    phase: jobs of one phase may go on side by side, phases follow each other. work: of one run. disk: bytes that all
    runs leave. scratch: bytes that one run needs beside them while it goes on. divisible: workers can share one run.
    """

    name: str
    phase: Phase
    count: int
    work: Work
    disk: int
    scratch: int = 0
    divisible: bool = False


@dataclass(frozen=True)
class Cost:
    """What a job takes.

    seconds: of work, added up over all workers, with their standard_error, in seconds too. wall_seconds: until the last
    run is done, if all workers take part. disk: bytes that stay. scratch: bytes beside them while it goes on.
    """

    name: str
    count: int
    seconds: float
    standard_error: float
    wall_seconds: float
    disk: int
    scratch: int


def trials(
    size: Size, *, count: int, epochs: int, subset_ratio: float = 0.7, forward: Piece = Piece.FORWARD
) -> PlannedJob:
    """Leave-out trials and their scores.  forward: Piece.TRIAL_FORWARD for a network that the trainings do not have.

    Raises UserError for a ratio that leaves nobody in, or out.
    """
    num_kept, num_judged = subset_size(size.num_train, subset_ratio), size.num_train + size.num_test
    work = trial_work(num_kept=num_kept, num_judged=num_judged, epochs=epochs, forward=forward)
    return PlannedJob("trials", "trials", count, work, count * trial_bytes(size) + score_bytes(size, count))


def ensemble(size: Size, *, count: int, epochs: int, forward: Piece = Piece.FORWARD) -> PlannedJob:
    """Members of an ensemble: trained on all samples, at which they look early in it and at its end."""
    looked_at = 2 * size.num_train + size.num_test
    work = trial_work(num_kept=size.num_train, num_judged=looked_at, epochs=epochs, forward=forward)
    probabilities = 4 * (size.num_train + size.num_test) * size.num_classes
    disk = on_disk(probabilities) + 3 * on_disk(4 * size.num_train) + 3 * BLOCK_BYTES
    return PlannedJob("ensemble", "trials", count, work, count * disk)


def training(
    size: Size,
    *,
    method: str,
    count: int,
    epochs: int = 160,
    num_steps: int = 10,
    num_val: int | None = None,
    val_steps: int | None = None,
) -> PlannedJob:
    """Trainings by one method, as `bat-dist train` does them; defaults as there, for the recipe `paper`."""
    work = training_work(
        method,
        num_train=size.num_train,
        num_val=default_num_val(size.num_train) if num_val is None else num_val,
        epochs=epochs,
        num_steps=num_steps,
        val_steps=num_steps if val_steps is None else val_steps,
    )
    small = 3 * BLOCK_BYTES + CURVES_BYTES  # run.json, history.csv, config.yaml
    kept = 2 * on_disk(size.network_bytes) + small  # best, last
    scratch = on_disk(size.network_bytes + size.momentum_bytes)  # the state, removed at the end
    return PlannedJob(f"train {method}", "training", count, work, count * kept, scratch)


def evaluation(
    size: Size,
    *,
    attacks: Sequence[str],
    count: int,
    robust_share: float = 0.5,
    check_images: int = CHECK_IMAGES,
    batch_size: int = ON_CPU,
    num_seeds: int = 1,
    restarts: int = 1,
) -> PlannedJob:
    """Evaluations of that many networks on all test images.  batch_size: what their units are cut for."""
    found = bill(
        tuple(attacks),
        num_images=size.num_test,
        num_classes=size.num_classes,
        robust_share=robust_share,
        check_images=check_images,
        batch_size=batch_size,
        num_seeds=num_seeds,
        restarts=restarts,
    )
    files = 5 * BLOCK_BYTES * found.units  # of each unit: images, flags, time spent, digest, log
    kept = files + 9 * round(found.attacked) + on_disk(found.rows * size.num_test)
    work = {Piece.EXACT_FORWARD: found.forward, Piece.EXACT_STEP: found.steps}
    return PlannedJob("evaluate", "evaluation", count, work, count * kept, divisible=True)


def trial_bytes(size: Size) -> int:
    """Bytes of a trial on disk: mask, flags, predicted classes in as many bits as they need; metrics, digest, log."""
    flags = 2 * on_disk(math.ceil(size.num_train / 8)) + on_disk(math.ceil(size.num_test / 8))
    predicted = on_disk(math.ceil(size.num_train * math.ceil(math.log2(size.num_classes)) / 8))
    return flags + predicted + 3 * BLOCK_BYTES


def score_bytes(size: Size, num_trials: int) -> int:
    """Bytes of the files that come of all trials, uncompressed, with as many influential pairs as samples."""
    samples = size.num_train + size.num_test
    by_sample = 48 * size.num_train + (8 + 40) * samples + 2 * samples  # scores; labels and ids; typical sets
    pairs = 32 * size.num_train
    exported = 4 * size.num_train * size.num_test // size.num_classes  # feldman_zhang.npz
    exported = exported if exported <= MAX_BYTES else 0
    return on_disk(by_sample) + on_disk(32 * num_trials) + on_disk(pairs) + on_disk(exported) + PAGE_BYTES


def on_disk(num_bytes: int) -> int:
    """Bytes that a file of `num_bytes` occupies."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


def work_of(jobs: Sequence[PlannedJob]) -> dict[Piece, float]:
    """The work of all runs of all jobs."""
    return added(*(times(job.count, job.work) for job in jobs))


def to_measure(jobs: Sequence[PlannedJob]) -> tuple[Piece, ...]:
    """The pieces that must be timed to say what the jobs cost."""
    wanted = {piece for piece, count in work_of(jobs).items() if count}
    if Piece.CRAFT_STEP in wanted:  # which is a difference of two
        wanted |= {Piece.PGD_STEP, Piece.PLAIN_STEP}
    return tuple(piece for piece in Piece if piece in wanted - {Piece.CRAFT_STEP})


def cost(job: PlannedJob, speed: Speed, *, workers: int) -> Cost:
    """What one job takes, if `workers` of its runs go on at a time."""
    return Cost(
        name=job.name,
        count=job.count,
        seconds=job.count * speed.seconds(job.work),
        standard_error=job.count * speed.standard_error(job.work),
        wall_seconds=wall_seconds([job], speed, workers),
        disk=job.disk,
        scratch=min(workers, job.count) * job.scratch,
    )


def total(jobs: Sequence[PlannedJob], speed: Speed, *, workers: int) -> Cost:
    """What all jobs take: a phase begins when the one before has ended, and within it jobs fill all workers."""
    phases = [[job for job in jobs if job.phase == phase] for phase in get_args(Phase)]
    # Only of what has scratch: a million trials make no list.
    running = [[job.scratch for job in phase if job.scratch for _ in range(job.count)] for phase in phases]
    work = work_of(jobs)
    return Cost(
        name="total",
        count=sum(job.count for job in jobs),
        seconds=speed.seconds(work),
        standard_error=speed.standard_error(work),
        wall_seconds=sum(wall_seconds(phase, speed, workers) for phase in phases),
        disk=sum(job.disk for job in jobs),
        scratch=max(sum(sorted(phase, reverse=True)[:workers]) for phase in running),
    )


def wall_seconds(jobs: Sequence[PlannedJob], speed: Speed, workers: int) -> float:
    """Seconds until the last run is done, if a free worker takes the longest that is left.

    Runs that are divisible fill the gaps.
    """
    whole = [(speed.seconds(job.work), job.count) for job in jobs if not job.divisible]
    shared = sum(job.count * speed.seconds(job.work) for job in jobs if job.divisible)
    if len(whole) == 1:  # equal ones: no need to deal out a million
        ((seconds, count),) = whole
        last = -(-count // workers) * seconds
    else:
        runs = sorted((each for each, count in whole for each in repeat(each, count)), reverse=True)
        ends = [0.0] * min(workers, max(1, len(runs)))
        for each in runs:
            heapq.heapreplace(ends, ends[0] + each)
        last = max(ends)
    busy = shared + sum(seconds * count for seconds, count in whole)
    return max(last, busy / workers)
