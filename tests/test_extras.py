"""What belongs to the core and what to an extra; and what a person is told where one is missing."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bat_dist.errors import EXTRAS
from bat_dist.program import run_command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]


def names_in(words: Sequence[str]) -> set[str]:
    """The packages, those of the project's own extras in turn."""
    found = set()
    for word in words:
        own = re.match(r"bat-dist\[(.*)\]", word)
        found |= set().union(*(names_in(OPTIONAL[one]) for one in own[1].split(","))) if own else set()
        found |= set() if own else {re.split(r"[\[<>=~ ]", word)[0].lower()}
    return found


def test_each_package_that_is_named_is_of_its_extra_and_not_of_the_core() -> None:
    core = names_in(PROJECT["dependencies"])
    for package, extra in EXTRAS.items():
        assert package not in core
        if package != "numcodecs":  # zarr's own
            assert {"trak": "traker"}.get(package, package) in names_in(OPTIONAL[extra]), package


def test_all_is_all_but_what_developers_need() -> None:
    of_developers = {"all", "bench", "dev", "docs"}
    every = set().union(*(names_in(words) for extra, words in OPTIONAL.items() if extra not in of_developers))
    assert names_in(OPTIONAL["all"]) == every


def test_clusters_have_what_jobs_need() -> None:
    needed = {"ray", "tune", "report"}
    for file in ("cluster/install.sh", "cluster/Dockerfile"):
        lists = re.findall(r"(?:\.\[|echo \")([a-z,0-9]+)", (ROOT / file).read_text())
        assert any(needed <= set(one.split(",")) for one in lists), file


@pytest.mark.parametrize(("package", "extra"), [("optuna", "tune"), ("ray.data", "ray"), ("zarr", "ray")])
def test_a_command_names_the_extra_of_a_missing_package(
    package: str, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(argv: Sequence[str]) -> Any:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    assert run_command(body, []) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: {package.partition('.')[0]} is not installed: `make setup`, or pip install '.[{extra}]'"
    )


def test_any_other_missing_module_is_an_error_of_ours() -> None:
    def body(argv: Sequence[str]) -> Any:
        raise ModuleNotFoundError("No module named 'bat_dist.nothing'", name="bat_dist.nothing")

    with pytest.raises(ModuleNotFoundError):
        run_command(body, [])


def test_nobody_is_told_to_install_from_an_index() -> None:
    """The name is not ours on PyPI: whoever follows such a line installs a stranger's package."""
    files = [path for folder in ("bat_dist", "docs", "cluster", ".ci") for path in (ROOT / folder).rglob("*")]
    files += [ROOT / name for name in ("README.md", "SECURITY.md", "Makefile", "CHANGELOG.md")]
    for path in files:
        if path.is_file() and path.suffix in ("", ".py", ".md", ".sh", ".yaml", ".yml", ".j2", ".toml", ".ipynb"):
            found = re.search(r"pip\s+install\s+(-\S+\s+)*['\"]?bat[-_]dist", path.read_text())
            assert found is None, f"{path}: {found}"


def test_packages_of_the_system_are_installed_without_questions() -> None:
    """Sudo drops variables that are set before it."""
    files = [ROOT / "Makefile", *(path for path in (ROOT / "cluster").iterdir() if path.is_file())]
    lines = [line for path in files for line in path.read_text().splitlines()]
    before = [line.partition("DEBIAN_FRONTEND=")[0] for line in lines if "DEBIAN_FRONTEND=" in line]
    assert before
    assert all(re.search(r"(sudo|root|\$\(SUDO\)) env $", text) for text in before), before
