"""Write docs/reference.md from the programs' own --help."""

import os
import subprocess
import sys
from pathlib import Path

from bat_dist.verbs import VERBS

HEAD = "# Commands\n\nWritten by `make docs` from the programs' own `--help`.\n"


def reference() -> str:
    """The page: one section per verb."""
    sections = [HEAD]
    for verb in VERBS:
        command = [str(Path(sys.executable).parent / "bat-dist"), verb, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"})
        sections.append(f"## bat-dist {verb}\n\n```\n{done.stdout.rstrip()}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    (Path(__file__).parent / "reference.md").write_text(reference())
