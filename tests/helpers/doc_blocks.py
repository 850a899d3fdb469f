"""The fenced blocks of Markdown pages, and what is said of them."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(
    r"(?:<!-- python: (?P<mark>[^>]*?) -->\n+ *)?^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
NOT_RUN = "not run: "


class Block(NamedTuple):
    """A fenced block. line: of its first line, from 1. title: the file that it is, or ""; mark: `<!-- python: MARK -->`
    before it, or "".
    """

    line: int
    language: str
    title: str
    mark: str
    text: str

    @property
    def reason(self) -> str:
        """Why it is not run, or "" if it is."""
        return self.mark.removeprefix(NOT_RUN) if self.mark.startswith(NOT_RUN) else ""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    text = page.read_text()
    return [
        Block(
            text.count("\n", 0, found.start("text")) + 1,
            found["language"],
            found["title"] or "",
            found["mark"] or "",
            textwrap.dedent(found["text"]),
        )
        for found in FENCE.finditer(text)
    ]
