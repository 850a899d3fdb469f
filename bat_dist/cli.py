"""`bat-dist VERB ...` calls `main(argv)` of the file of that name."""

import importlib
from collections.abc import Sequence
from typing import NoReturn

from bat_dist import __version__
from bat_dist.errors import UserError
from bat_dist.program import exit_with, run_command
from bat_dist.verbs import FILES, VERBS
from bat_dist.wording import nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit code, 2 for a verb that does not exist."""
    return run_command(_dispatch, argv)


def program() -> NoReturn:
    """The console script `bat-dist`."""
    exit_with(main())


def _dispatch(argv: Sequence[str]) -> int:
    verb, *rest = argv or [""]
    if verb == "help" and rest:
        verb, *rest = [*rest, "--help"]
    if verb in ("--help", "-h", "help"):
        print(_help())
    elif verb == "--version":
        print(f"bat-dist {__version__}")
    elif verb in VERBS:
        return importlib.import_module(f"bat_dist.{FILES.get(verb, verb)}").main(rest)
    else:
        problem = f"no command {verb}{nearest(verb, VERBS)}" if verb else "no command given"
        raise UserError(f"{problem} (there are: {', '.join(VERBS)})")
    return 0


def _help() -> str:
    width = 2 + max(map(len, VERBS))
    lines = [f"  {verb:<{width}}{text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: bat-dist COMMAND [options]",
            "",
            *lines,
            "",
            "bat-dist help COMMAND shows its options and examples, bat-dist --version the version of this program.",
        ]
    )
