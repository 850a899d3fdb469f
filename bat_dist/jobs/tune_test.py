"""The one look at the test set that a sweep takes: for the chosen points, and for PGD-AT beside them."""

from collections.abc import Callable
from typing import Any

from bat_dist.config import to_dict
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.evaluate import evaluate, with_earlier
from bat_dist.jobs.fresh import TEST
from bat_dist.jobs.tune_plan import Sweep
from bat_dist.results.find import EVALUATION as RESULT
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.sections import DataSettings
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import RUNS, SweepRun
from bat_dist.sweep.results import Results
from bat_dist.workers.nodes import job_session

Rows = list[dict[str, Any]]  # of that file


def judge_chosen(sweep: Sweep, results: Results, *, report: Callable[..., Any]) -> dict[SweepRun, Rows]:
    """Attack the chosen points' checkpoints and PGD-AT's; their rows by run; none before every run has ended.

    A checkpoint that has been judged by these attacks is not asked again. report: `reporting.evaluation`'s.
    Raises as `evaluate`.
    """
    if not results.is_complete or not sweep.settings.test_attacks:
        return {}
    names = [results.reference, *results.chosen]
    runs = list(dict.fromkeys(o.run for point in results.points if point.name in names for o in point.outcomes))
    known: dict[SweepRun, Rows] = {}
    for run in runs:
        if (place := _place(sweep, run)).exists(RESULT):
            found = place.read_json(RESULT)
            before, asked = found["settings"], sweep.settings
            if before["which"] == asked.which and set(asked.test_attacks or ()) <= set(before["attacks"]):
                known[run] = found["rows"]
    if len(known) == len(runs):
        return known
    with job_session(sweep.settings, sweep.folder, all_write=False):
        return {run: known.get(run) or _judge(sweep, run, report) for run in runs}


def _place(sweep: Sweep, run: SweepRun) -> Folder:
    return sweep.folder / run.name.replace(RUNS, TEST, 1)


def _judge(sweep: Sweep, run: SweepRun, report: Callable[..., Any]) -> Rows:
    place, example = _place(sweep, run), sweep.example
    data = {name: value for name, value in to_dict(example).items() if name in DataSettings.__dataclass_fields__}
    settings = EvaluateSettings(
        **{**data, "out": place.location},
        checkpoint=(sweep.folder / run.name).location,
        which=sweep.settings.which,
        attacks=sweep.settings.test_attacks or (),
        epsilon=example.epsilon,
        gpus_per_worker=example.gpus_per_worker,
        cpus_per_worker=example.cpus_per_worker,
        check_images=0,
    )
    settings = with_earlier(place, settings)
    subject = load_subject(sweep.dataset, settings)
    evaluation = evaluate(place, sweep.dataset, settings, subject)
    report(
        place,
        sweep.dataset,
        to_dict(settings),
        evaluation,
        subsets={},
        facts=subject.facts,
        digest=subject.digest,
    )
    return place.read_json(RESULT)["rows"]
