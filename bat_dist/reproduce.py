"""One table of the paper from one command: memorize -> train rows x seeds -> evaluate -> report, on Ray.

    bat-dist reproduce --table 1 --scale small --out demo
    bat-dist reproduce --table 3 --data_dir data --out results/table3
    ray submit cluster/gpu.yaml bat_dist/reproduce.py -- --table 1 --data_dir /shared/data --out /shared/table1

The same command resumes: what is there is kept; seeds, rows, checkpoints and attacks may be added.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "All runs of a table of the paper: leave-out trials for the scores that BAT needs, trainings of every method with "
    "every seed, attacks on their checkpoints, and the report with error bars beside the paper's numbers."
)
EXAMPLES = """
bat-dist reproduce --table 1 --scale small --out demo
bat-dist reproduce --table 3 --data_dir data --out results/table3
bat-dist reproduce --status --out results/table3
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.reproduce import REPORT, ReproduceSettings
    from bat_dist.workers.private_ray import prepare_environment

    settings, _ = settings_of_call("reproduce", ReproduceSettings, argv, DESCRIPTION, EXAMPLES)
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.all_studies import Studies
    from bat_dist.jobs.experiment_tasks import Reports
    from bat_dist.jobs.own_parts import import_parts
    from bat_dist.jobs.reproduce import carry_out_experiment
    from bat_dist.reporting.memorization import report_leave_out
    from bat_dist.reporting.report import write_report
    from bat_dist.reporting.training import report_training
    from bat_dist.results.compare import compare
    from bat_dist.results.find import find_results
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver

    import_parts(settings)
    dataset = load_dataset(settings.data_name, **settings.data)
    folder = Folder(settings.out)
    with only_driver(folder):
        reports = Reports(report_leave_out, report_training)
        ended = carry_out_experiment(folder, dataset, settings, reports)
        failed = dict(ended.failed)
        if settings.study_settings and not ended.lost_trials:
            studies = Studies(settings.study_settings)
            for line in studies.lines():
                print(line)
            failed |= studies.failed
        found = find_results([settings.out])
        print(write_report(folder / REPORT, found, compare(found)))
    for task, reason in failed.items():
        print(f"failed: {task}: {reason}")
    return int(bool(failed or ended.lost_trials))


if __name__ == "__main__":
    run_installed("reproduce")
