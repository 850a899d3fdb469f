"""A sweep on Ray Tune: trainings of many points with several seeds, resumed from what their folders hold.

Tune places the runs and tells of their epochs; what is done, and what is to be done, stands in the sweep's folder.  So
the same command goes on after a lost driver and takes points that were added later, which a restored Tune experiment
would not.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping
from functools import partial

import ray

from bat_dist.config import to_dict
from bat_dist.errors import RunError
from bat_dist.jobs.auto import decide_precision, say
from bat_dist.jobs.fresh import remove_sweep
from bat_dist.jobs.tune_display import Display
from bat_dist.jobs.tune_plan import VERB, Sweep, plan_sweep, with_base
from bat_dist.jobs.tune_proposer import PointProposer
from bat_dist.jobs.tune_queue import EVERYTHING, Asha, RunCallbacks, RunQueue
from bat_dist.jobs.tune_run import SharedByRuns, train_run
from bat_dist.storage.provenance import command
from bat_dist.storage.recorded import note_settings
from bat_dist.sweep.record import ENDED, RunOutcome, SweepRun, read_outcome
from bat_dist.training.files import read_history
from bat_dist.wording import counted
from bat_dist.workers.hardware import hardware_of_workers
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.nodes import job_session
from bat_dist.workers.resources import Resources, most_workers, worker_resources
from bat_dist.workers.session import ray_storage

log = logging.getLogger(__name__)


def carry_out_sweep(sweep: Sweep) -> tuple[Sweep, list[RunOutcome]]:
    """Train what is missing, and try again what failed; returns the sweep without auto, and the outcome of every run.

    A run that fails does not stop the others. Raises UserError or RunError if no run can be placed.
    """
    settings, folder = sweep.settings, sweep.folder
    known, missing = ({}, []) if settings.fresh else _left(sweep)
    if not (settings.fresh or missing or sweep.num_wanted() > 0):
        sweep.record.add(settings.known_points, to_dict(settings), chosen=sweep.chosen)
        note_settings(folder, VERB, settings)
        log.info("%s holds this sweep, %s at the end", folder, counted(len(known), "run"))
        return sweep, sweep.outcomes()
    heart = Heartbeat(folder, "runs", total=sweep.num_points() * len(settings.seeds))
    with heart, job_session(settings, folder, all_write=True) as terms:
        if settings.fresh:  # only now: nothing is removed for a cluster that does not answer
            remove_sweep(folder)
            sweep = dataclasses.replace(sweep, settings=dataclasses.replace(settings, fresh=False))
            known, missing = _left(sweep)
        resources = worker_resources(
            sweep.example.cpus_per_worker,
            sweep.example.gpus_per_worker,
            of="worker",
            number=max(1, sweep.example.num_workers),
            wait_minutes=terms.wait_minutes,
        )
        sweep = _decided(sweep, resources)
        settings = sweep.settings
        say(sweep.chosen)
        sweep.record.add(settings.known_points, to_dict(settings), chosen=sweep.chosen)
        note_settings(folder, VERB, settings)
        out, data = folder.absolute_location, ray.put(sweep.dataset)
        shared = SharedByRuns(settings, out, data, sweep.scores, terms, command(), resources.gpus)
        proposer = PointProposer(sweep, known) if settings.search == "tpe" else None
        queue = RunQueue(missing, proposer.more if proposer else list)
        asha = _asha(sweep, known)
        ended = [run for run, outcome in known.items() if outcome.state in ENDED]
        pace = heart.begin(done=len(set(ended).difference(missing)))  # those that failed are tried again
        with Display(settings, pace, [o for run, o in known.items() if run not in missing]) as display:
            failed = 0

            def on_end(outcome: RunOutcome) -> None:
                nonlocal failed
                failed += outcome.state in ("failed", "diverged")
                if proposer:
                    proposer.ended(outcome)
                if outcome.state in ENDED:
                    pace.step(failed=failed)
                display.ended(outcome)

            callbacks = RunCallbacks(queue, folder, asha.stopped if asha else set(), display.epoch, on_end)
            pace.watch(callbacks.running)
            _tune(sweep, shared, queue, asha, callbacks, resources.bundle)
    outcomes = sweep.outcomes()
    if all(outcome.state == "waiting" for outcome in outcomes):
        limit = f" within {settings.max_hours:g} hours (max_hours)" if settings.max_hours else ""
        raise RunError(
            f"no run has finished an epoch{limit}; the same command tries again: "
            f"see the logs of Ray, and `bat-dist tune --status --out {folder}`"
        )
    return sweep, outcomes


def _decided(sweep: Sweep, each: Resources) -> Sweep:
    """The sweep in the precision of those who will carry it out."""
    asked = sweep.example.precision
    precision, why = decide_precision(
        asked, partial(hardware_of_workers, each), of_attack=sweep.example.attack_precision
    )
    if asked == precision or "precision" in sweep.settings.space:
        return sweep
    settings = with_base(sweep.settings, precision=precision)
    decided = plan_sweep(sweep.folder, sweep.dataset, settings)
    return dataclasses.replace(decided, chosen=sweep.chosen | why)


def _left(sweep: Sweep) -> tuple[dict[SweepRun, RunOutcome], list[SweepRun]]:
    """How every run stands, and those that are to be trained."""
    known = {run: read_outcome(sweep.folder, run) for run in sweep.runs()}
    go_on = ["waiting", "unfinished", "failed", "diverged"]
    go_on += ["stopped"] if sweep.settings.scheduler == "none" else []
    return known, [run for run, outcome in known.items() if outcome.state in go_on]


def _tune(
    sweep: Sweep,
    shared: SharedByRuns,
    queue: RunQueue,
    asha: Asha | None,
    callbacks: RunCallbacks,
    bundle: Mapping[str, float],
) -> None:
    """Let Tune run the queue."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own files say it all
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this program as it ends the others
        "RAY_AIR_NEW_OUTPUT": "0",  # which prints a box even where nothing is to be printed
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths mean the same everywhere
    }
    from ray import tune

    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # which tells failed trials by ids that nobody knows
    workers = sweep.example.num_workers
    trainable = tune.with_parameters(train_run, shared=shared)
    # With data-parallel workers a run only starts them: it takes no part of a CPU, which one of them may need.
    place = {"memory": 1.0} if workers else {"cpu": bundle["CPU"], "gpu": bundle.get("GPU", 0.0)}
    with ray_storage(sweep.folder) as storage:
        tuner = tune.Tuner(
            tune.with_resources(trainable, place),
            param_space={},
            tune_config=tune.TuneConfig(
                search_alg=queue,
                scheduler=asha,
                num_samples=EVERYTHING,
                max_concurrent_trials=_concurrency(sweep, bundle),
                time_budget_s=sweep.settings.max_hours and sweep.settings.max_hours * 3600,
                reuse_actors=not workers,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                **storage._asdict(),
                callbacks=[callbacks],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        tuner.fit()


def _concurrency(sweep: Sweep, bundle: Mapping[str, float]) -> int | None:
    """Runs at a time.  Data-parallel ones must be counted here: Tune does not see the room that their workers take."""
    asked, workers = sweep.settings.concurrency, sweep.example.num_workers
    if not workers:
        return asked
    each = Resources(int(bundle["CPU"]), bundle.get("GPU", 0.0))
    room = max(1, most_workers(each) // workers)
    return min(asked or room, room)


def _asha(sweep: Sweep, known: Mapping[SweepRun, RunOutcome]) -> Asha | None:
    """The scheduler, told of what earlier sessions saw."""
    if sweep.settings.scheduler == "none":
        return None
    settings = sweep.settings
    asha = Asha(
        sweep.example.training,
        metric=settings.metric[0],
        factor=settings.asha_factor,
        first=settings.asha_first,
    )
    for run, outcome in known.items():
        if outcome.state in ("done", "stopped"):
            asha.replay(run.name, read_history(sweep.folder / run.name))
    return asha
