"""Fetch results from a cluster: scores, rows, tables and pages, and checkpoints if asked.

    bat-dist collect cluster/gpu.yaml --out fetched
    bat-dist collect cluster/gpu.yaml --runs /shared/digits --out fetched --checkpoints

The head remembers the result folders of the programs that ran on it; `--runs` names others.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Fetch what programs wrote on a cluster: from the head node by rsync, from s3:// and the like directly. "
    "The cluster file may come first: bat-dist collect CLUSTER.yaml --out DIR"
)
EXAMPLES = """
bat-dist collect cluster/gpu.yaml --out fetched
bat-dist collect cluster/gpu.yaml --runs /shared/digits --out fetched --checkpoints
"""


def options(argv: Sequence[str]) -> list[str]:
    """The words with `--cluster` before a file that stands first, as it does in Ray's own commands."""
    first = ["--cluster"] if argv and not argv[0].startswith("-") else []
    return [*first, *argv]


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (something could not be fetched)."""
    from bat_dist.config import parse
    from bat_dist.settings.collect import CollectSettings

    settings, _ = parse(
        CollectSettings, options(argv), prog="bat-dist collect", description=DESCRIPTION, examples=EXAMPLES
    )
    from bat_dist.workers.collecting import collect  # after --help: it loads numpy

    for fetched in collect(settings):
        print(fetched)
    return 0


if __name__ == "__main__":
    run_installed("collect")
