"""`bat-dist VERB ...` calls `main(argv)` of the file of that name."""

import importlib
from collections.abc import Sequence
from typing import NoReturn

from bat_dist import __version__
from bat_dist.errors import UserError
from bat_dist.program import exit_with, run_command
from bat_dist.wording import nearest

VERBS = {
    "memorize": "leave-out trials, then memorization and influence scores",
    "train": "one training run of any method, on one or many workers",
    "tune": "sweep alpha and beta",
    "evaluate": "attack checkpoints: clean, FGSM, PGD, CW, AutoAttack",
    "export": "a trained network for others: Hugging Face Hub, RobustBench, ONNX",
    "reproduce": "a table of the paper: memorize, train, evaluate and report, from one command",
    "report": "tables, figures and one HTML page from all results",
    "study": "a study of the paper: which samples help, which hurt, and which claims hold",
    "collect": "fetch results from the head node of a cluster",
    "plan": "what a job will cost, before it is spent",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit code, 2 for a verb that does not exist."""
    return run_command(_dispatch, argv)


def program() -> NoReturn:
    """The console script `bat-dist`."""
    exit_with(main())


def _dispatch(argv: Sequence[str]) -> int:
    verb, *rest = argv or [""]
    if verb in ("--help", "-h", "help"):
        print(_help())
    elif verb == "--version":
        print(f"bat-dist {__version__}")
    elif verb in VERBS:
        return importlib.import_module(f"bat_dist.{verb}").main(rest)
    else:
        problem = f"no command {verb}{nearest(verb, VERBS)}" if verb else "no command given"
        raise UserError(f"{problem} (there are: {', '.join(VERBS)})")
    return 0


def _help() -> str:
    lines = [f"  {verb:<10}{text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: bat-dist COMMAND [options]",
            "",
            *lines,
            "",
            "bat-dist COMMAND --help lists its options, bat-dist --version says which version this is.",
        ]
    )
