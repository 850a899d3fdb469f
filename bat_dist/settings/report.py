"""Settings of `bat-dist report`.  Imports neither torch nor ray, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from bat_dist.config import Help
from bat_dist.storage.places import Place


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """`bat-dist report`."""

    runs: Annotated[tuple[str, ...], Help("folders or URIs; every result below them is found", "DIR")] = ()
    watch: Annotated[
        tuple[str, ...], Help("the same, again and again while runs go on, until it is interrupted", "DIR")
    ] = ()
    out: Annotated[Place | None, Help("folder of the report; default: `report` in the first of these", "DIR")] = None
    reference: Annotated[
        str | None, Help("method, or label of a row, that the others are compared with; default: pgd_at", "NAME")
    ] = None
    every: Annotated[int, Ge(1), Help("seconds between two looks (watch)")] = 30

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("which results? Give --runs DIR ..., or --watch DIR ...")

    @property
    def folders(self) -> tuple[str, ...]:
        """Where results are looked for."""
        return (*self.runs, *self.watch)

    @property
    def place(self) -> str:
        """Where the report is written."""
        return self.out or self.folders[0].rstrip("/") + "/report"
