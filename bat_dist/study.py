"""The paper's own studies: what atypical samples do in adversarial training, from one command each.

    bat-dist study typical --scale small --out studies
    bat-dist study atypical typical --dataset cifar10 --data_dir data --arch resnet18 --out studies
    ray submit cluster/gpu.yaml bat_dist/study.py -- typical --data_dir /shared/data --out /shared/studies

The same command resumes; studies with one --out share their trials and trainings.  In Python: `from bat_dist import
study`, which is the function, not this module.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Regenerate the figures of Sec. 3 and App. A to C and test the claims that rest on them: bat-dist study NAME ... "
    "--out DIR. Each study writes its data, its figure and its findings below DIR/studies."
)
EXAMPLES = """
bat-dist study typical --scale small --out studies
bat-dist study atypical typical --dataset cifar10 --data_dir data --arch resnet18 --out studies
"""


def with_option(argv: Sequence[str]) -> list[str]:
    """The words of a call in which the names of studies, its first words, follow `--study`."""
    return ["--study", *argv] if argv and not argv[0].startswith("-") else [*argv]


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.study import StudySettings
    from bat_dist.workers.private_ray import prepare_environment

    settings, _ = settings_of_call("study", StudySettings, with_option(argv), DESCRIPTION, EXAMPLES)
    prepare_environment(settings.ray_address)
    # What loads libraries comes after --help and the settings' own checks.
    from bat_dist.api.study import StudyRuns

    runs = StudyRuns(settings)
    for line in runs.lines():
        print(line)
    for run, reason in runs.failed.items():
        print(f"failed: {run}: {reason}")
    return int(bool(runs.failed))


if __name__ == "__main__":
    run_installed("study")
