"""What went wrong, in words that lead on.

A mistake of the user is a `UserError` wherever it is found, and `program.run_command` makes it exit code 2.  Any other
exception, a plain ValueError from inside the package too, keeps its traceback.
"""

from collections.abc import Iterable

WAY_OUT = "use another --out, or --fresh to replace it"  # of a folder that holds other results


class UserError(ValueError):
    """Bad input: the message names the value, the rule and the way out."""


class RunError(RuntimeError):
    """The run could not go on, through no mistake in its settings: the message says why and how to go on."""


class ConfigError(UserError):
    """All that is wrong with the settings, one line each in `errors`."""

    def __init__(self, errors: Iterable[str]):
        self.errors = list(errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "\n".join(self.errors)
