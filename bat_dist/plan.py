"""What will a job cost?  Hours, disk and money, from a few timed batches on this machine.

    bat-dist plan --dataset cifar10 --arch resnet18 --num_trials 1000 --workers 8 --price 2.5

Nothing is trained, and the data need not be at hand: random images of the same shape take the same time.
"""

from collections.abc import Sequence

DESCRIPTION = (
    "Say what leave-out trials, trainings and evaluations will take (worker-hours, wall-clock, disk, money), from one "
    "measurement of this machine. It says nothing about another machine."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the exit code is 0 (done) or 2 (bad input)."""
    from bat_dist.config import run_command

    return run_command(_plan, argv)


def is_of_a_table(argv: Sequence[str]) -> bool:
    """Is the plan of `bat-dist reproduce` asked for?"""
    return any(word.partition("=")[0] == "--table" for word in argv)


def _plan(argv: Sequence[str]) -> int:
    from bat_dist.config import parse
    from bat_dist.orchestration.plan_settings import PlanSettings, TablePlanSettings

    if is_of_a_table(argv):
        settings = parse(TablePlanSettings, argv, prog="bat-dist plan", description=DESCRIPTION)[0].plan
    else:
        settings, _ = parse(PlanSettings, argv, prog="bat-dist plan", description=DESCRIPTION)
    # Everything that loads torch comes after --help and the settings' own checks.
    from bat_dist.orchestration.plan_text import describe
    from bat_dist.orchestration.planning import plan

    print(describe(plan(settings), settings))
    return 0


if __name__ == "__main__":
    from bat_dist.plan import main as installed_main

    raise SystemExit(installed_main())
