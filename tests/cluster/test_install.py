"""cluster/install.sh, with Python and pip faked: what is said to be ready is there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.cluster_files import CLUSTER

# `-m venv DIR` puts a copy of it there; `-m pip` of that copy puts the program beside it.
PYTHON = """#!/usr/bin/env bash
here=$(dirname "$0")
case $2 in
  venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  pip) echo pip >> "$HOME/calls"
    printf '#!/bin/sh\\necho bat-dist 1.2' > "$here/bat-dist"
    chmod +x "$here/bat-dist" ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home for which everything is installed, by a script beside the files that it looks at."""
    source, tools = tmp_path / "source", tmp_path / "tools"
    for name in ("bat_dist", "tune_configs", "cluster"):
        (source / name).mkdir(parents=True)
    for name in ("bat_dist/x.py", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        (source / name).touch()
    for name in ("install.sh", "env.sh"):
        shutil.copy(CLUSTER / name, source / "cluster" / name)
    tools.mkdir()
    for name, text in {"python3.11": PYTHON, "dpkg": "#!/bin/sh\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    assert "ready: bat-dist 1.2 on " in install(tmp_path / "home").stdout
    return tmp_path / "home"


def install(home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "PATH": f"{home.parent}/tools:{os.environ['PATH']}"}
    script = home.parent / "source/cluster/install.sh"
    return subprocess.run(["bash", script], capture_output=True, text=True, check=False, env=environment)


def test_what_is_installed_is_not_installed_again(home: Path) -> None:
    before = (home / "calls").read_text()
    assert install(home).returncode == 0
    assert (home / "calls").read_text() == before


def test_a_new_environment_is_filled(home: Path) -> None:
    shutil.rmtree(home / ".bat-dist/venv")
    done = install(home)
    assert (done.returncode, (home / ".bat-dist/venv/bin/bat-dist").exists()) == (0, True), done.stderr


def test_a_program_that_does_not_run_is_not_called_ready(home: Path) -> None:
    (home / ".bat-dist/venv/bin/bat-dist").write_text("#!/bin/sh\nexit 3\n")
    done = install(home)
    assert done.returncode == 1
    assert "ready" not in done.stdout
    assert "does not run: run this again" in done.stderr
    assert "ready: bat-dist 1.2 on " in install(home).stdout
