"""Settings of `bat-dist collect`.  Imports neither torch nor ray, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Annotated

from bat_dist.config import Help


@dataclass(frozen=True, kw_only=True)
class CollectSettings:
    """`bat-dist collect`."""

    cluster: Annotated[str, Help("the file that `ray up` was given; may come first, without --cluster", "FILE.yaml")]
    out: Annotated[str, Help("local folder; each run gets a folder in it", "DIR")]
    runs: Annotated[
        tuple[str, ...], Help("result folders on the head, or URIs; default: all that ran on it", "DIR")
    ] = ()
    checkpoints: Annotated[bool, Help("weights too")] = False
