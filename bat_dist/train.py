"""Train one network by any method: in this process, or data-parallel on Ray.

    bat-dist train --method pgd_at --dataset cifar10 --arch resnet18 --out runs/pgd_at
    bat-dist train --method bat --scores results/memorization.npz --num_workers 4 ...
    ray submit cluster/gpu.yaml bat_dist/train.py -- ...

The same command resumes, from the last epoch that was finished.
"""

from collections.abc import Sequence

DESCRIPTION = (
    "Train a network on clean images (erm) or adversarially (pgd_at, trades, mart, gairat, bat), with validation, "
    "checkpoints and a history of every epoch."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.program import run_command

    return run_command(_train, argv)


def _train(argv: Sequence[str]) -> int:
    from bat_dist.config import parse, status_asked
    from bat_dist.settings.known import of_scores, resumed
    from bat_dist.settings.train import TrainSettings
    from bat_dist.workers.private_ray import prepare_environment

    about = {"prog": "bat-dist train", "description": DESCRIPTION}
    if asked := status_asked(TrainSettings, argv, **about):
        from bat_dist.storage.files import Folder
        from bat_dist.training.status import describe

        print(describe(Folder(asked["out"])))
        return 0
    settings, _ = parse(TrainSettings, argv, **about, known=resumed("train", TrainSettings, of_scores))
    if settings.num_workers:
        prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.train import carry_out
    from bat_dist.jobs.training_plan import make_plan
    from bat_dist.reporting.training import report_training
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver
    from bat_dist.training.files import read_history

    dataset = load_dataset(settings.dataset, **settings.data)
    plan = make_plan(dataset, settings)
    folder = Folder(settings.out)
    with only_driver(folder):
        summary = carry_out(plan)
        print(report_training(folder, summary, read_history(folder)))
    return 0


if __name__ == "__main__":
    # Not this file's own main: a script that is copied alone to a cluster's head node must not pickle its own classes.
    from bat_dist.program import exit_with
    from bat_dist.train import main as installed_main

    exit_with(installed_main())
