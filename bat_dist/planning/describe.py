"""A plan in words: what was measured, a line for each job, what it assumes.  Neither torch nor ray."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bat_dist.models.names import AUTO
from bat_dist.planning.cost import Cost
from bat_dist.planning.timed_operations import Piece, Speed
from bat_dist.planning.workers import PlannedWorker
from bat_dist.settings.fields import ARCH_OF_TRAINING, ARCH_OF_TRIALS
from bat_dist.settings.plan import PlanSettings
from bat_dist.storage.status import duration
from bat_dist.wording import counted, of_bytes

if TYPE_CHECKING:
    from bat_dist.planning.plan import CostPlan

DAY = 86400  # seconds
LARGE_DATA = 10**9  # bytes of decoded images of which a plan tells


def describe(planned: "CostPlan", settings: PlanSettings, not_counted: Iterable[str] = ()) -> str:
    """All that the program prints.  not_counted: what takes time and is not in the plan."""
    data, speed = planned.data, planned.speed
    size = f"{data.spec.image_size}x{data.spec.image_size}"
    given = f" ({settings.speed})" if settings.speed else ""
    subject = f"{data.spec.name}: {data.num_train:,} training and {data.num_test:,} test images, {size}"
    return "\n".join(
        [
            f"{subject}; {planned.arch}, {planned.precision}{f'; trials: {planned.trials}' * bool(planned.trials)}",
            "",
            *table(planned.costs, planned.total, settings),
            "",
            *summary(planned, settings),
            "",
            f"measured on {speed.device}{given}, a worker being {planned.worker.in_words}:",
            *map("  ".__add__, measured(speed)),
            "",
            "what this assumes:",
            *map("* ".__add__, assumptions(planned, settings)),
            *(f"* not counted: {what}." for what in not_counted),
        ]
    )


def table(costs: Sequence[Cost], total: Cost, settings: PlanSettings) -> list[str]:
    """A line for each job, and one for all."""
    price = settings.price
    head = ["job", "jobs", "worker-hours", "wall-clock", "disk", *([settings.currency] if price is not None else [])]
    rows = [
        [
            cost.name,
            f"{cost.count:,}",
            hours(cost.seconds),
            span(cost.wall_seconds),
            of_bytes(cost.disk),
            *([f"{cost.seconds / 3600 * price:,.2f}"] if price is not None else []),
        ]
        for cost in [*costs, total]
    ]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in [head, *rows]
    ]
    return [lines[0], *lines[1:-1], "-" * len(lines[0]), lines[-1]]


def summary(planned: "CostPlan", settings: PlanSettings) -> list[str]:
    """The total with its uncertainty, in the unit that is paid for."""
    total = planned.total
    if planned.worker.gpus:
        unit, seconds = "GPU-hours", total.seconds * planned.worker.gpus_occupied
    else:
        unit, seconds = "CPU-core-hours", total.seconds * settings.cpus_per_worker
    share = total.standard_error / total.seconds
    words = f"{hours(seconds)} {unit} {percent(share)}, {span(total.wall_seconds)} with {planned.workers} at a time"
    disk = f"{of_bytes(total.disk)} on disk"
    if total.scratch:
        disk += f", and {of_bytes(total.scratch)} more while trainings run"
    money = []
    if settings.price is not None:
        price = f"{settings.price:,g} {settings.currency} per worker-hour"
        money = [f"{total.seconds / 3600 * settings.price:,.2f} {settings.currency} {percent(share)} at {price}"]
    doubt = ["probably too high, beyond the ±: smaller batches were timed than will be used"] * planned.small_batches
    return [words, *money, disk, *doubt]


def measured(speed: Speed) -> list[str]:
    """A line for each piece of work that was timed."""
    labels = {piece: str(piece) for piece in speed.rates}
    if Piece.PGD_STEP in labels:
        labels[Piece.PGD_STEP] += f", {speed.num_steps} step" + "s" * (speed.num_steps > 1)
    width = max(map(len, labels.values()))
    return [
        f"{labels[piece]:<{width}}  {_short(1 / rate.seconds)} images/s {percent(rate.standard_error / rate.seconds)} "
        f"({counted(rate.num_batches, 'batch', 'batches')} of {rate.batch_size})"
        for piece, rate in speed.rates.items()
    ]


def assumptions(planned: "CostPlan", settings: PlanSettings) -> list[str]:
    """What the numbers stand on, and what they leave out."""
    found = [
        f"measured on another machine, which {settings.speed} tells of, as busy as it was: good for machines like it."
        if settings.speed
        else "measured on this one machine, as busy as it was: this says nothing about another. Measure where it will "
        "run.",
        "± is one standard error over the timed batches. It knows nothing of what is not in them: a machine that slows "
        "down when all its workers are busy, the start of a worker, data read over a network, waiting for nodes, work "
        "done twice.",
        (
            "every GPU is as fast as the one measured"
            if planned.worker.gpus
            else "every worker is as fast as the one measured, the only one that was running"
        )
        + ". The total's wall-clock has trials, trainings and evaluations one after the other, and the trainings of "
        "all methods side by side.",
    ]
    if planned.worker.sharing > 1:
        found.append(_sharing(planned.worker, settings))
    if planned.small_batches:
        found.append("full batches would have taken too long: smaller ones are slower for an image; or give --seconds.")
    is_left_open = settings.arch == AUTO and settings.trial_arch is None
    if is_left_open and settings.num_trials and planned.arch.startswith(ARCH_OF_TRAINING):
        found.append(
            f"{ARCH_OF_TRAINING} for trials too, though memorize takes {ARCH_OF_TRIALS} unless told otherwise, which "
            "costs less: --trial_arch auto."
        )
    if settings.num_trials:
        recipe, kept = settings.trial_training, round(settings.subset_ratio * planned.data.num_train)
        found.append(
            f"a trial: {counted(recipe.epochs, 'epoch')} over {kept:,} images, then a pass over all "
            f"{planned.data.num_train + planned.data.num_test:,}."
        )
    if settings.num_seeds:
        epochs, steps = counted(settings.training.epochs, "epoch"), counted(settings.num_steps, "PGD step")
        judged = "as many steps" if settings.val_steps is None else counted(settings.val_steps, "step")
        found += [
            f"a training: {epochs} with {steps}, each with a validation of {judged}. gairat "
            "and bat cost what pgd_at does, mart and trades another plain step (natural images go forward and "
            "backward), trades another forward pass (of its attack).",
            f"robust_share {settings.robust_share:g}: AutoAttack attacks this share of the test images to the end, the "
            "rest falls at once. This is a guess before the networks are trained; AutoAttack's part grows with it.",
            "fgsm, pgd and cw attack every test image to the end, as if all were right when clean: an upper bound. "
            "What FAB and Square compute beside the network is left out: little, but for networks as small as tinynet.",
        ]
    images = (planned.data.num_train + planned.data.num_test) * 3 * (planned.data.spec.image_size or 0) ** 2
    if images >= LARGE_DATA:
        found.append(
            f"decoded images: {of_bytes(images)}, beside the disk above. A machine with less than four times as much "
            "memory keeps them in a file in its cache folder ($BAT_DIST_CACHE), others in memory."
        )
    found.append("disk: files take whole blocks of 4 KiB; influential pairs as many as samples; no adversarial images.")
    return found


def _sharing(worker: PlannedWorker, settings: PlanSettings) -> str:
    """What is assumed of a GPU that several workers have."""
    share = f"{worker.sharing} workers share a GPU, and have an equal part of it each"
    if settings.sharing_gain is not None:
        return f"{share}: together they do {worker.gain:g} times as much as one alone would (--sharing_gain)."
    return (
        f"{share}: together they do as much as one alone would, for without NVIDIA's MPS they take turns. With MPS, or "
        "where the host is what a worker waits for, they do more: measure it, and give --sharing_gain."
    )


def hours(seconds: float) -> str:
    """Seconds as hours, in three digits: `0.0123`, `1.23`, `1,234`."""
    return _short(seconds / 3600)


def span(seconds: float) -> str:
    """Seconds as `0:01:09`, or `12.3 days`."""
    return duration(seconds) if seconds < 2 * DAY else f"{_short(seconds / DAY)} days"


def _short(value: float) -> str:
    """The number in three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 or not value else "<0.001"


def percent(share: float) -> str:
    """A share in [0, 1] as `± 12%`, `± <1%`."""
    return f"± {100 * share:.0f}%" if share >= 0.005 else "± <1%"
