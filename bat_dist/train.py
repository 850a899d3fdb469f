"""Train one network by any method: in this process, or data-parallel on Ray.

    bat-dist train --method pgd_at --dataset cifar10 --arch resnet18 --out runs/pgd_at
    bat-dist train --method bat --scores results/memorization.npz --num_workers 4 ...
    ray submit cluster/gpu.yaml bat_dist/train.py -- ...

The same command resumes, from the last epoch that was finished.  In Python: `from bat_dist import train`, which is the
function, not this module.
"""

from collections.abc import Sequence

from bat_dist.methods.table import METHODS
from bat_dist.program import command, run_installed

DESCRIPTION = (
    f"Train a network on clean images (erm) or adversarially ({', '.join(name for name in METHODS if name != 'erm')}), "
    "with validation, checkpoints and a history of every epoch."
)
EXAMPLES = """
bat-dist train --method pgd_at --dataset digits --recipe fast --out runs/pgd_at
bat-dist train --method bat --scores results/digits/memorization.npz --recipe fast --out runs/bat
bat-dist train --method trades --dataset cifar10 --data_dir data --num_workers 4 --out runs/trades
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.known import of_scores
    from bat_dist.settings.train import TrainSettings
    from bat_dist.workers.private_ray import prepare_environment

    settings, _ = settings_of_call("train", TrainSettings, argv, DESCRIPTION, EXAMPLES, data=of_scores)
    if settings.num_workers:
        prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.api.train import carry_out
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.own_parts import import_parts

    import_parts(settings)
    dataset = load_dataset(settings.dataset, **settings.data)
    print(carry_out(settings, dataset).text)
    return 0


if __name__ == "__main__":
    run_installed("train")
