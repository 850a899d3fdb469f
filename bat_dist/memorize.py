"""Which training samples does a network memorize?  Leave-out trials on Ray -> trial store -> scores -> figures.

    bat-dist memorize --dataset digits --num_trials 100 --out results/digits
    python bat_dist/memorize.py ...
    ray submit cluster/gpu.yaml bat_dist/memorize.py -- ...

The same command resumes: finished trials are kept, missing, failed and damaged ones are run.  In Python:
`from bat_dist import memorize`, which is the function, not this module.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Estimate how much each training sample is memorized (Feldman & Zhang 2020): train many networks on random "
    "subsets with Ray, and compare their accuracy on each sample with it in and left out."
)
EXAMPLES = """
bat-dist memorize --dataset digits --num_trials 100 --out results/digits
bat-dist memorize --dataset cifar10 --data_dir data --download --gpus_per_trial 0.25 --out results/cifar10
bat-dist memorize --status --out results/digits
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.known import of_merge
    from bat_dist.settings.memorize import MemorizeSettings
    from bat_dist.workers.private_ray import prepare_environment

    settings, _ = settings_of_call("memorize", MemorizeSettings, argv, DESCRIPTION, EXAMPLES, data=of_merge)
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.api.memorize import carry_out
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.fill_rows import conclude
    from bat_dist.jobs.own_parts import import_parts

    import_parts(settings)
    made = carry_out(settings, load_dataset(settings.dataset, **settings.data))
    print(made.text)
    return conclude(made.filled, made.what) if made.filled else 0


if __name__ == "__main__":
    run_installed("memorize")
