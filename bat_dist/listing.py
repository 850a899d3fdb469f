"""Which datasets, architectures, methods and attacks are there?  Their names, with a line about each.

bat-dist list
bat-dist list attacks methods
bat-dist list datasets --json
"""

import json
import typing
from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = "Print the names that --dataset, --arch, --method and --attacks take, with a line about each."
EXAMPLES = """
bat-dist list
bat-dist list attacks methods
bat-dist list datasets --json
"""


def with_option(argv: Sequence[str]) -> list[str]:
    """The words of a call in which the kinds of names, its first words, follow `--what`."""
    return ["--what", *argv] if argv and not argv[0].startswith("-") else [*argv]


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done) or 2 (bad input)."""
    from bat_dist.config import parse
    from bat_dist.settings.listing import Kind, ListSettings, names

    settings, _ = parse(
        ListSettings, with_option(argv), prog="bat-dist list", description=DESCRIPTION, examples=EXAMPLES
    )
    wanted = {kind: names()[kind] for kind in settings.what or typing.get_args(Kind)}
    if settings.json:
        print(json.dumps(wanted, indent=1))
        return 0
    width = 2 + max(len(name) for lines in wanted.values() for name in lines)
    for number, (kind, lines) in enumerate(wanted.items()):
        print("\n" * (number > 0) + f"{kind}:")
        for name, line in lines.items():
            print(f"  {name:<{width}}{line}")
    return 0


if __name__ == "__main__":
    run_installed("listing")
