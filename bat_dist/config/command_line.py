"""The words of a command line by option, and what `--help` says."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from bat_dist.config.declared import Setting, declared
from bat_dist.config.plain import plain, shown
from bat_dist.errors import ConfigError
from bat_dist.wording import nearest


def help_text(
    settings_class: Callable[..., Any], *, prog: str, description: str, examples: str = "", without: Iterable[str] = ()
) -> str:
    """What `--help` prints, but for the settings that are named.  examples: lines that are shown as they are."""
    settings = {name: s for name, s in declared(settings_class).items() if name not in set(without)}
    return make_parser(settings, prog, description, examples).format_help()


# Words that are values although they begin with a dash; argparse itself knows -1 and -.5, but not -1e-3.
_NEGATIVE = re.compile(r"-(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|nan)$", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """Collects in `twice` the options that are given more than once: argparse would let the last one win."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._negative_number_matcher = _NEGATIVE
        self.twice: list[str] = []

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError, where argparse would end the process."""
        raise ConfigError([message])


class _Once(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            parser.twice.append(self.dest)
        setattr(namespace, self.dest, values)


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=min(100, shutil.get_terminal_size().columns) - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return str(action.metavar or super()._format_action_invocation(action))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)  # examples have their own lines


def make_parser(settings: dict[str, Setting], prog: str, description: str, examples: str) -> Parser:
    """Takes any number of words after each option; how many there must be is checked later, with all else."""
    required = " ".join(f"--{s.name} {s.metavar}" for s in settings.values() if s.required)
    parser = Parser(
        prog=prog,
        usage=" ".join(filter(None, (prog, required, "[options]"))).replace("%", "%%"),
        description=description,
        epilog=f"examples:\n{textwrap.indent(examples.strip(), '  ')}" if examples else None,
        formatter_class=_Formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    text = "settings from a file, one `name: value` a line; the command line wins over it"
    parser.add_argument("--config", action="append", nargs="*", metavar="--config FILE.yaml", help=text)
    titles = dict.fromkeys(s.group for s in settings.values() if s.group != "options")
    groups = {title: parser.add_argument_group(title) for title in titles}
    for s in settings.values():
        option = f"--{s.name}, --no_{s.name}" if "boolean" in s.kinds else f"--{s.name} {s.metavar}"
        default = "required" if s.required else f"default {shown(plain(s.default))}"
        text = f"{s.help.text} [{default}{s.note}]".strip().replace("%", "%%")
        groups.get(s.group, parser).add_argument(f"--{s.name}", action=_Once, nargs="*", metavar=option, help=text)
    return parser


def read_command_line(
    settings: dict[str, Setting], argv: Sequence[str], parser: Parser
) -> tuple[dict[str, list[str]], list[list[str]], list[str]]:
    """The words after each option, those after each `--config`, and a line for each unknown option."""
    negations = {f"--no_{s.name}": f"--{s.name}=false" for s in settings.values() if "boolean" in s.kinds}
    names = [*settings, "config", "help", *(option.removeprefix("--") for option in negations)]
    words = [re.sub("(?<=^--)[^=]+", lambda name: name[0].replace("-", "_"), word) for word in argv]
    namespace, extra = parser.parse_known_args([negations.get(w, w) for w in words if w != "--"])
    unknown = [word for word in extra if word.startswith("-")]
    errors = [
        f"unknown option {shown(word)} (command line)" + nearest(word.lstrip("-").partition("=")[0], names, prefix="--")
        for word in unknown
    ]
    if extra and not unknown:  # else they may be the values of the unknown
        errors = [f"{shown(extra)} follows no option (command line): write --name value"]
    errors += ["-- ends no options here (command line): leave it out"] * ("--" in words)
    errors += [f"{name} is given twice (command line)" for name in dict.fromkeys(parser.twice)]
    typed = vars(namespace)
    files = typed.pop("config", [])
    return typed, files, errors
