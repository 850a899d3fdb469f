"""Settings of `bat-dist completion`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from bat_dist.config import Help


@dataclass(frozen=True, kw_only=True)
class CompletionSettings:
    """`bat-dist completion`."""

    shell: Annotated[Literal["bash", "zsh", "tcsh"], Help("whose script; may come first, without --shell")]
