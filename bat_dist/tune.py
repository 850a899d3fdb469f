"""Which alpha and beta?  A sweep on Ray Tune: many points, several seeds, chosen on the validation split.

    bat-dist tune --config tune_configs/smoke.yaml --out runs/smoke
    bat-dist tune --config tune_configs/cifar10-resnet18.yaml --base scores=results/memorization.npz --out runs/sweep
    ray submit cluster/gpu.yaml bat_dist/tune.py -- --config tune_configs/cifar10-resnet18.yaml ...

The same command resumes; points and seeds may be added.
"""

from collections.abc import Sequence

DESCRIPTION = (
    "Train every point of a space with several seeds, choose on the validation split, and look at the test set once, "
    "for the chosen point and PGD-AT. alpha = beta = 0, which is PGD-AT, is always among the points."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.program import run_command

    return run_command(_tune, argv)


def _tune(argv: Sequence[str]) -> int:
    from bat_dist.config import parse, status_asked
    from bat_dist.settings.known import of_scores_in_base, resumed
    from bat_dist.settings.tune import TuneSettings, find_config, scores_beside
    from bat_dist.workers.private_ray import prepare_environment

    words, about = find_config(argv), {"prog": "bat-dist tune", "description": DESCRIPTION}
    if asked := status_asked(TuneSettings, words, **about):
        from bat_dist.reporting.sweep import describe_sweep
        from bat_dist.storage.files import Folder

        print(describe_sweep(Folder(asked["out"]), **{k: asked[k] for k in ("metric", "which") if k in asked}))
        return 0
    settings, sources = parse(TuneSettings, words, **about, known=resumed("tune", TuneSettings, of_scores_in_base))
    settings = scores_beside(settings, sources)
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.tune import carry_out_sweep
    from bat_dist.jobs.tune_plan import plan_sweep
    from bat_dist.jobs.tune_test import judge_chosen
    from bat_dist.reporting.evaluation import report_evaluation
    from bat_dist.reporting.sweep import report_sweep
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver
    from bat_dist.sweep.results import summarize

    folder = Folder(settings.out)
    choice = {"metric": settings.metric, "which": settings.which}
    dataset = load_dataset(settings.example.dataset, **settings.example.data)
    with only_driver(folder):
        sweep, outcomes = carry_out_sweep(plan_sweep(folder, dataset, settings))
        results = summarize(outcomes, **choice)
        tested = judge_chosen(sweep, results, report=report_evaluation)
        print(report_sweep(folder, results, tested, about=sweep.about))
    return int(any(outcome.state not in ("done", "stopped") for outcome in results.outcomes))


if __name__ == "__main__":
    # Not this file's own main: a script that is copied alone to a cluster's head node must not pickle its own classes.
    from bat_dist.program import exit_with
    from bat_dist.tune import main as installed_main

    exit_with(installed_main())
