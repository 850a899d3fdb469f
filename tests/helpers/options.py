"""Command lines for tests: options in place of those that stand in a common part."""

from collections.abc import Iterable
from pathlib import Path


def last_ones(words: Iterable[str | Path]) -> list[str]:
    """The words without an option, and its values, that is given again further on: programs refuse that."""
    options: dict[str, list[str]] = {}
    name = ""
    for word in map(str, words):
        if word.startswith("--"):
            name = word.partition("=")[0].removeprefix("--no_").removeprefix("--").replace("-", "_")
            options.pop(name, None)
            options[name] = []
        options.setdefault(name, []).append(word)
    return [word for words in options.values() for word in words]
