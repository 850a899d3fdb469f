"""The one look at the test set that a sweep takes: for the chosen points, and for PGD-AT beside them."""

from collections.abc import Sequence

from bat_dist.config import to_dict
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.evaluate import evaluate
from bat_dist.jobs.evaluate_here import with_earlier
from bat_dist.jobs.fresh import TEST
from bat_dist.jobs.tune_plan import Sweep
from bat_dist.parts import Own
from bat_dist.results.evaluation_file import EVALUATION, AttackRow, read_rows, write_evaluation
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.sections import DataSettings
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import RUNS, SweepRun
from bat_dist.sweep.results import Results
from bat_dist.workers.nodes import job_session


def judge_chosen(sweep: Sweep, results: Results) -> dict[SweepRun, Sequence[AttackRow]]:
    """Attack the chosen points' checkpoints and PGD-AT's; their rows by run; none before every run has ended.

    A checkpoint that has been judged by these attacks is not asked again.
    Raises as `evaluate`.
    """
    if not results.is_complete or not sweep.settings.test_attacks:
        return {}
    names = [results.reference, *results.chosen]
    runs = list(dict.fromkeys(o.run for point in results.points if point.name in names for o in point.outcomes))
    known = {run: rows for run in runs if (rows := _judged(sweep, run))}
    if len(known) == len(runs):
        return known
    with job_session(sweep.settings, sweep.folder, all_write=False):
        return {run: known.get(run) or _judge(sweep, run) for run in runs}


def _place(sweep: Sweep, run: SweepRun) -> Folder:
    return sweep.folder / run.name.replace(RUNS, TEST, 1)


def _judged(sweep: Sweep, run: SweepRun) -> Sequence[AttackRow] | None:
    """What is known already."""
    place, asked = _place(sweep, run), sweep.settings
    if not place.exists(EVALUATION):
        return None
    settings = place.read_json(EVALUATION)["settings"]
    is_enough = settings["which"] == asked.which and set(asked.test_attacks or ()) <= set(settings["attacks"])
    return _rows_of(sweep, place) if is_enough else None


def _rows_of(sweep: Sweep, place: Folder) -> list[AttackRow]:
    """The rows of the attacks that are asked for, in their order: an evaluation may hold others, in another order."""
    asked = list(sweep.settings.test_attacks or ())
    if set(place.read_json(EVALUATION)["settings"]["attacks"]) == set(asked):
        asked.append("worst_case")  # which is over all attacks of an evaluation
    rows = read_rows(place) or ()
    return [row for name in asked for row in rows if _attack_of(row) == name]


def _attack_of(row: AttackRow) -> str:
    """`autoattack` for its part `autoattack:apgd-ce`, `pgd20` for `pgd20@1`."""
    return row.attack.partition("@")[0].partition(":")[0]


def _judge(sweep: Sweep, run: SweepRun) -> Sequence[AttackRow]:
    place, example = _place(sweep, run), sweep.example
    data = {name: value for name, value in to_dict(example).items() if name in DataSettings.__dataclass_fields__}
    settings = EvaluateSettings(
        **{**data, "out": place.location},
        checkpoint=(sweep.folder / run.name).location,
        which=sweep.settings.which,
        model=example.arch if isinstance(example.arch, Own) else None,
        attacks=sweep.settings.test_attacks or (),
        epsilon=example.epsilon,
        gpus_per_worker=example.gpus_per_worker,
        cpus_per_worker=example.cpus_per_worker,
        check_images=0,
    )
    settings = with_earlier(place, settings)
    subject = load_subject(sweep.dataset, settings)
    evaluation = evaluate(place, sweep.dataset, settings, subject)
    write_evaluation(
        place, sweep.dataset, to_dict(settings), evaluation, subsets={}, facts=subject.facts, digest=subject.digest
    )
    return _rows_of(sweep, place)
