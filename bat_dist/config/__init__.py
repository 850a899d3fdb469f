"""Typed settings: defaults < what folders know < YAML file < command line.

Every error at once, each with the nearest valid name.

A settings class is a frozen dataclass whose fields say what they mean and what they may be::

    @dataclass(frozen=True)
    class Settings:
        dataset: Annotated[Literal["digits", "cifar10"], Help("what to learn"), Group("data")]
        num_trials: Annotated[int, Ge(1), Help("number of leave-out trials")] = 1000

Fields are int, float, bool, str, Literal, a tuple or list of these, a dict, or any of them with None. A dict is a block
of YAML, and `--name key=value ...` on the command line, which then wins over the file key by key. A field without a
default is required. Constraints of `annotated_types` and validators of pydantic hold; rules between fields
belong in `__post_init__`, as ValueError.

A mistake of the user is a `UserError` wherever it is found, and `run_command` makes it exit code 2. Any other
exception, a plain ValueError from inside the house too, keeps its traceback.
"""

from bat_dist.config.command_line import help_text
from bat_dist.config.declared import Group, Help, required_names
from bat_dist.config.plain import differences, dump_yaml, plain, to_dict
from bat_dist.config.reading import COMMAND_LINE, Given, Known, from_dict, parse, status_asked

__all__ = ["COMMAND_LINE", "Given", "Group", "Help", "Known", "differences", "dump_yaml", "from_dict", "help_text"]
__all__ += ["parse", "plain", "required_names", "status_asked", "to_dict"]
