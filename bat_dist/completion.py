"""Completion of commands, options, names and files in a shell, from what the programs take.

bat-dist completion bash > ~/.local/share/bash-completion/completions/bat-dist
bat-dist completion zsh > ~/.zfunc/_bat-dist
bat-dist completion tcsh > ~/.bat-dist.tcsh
"""

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bat_dist.program import command, run_installed
from bat_dist.verbs import FILES, VERBS

DESCRIPTION = (
    "Print a script by which a shell completes the commands of bat-dist, their options and the names that these take. "
    "Open a new shell afterwards; zsh must have the folder in its fpath before compinit, tcsh must source the file."
)
EXAMPLES = """
bat-dist completion bash > ~/.local/share/bash-completion/completions/bat-dist
bat-dist completion zsh > ~/.zfunc/_bat-dist
bat-dist completion tcsh > ~/.bat-dist.tcsh
"""
KIND_OF_NAMES = {
    **{"dataset": "datasets", "arch": "archs", "ensemble_archs": "archs"},
    **{"method": "methods", "methods": "methods", "attacks": "attacks", "test_attacks": "attacks"},
}
FIRST = {"collect": "cluster", "study": "study", "list": "what", "completion": "shell"}
"""The setting that the first words of a verb are of, without its option."""


OTHER_FORMS = {"plan": [("program_plans", "TablePlanSettings"), ("program_plans", "StudyPlanSettings")]}
"""Files below `settings`, and classes there."""


def settings_classes(verb: str) -> list[Callable[..., Any]]:
    """The class of a verb's settings, and those of its other forms."""
    forms = [(FILES.get(verb, verb), f"{verb.title()}Settings"), *OTHER_FORMS.get(verb, [])]
    return [getattr(importlib.import_module(f"bat_dist.settings.{file}"), name) for file, name in forms]


def parser_of_all(verbs: Mapping[str, str]) -> argparse.ArgumentParser:
    """All verbs with their options and what these take, for completion alone: it checks nothing."""
    parser = argparse.ArgumentParser(prog="bat-dist", add_help=False)
    parser.add_argument("--help", "-h", action="store_true", help="what the commands are")
    parser.add_argument("--version", action="store_true", help="the version of this program")
    commands = parser.add_subparsers()
    for verb, about in verbs.items():
        _add_options(commands.add_parser(verb, help=about, description=about, add_help=False), verb)
    asked = commands.add_parser("help", help="options and examples of a command", add_help=False)
    asked.add_argument("command", choices=list(verbs), help="which command")
    return parser


def _add_options(parser: argparse.ArgumentParser, verb: str) -> None:
    from bat_dist.config.declared import declared
    from bat_dist.settings.listing import names

    parser.add_argument("--help", "-h", action="store_true", help="options and examples")
    parser.add_argument("--config", metavar="FILE.yaml", help="settings from a file").complete = _FILE  # pyright: ignore[reportAttributeAccessIssue]
    known = names()
    settings = {name: one for form in reversed(settings_classes(verb)) for name, one in declared(form).items()}
    for setting in settings.values():
        choices = [*setting.choices] or [
            name for name in known.get(KIND_OF_NAMES.get(setting.name, ""), ()) if "NAME" not in name
        ]
        how: dict[str, Any] = {"choices": choices} if choices else {}
        if "boolean" in setting.kinds:
            how, options = {"action": "store_true"}, [f"--{setting.name}", f"--no_{setting.name}"]
        elif "array" in setting.kinds or setting.is_mapping:
            how, options = {**how, "nargs": "*"}, [f"--{setting.name}"]
        else:
            options = [f"--{setting.name}"]
        text = setting.help.text.replace("%", "%%").replace("`", "")
        places = [options] if FIRST.get(verb) != setting.name else [options, [setting.name]]
        for place in places:
            action = parser.add_argument(*place, help=text, **how)
            if not choices and setting.help.metavar.split(".")[0] in ("FILE", "DIR", "DIR_OR_FILE"):
                action.complete = _FILE  # pyright: ignore[reportAttributeAccessIssue]


_FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # folders among them


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done) or 2 (bad input)."""
    from bat_dist.config import parse
    from bat_dist.settings.completion import CompletionSettings

    words = ["--shell", *argv] if argv and not argv[0].startswith("-") else argv
    settings, _ = parse(
        CompletionSettings, words, prog="bat-dist completion", description=DESCRIPTION, examples=EXAMPLES
    )
    import shtab

    print(shtab.complete(parser_of_all(VERBS), shell=settings.shell))
    return 0


if __name__ == "__main__":
    run_installed("completion")
