"""What a call of a program asks for: to see what its folder holds, or to do what its settings say.

Imports nothing heavy until a status is asked for, so that `--help` answers at once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from bat_dist.config import Given, Known, parse, status_asked
from bat_dist.settings.known import nothing, resumed

S = TypeVar("S")


def settings_of_call(
    verb: str,
    settings_class: Callable[..., S],
    argv: Sequence[str],
    description: str,
    examples: str,
    *,
    data: Known = nothing,
) -> tuple[S, dict[str, str]]:
    """The settings, and where each given one came from; data: what other folders know of the data.

    description, examples: for `--help`.
    `--help` and `--status` print and raise SystemExit(0).  Raises ConfigError with all errors.
    """
    about = {"prog": f"bat-dist {verb}", "description": description, "examples": examples}
    if given := status_asked(settings_class, argv, **about):
        print(_status(verb, given))
        raise SystemExit(0)
    return parse(settings_class, argv, **about, known=resumed(verb, settings_class, data))


def _status(verb: str, given: Mapping[str, Given]) -> str:
    from bat_dist.storage.files import Folder

    folder = Folder(given["out"].value)
    if verb == "memorize":
        from bat_dist.storage import status

        return status.describe(folder)
    if verb == "train":
        from bat_dist.training import status

        return status.describe(folder)
    if verb == "tune":
        from bat_dist.reporting.sweep import describe_sweep

        return describe_sweep(folder, **{name: given[name].value for name in ("metric", "which") if name in given})
    from bat_dist.results.status import describe_evaluation, describe_experiment, describe_studies

    describe = {"evaluate": describe_evaluation, "reproduce": describe_experiment, "study": describe_studies}
    return describe[verb](folder)
