"""The paper's own studies: what atypical samples do in adversarial training, from one command each.

    bat-dist study typical --scale small --out studies
    bat-dist study atypical typical --dataset cifar10 --data_dir data --arch resnet18 --out studies
    ray submit cluster/gpu.yaml bat_dist/study.py -- typical --data_dir /shared/data --out /shared/studies

The same command resumes; studies with one --out share their trials and trainings.
"""

from collections.abc import Mapping, Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Regenerate the figures of Sec. 3 and App. A to C and test the claims that rest on them: bat-dist study NAME ... "
    "--out DIR. Each study writes its data, its figure and its findings below DIR/studies."
)


def with_option(argv: Sequence[str]) -> list[str]:
    """The words of a call in which the names of studies, its first words, follow `--study`."""
    return ["--study", *argv] if argv and not argv[0].startswith("-") else [*argv]


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.study import RESULTS, StudySettings
    from bat_dist.workers.private_ray import prepare_environment

    settings, _ = settings_of_call("study", StudySettings, with_option(argv), DESCRIPTION)
    from bat_dist.reporting.studies.report import redraw, report_study, report_theory
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver

    folder = Folder(settings.out)
    if settings.redraw:
        for name in settings.study:
            redraw(name, folder / RESULTS / name)
        return 0
    from bat_dist.jobs.study_folder import begin_studies

    if not settings.needs_scores:
        with only_driver(folder):
            print("\n".join(report_theory(folder, begin_studies(folder, settings))))
        return 0
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.data.datasets import load_dataset
    from bat_dist.studies.annotation import read_answers
    from bat_dist.studies.inputs import StudyInputs, read_sets
    from bat_dist.studies.people import read_human_labels

    dataset = load_dataset(settings.data_name, **settings.data)
    if settings.labels:  # what people said is read before hours of training, and again after them
        read_human_labels(settings.labels, dataset)
    read_answers(settings.answers, dataset.fingerprint)
    failed: Mapping[str, str] = {}
    with only_driver(folder):
        if settings.needs_workers:
            from bat_dist.jobs.study import carry_out_studies

            failed = carry_out_studies(folder, dataset, settings)
        else:
            settings = begin_studies(folder, settings)
        inputs = StudyInputs(folder, dataset, settings, read_sets(dataset, settings))
        for name in settings.study:
            print("\n".join(report_study(name, inputs)))
    for run, reason in failed.items():
        print(f"failed: {run}: {reason}")
    return int(bool(failed))


if __name__ == "__main__":
    run_installed("study")
