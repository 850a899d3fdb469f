"""Which alpha and beta?  A sweep on Ray Tune: many points, several seeds, chosen on the validation split.

    bat-dist tune --config tune_configs/smoke.yaml --out runs/smoke
    bat-dist tune --config tune_configs/cifar10-resnet18.yaml --base scores=results/memorization.npz --out runs/sweep
    ray submit cluster/gpu.yaml bat_dist/tune.py -- --config tune_configs/cifar10-resnet18.yaml ...

The same command resumes; points and seeds may be added.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Train every point of a space with several seeds, choose on the validation split, and look at the test set once, "
    "for the chosen point and PGD-AT. alpha = beta = 0, which is PGD-AT, is always among the points."
)
EXAMPLES = """
bat-dist tune --config tune_configs/smoke.yaml --out runs/smoke
bat-dist tune --config tune_configs/cifar10-resnet18.yaml --base scores=results/memorization.npz --out runs/sweep
bat-dist tune --status --out runs/sweep
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.known import of_scores_in_base
    from bat_dist.settings.tune import TuneSettings, find_config, scores_beside
    from bat_dist.workers.private_ray import prepare_environment

    words = find_config(argv)
    settings, sources = settings_of_call("tune", TuneSettings, words, DESCRIPTION, EXAMPLES, data=of_scores_in_base)
    settings = scores_beside(settings, sources)
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.own_parts import import_parts
    from bat_dist.jobs.tune import carry_out_sweep
    from bat_dist.jobs.tune_plan import plan_sweep
    from bat_dist.jobs.tune_test import judge_chosen
    from bat_dist.reporting.sweep import report_sweep
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver
    from bat_dist.sweep.results import summarize

    folder = Folder(settings.out)
    choice = {"metric": settings.metric, "which": settings.which}
    import_parts(settings.example)
    dataset = load_dataset(settings.example.dataset, **settings.example.data)
    with only_driver(folder):
        sweep, outcomes = carry_out_sweep(plan_sweep(folder, dataset, settings))
        results = summarize(outcomes, **choice)
        tested = judge_chosen(sweep, results)
        print(report_sweep(folder, results, tested, about=sweep.about))
    return int(any(outcome.state not in ("done", "stopped") for outcome in results.outcomes))


if __name__ == "__main__":
    run_installed("tune")
