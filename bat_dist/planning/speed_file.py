"""A measurement as a file: `bat-dist plan --save_speed FILE` writes it, `--speed FILE` reads it on another machine."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import get_args

from bat_dist.errors import UserError
from bat_dist.planning.speed import EXACT, Workload
from bat_dist.planning.timed_operations import Piece, Rate, Speed
from bat_dist.planning.workers import MeasuredMachine
from bat_dist.storage.files import split_location
from bat_dist.storage.provenance import provenance
from bat_dist.training.recipe import Precision

FORMAT = "bat_dist speed 1"


@dataclass(frozen=True)
class Measurement:
    """A speed, and what it holds for.

    threads: of the worker that was measured, which count on a CPU. trial_arch, trial_precision: of trials; None: the
    same as of trainings.
    """

    speed: Speed
    machine: MeasuredMachine
    threads: int
    arch: str
    image_size: int
    num_classes: int
    precision: Precision
    crop_scale: float | None = None  # of random-resized crops, which take longer than padded ones
    crop_size: int | None = None
    trial_arch: str | None = None
    trial_precision: Precision | None = None

    @classmethod
    def of(cls, speed: Speed, subject: Workload, machine: MeasuredMachine, threads: int) -> "Measurement":
        """What was measured of a workload here."""
        assert subject.spec.image_size and subject.spec.num_classes  # noqa: PT018
        sizes = subject.spec.image_size, subject.spec.num_classes
        crops = subject.spec.crop_scale, subject.spec.crop_size
        trials = subject.trial_arch and str(subject.trial_arch), subject.trial_precision
        return cls(speed, machine, threads, str(subject.arch), *sizes, subject.precision, *crops, *trials)

    def misfits(self, subject: Workload, pieces: Sequence[Piece], threads: int) -> list[str]:
        """What was measured otherwise than this workload wants it, in words; nothing if it holds for it."""
        wanted = Measurement.of(self.speed, subject, self.machine, threads)
        names = ["arch", "image_size", "num_classes", "precision", "crop_scale", "crop_size"]
        names += ["trial_arch", "trial_precision", *(["threads"] * (not self.machine.gpus))]
        pairs = [(name, getattr(self, name), getattr(wanted, name)) for name in names]
        found = [f"{name} {its}, and {asked} is planned" for name, its, asked in pairs if its != asked]
        for piece in pieces:
            full, rate = subject.batch_size(piece), self.speed.rates.get(piece)
            if rate is None:
                found.append(f"no {piece}")
            # Evaluations halve what does not fit.
            elif rate.full_batch != full and not (piece in EXACT and rate.full_batch < full):
                found.append(f"{piece} for batches of {rate.full_batch}, and {full} is planned")
        return found


def write_speed(location: str, measurement: Measurement) -> None:
    """Write the file, with what made it.  location: a path or a URI."""
    folder, name = split_location(location)
    folder.create()
    rates = {piece.name: asdict(rate) for piece, rate in measurement.speed.rates.items()}
    speed = {"device": measurement.speed.device, "num_steps": measurement.speed.num_steps, "rates": rates}
    of = {name: value for name, value in vars(measurement).items() if name not in ("speed", "machine")}
    folder.write_json(name, {"format": FORMAT, **speed, **measurement.machine._asdict(), **of, "origin": provenance()})


def read_speed(location: str) -> Measurement:
    """Read the file.  Raises UserError if it is not there, damaged, or of another kind."""
    folder, name = split_location(location)
    try:
        found = folder.read_json(name)
    except FileNotFoundError:
        raise UserError(f"speed {location} is not there: bat-dist plan ... --save_speed FILE writes one") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"speed {location} is no measured speed: bat-dist plan ... --save_speed FILE writes one")
    try:
        rates = {Piece[piece]: Rate(**rate) for piece, rate in found["rates"].items()}
        numbers = [found[name] for name in ("gpus", "cpus", "num_steps", "threads", "image_size", "num_classes")]
        is_sound = all(isinstance(number, int) for number in numbers) and found["precision"] in get_args(Precision)
        if is_sound and all(rate.seconds > 0 and rate.standard_error >= 0 for rate in rates.values()):
            of = {name: found[name] for name in ("threads", "arch", "image_size", "num_classes", "precision")}
            speed = Speed(found["device"], rates, found["num_steps"])
            later = ("crop_scale", "crop_size", "trial_arch", "trial_precision")  # not in files of earlier versions
            of |= {name: found.get(name) for name in later}
            return Measurement(speed, MeasuredMachine(found["gpus"], found["cpus"]), **of)
    except (KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"speed {location} is damaged: measure again (bat-dist plan ... --save_speed FILE)")
