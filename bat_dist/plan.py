"""What will a job cost?  Hours, disk and money, from a few timed batches on this machine or another.

    bat-dist plan --dataset cifar10 --arch resnet18 --num_trials 1000 --workers 8 --price 2.5

Nothing is trained, and the data need not be at hand: random images of the same shape take the same time.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

PROG = "bat-dist plan"
DATA = ("dataset", "arch", "data_dir", "download", "num_train", "num_test", "image_size", "test_share", "image_storage")
OF_WORKERS = ("workers", "cpus_per_worker", "gpus_per_worker", "sharing_gain", "price", "currency")
MEASURED = ("seconds", "save_speed", "speed")
OF_A_TABLE = (
    "The same for all that `bat-dist reproduce --table N` runs. --dataset and --arch are the table's unless given; "
    "sizes of the data and the options of workers are as above, and these take the place of the others:"
)
DESCRIPTION = (
    "Say what leave-out trials, trainings and evaluations will take (worker-hours, wall-clock, disk, money), from one "
    "measurement: of this machine, or of another, where --save_speed has kept it. `plan --table N` plans all runs of a "
    "table of the paper, and `plan --study NAME` those of a study; their options follow below."
)
EXAMPLES = """
bat-dist plan --dataset cifar10 --arch resnet18 --num_trials 1000 --workers 8 --price 2.5
bat-dist plan --table 1 --workers 8 --price 2.5
bat-dist plan --study atypical --workers 4
"""


OF_STUDIES = (
    "The same for all that `bat-dist study NAME ...` runs, with accuracies along the epochs as evaluations. Sizes of "
    "the data and the options of workers are as above, and these take the place of the others:"
)


def verb_of(argv: Sequence[str]) -> str:
    """Whose plan is asked for: `reproduce` (it alone has a folder, which may know the rest), `study`, or of neither."""
    names = {word.partition("=")[0] for word in argv}
    return "study" if "--study" in names else "reproduce" if names & {"--table", "--out"} else ""


def _help() -> str:
    """What `--help` says of all forms."""
    from bat_dist.config import Group, help_text
    from bat_dist.settings.decides import marks
    from bat_dist.settings.fields import RAY
    from bat_dist.settings.plan import PlanSettings
    from bat_dist.settings.program_plans import StudyPlanSettings, TablePlanSettings

    of_ray = [name for name, group in marks(TablePlanSettings, Group).items() if group == RAY]
    same = {*DATA, *OF_WORKERS, *MEASURED, "robust_share", "status", *of_ray}
    of_table = help_text(TablePlanSettings, prog=PROG, description=OF_A_TABLE, without=same)
    without = {*same, "out", "fresh", "loader", "num_classes", "num_workers"}
    of_studies = help_text(StudyPlanSettings, prog=PROG, description=OF_STUDIES, examples=EXAMPLES, without=without)
    return f"{help_text(PlanSettings, prog=PROG, description=DESCRIPTION)}\n{of_table}\n{of_studies}".rstrip()


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done) or 2 (bad input)."""
    from bat_dist.config import parse
    from bat_dist.settings.known import resumed
    from bat_dist.settings.plan import PlanSettings
    from bat_dist.settings.program_plans import StudyPlanSettings, TablePlanSettings

    if {"--help", "-h"} & {*argv}:
        print(_help())
        return 0
    if verb_of(argv) == "reproduce":
        known = resumed("reproduce", TablePlanSettings)
        table = parse(TablePlanSettings, argv, prog=PROG, description=OF_A_TABLE, known=known)[0]
        settings, not_counted = table.plan, table.not_counted
    elif verb_of(argv) == "study":
        study = parse(StudyPlanSettings, argv, prog=PROG, description=OF_STUDIES)[0]
        settings, not_counted = study.plan, study.not_counted
    else:
        settings, _ = parse(PlanSettings, argv, prog=PROG, description=DESCRIPTION, examples=EXAMPLES)
        not_counted = []
    # Everything that loads torch comes after --help and the settings' own checks.
    from bat_dist.planning.describe import describe
    from bat_dist.planning.plan import plan

    print(describe(plan(settings), settings, not_counted))
    return 0


if __name__ == "__main__":
    run_installed("plan")
