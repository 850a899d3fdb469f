"""Files of this room appear whole or not at all: they are written aside and then renamed."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def written_aside(*paths: Path) -> Iterator[list[Path]]:
    """Yield a path beside each of `paths` to write to; on success they are renamed, on failure removed."""
    with ExitStack() as stack:
        aside = [path.with_name(f"{path.name}.{os.getpid()}.partial") for path in paths]
        for path, partial in zip(paths, aside, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(partial.unlink, missing_ok=True)
        yield aside
        for path, partial in zip(paths, aside, strict=True):
            partial.replace(path)  # os.replace: atomic within one folder
