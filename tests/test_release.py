"""What strangers get: distributions with all that runs, and files about the release that agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from bat_dist import __version__

ROOT = Path(__file__).parents[1]
PAPER = "https://arxiv.org/abs/2106.04794"


def tracked(*places: str) -> list[str]:
    found = subprocess.run(["git", "ls-files", "-z", *places], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("this is no clone: git does not know which files belong to it")
    return [name for name in found.stdout.split("\0") if name and (ROOT / name).exists()]


def build(tree: Path, kind: str) -> Path:
    """Build a distribution of a tree, without a network; returns its file."""
    out = tree / "dist"
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True)
    return max(out.iterdir(), key=lambda file: file.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel of a clone, and that of the sdist of a clone."""
    base = tmp_path_factory.mktemp("release")
    for name in tracked():
        (base / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, base / "clone" / name)
    wheel, sdist = build(base / "clone", "wheel"), build(base / "clone", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(base / "from_sdist", filter="data")
    (tree,) = (base / "from_sdist").iterdir()
    return wheel, build(tree, "wheel")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheels: tuple[Path, Path]) -> None:
    expected = {*tracked("bat_dist"), *(f"bat_dist/{name}" for name in tracked("tune_configs"))}
    found = {name for name in contents(wheels[0]) if ".dist-info/" not in name}
    assert found == expected
    for needed in ("py.typed", "data/digits.npz", "results/published_results.json", "tune_configs/smoke.yaml"):
        assert f"bat_dist/{needed}" in found
    assert any(name.startswith("bat_dist/reporting/templates/") for name in found)


def test_the_sdist_builds_the_same_wheel(wheels: tuple[Path, Path]) -> None:
    assert contents(wheels[0]) == contents(wheels[1])


def test_the_wheel_says_what_it_is(wheels: tuple[Path, Path]) -> None:
    found = contents(wheels[0])
    (metadata,) = (text.decode() for name, text in found.items() if name.endswith(".dist-info/METADATA"))
    head = metadata.partition("\n\n")[0].splitlines()
    assert f"Version: {__version__}" in head
    assert "License-Expression: Apache-2.0" in head
    assert "Requires-Python: <3.14,>=3.11" in head
    assert any(name.endswith("licenses/LICENSE") for name in found)
    assert f"Project-URL: Paper, {PAPER}" in head


def test_what_is_installed_runs_far_from_the_clone(wheels: tuple[Path, Path], tmp_path: Path) -> None:
    zipfile.ZipFile(wheels[0]).extractall(tmp_path / "site")
    own = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "bat_dist", *words]
        done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("--version") == f"bat-dist {__version__}\n"
    assert "tinynet" in said("list", "archs")
    code = (
        "import bat_dist\n"
        "from bat_dist.data.datasets import load_dataset\n"
        "from bat_dist.results.published import published_row\n"
        "from bat_dist.settings.tune import find_config\n"
        "print(bat_dist.__file__, len(load_dataset('digits').train), *find_config(['tune_configs/smoke.yaml']))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=own, capture_output=True, text=True)
    site = tmp_path / "site/bat_dist"
    assert run.stdout.split() == [f"{site}/__init__.py", "1297", f"{site}/tune_configs/smoke.yaml"], run.stderr


# --- files about the release


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_all_say_the_same_version() -> None:
    assert read_yaml("CITATION.cff")["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    images = [re.findall(r"bat-dist:([\d.]+)", (ROOT / name).read_text()) for name in tracked("cluster")]
    assert {version for found in images for version in found} == {__version__}


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    headings = re.findall(r"(?m)^## (.*)$", text)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\](?: - \d{4}-\d\d-\d\d)?", heading) for heading in headings[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {*re.findall(r"(?m)^### (.*)$", text)} <= kinds


def test_the_citation_is_of_software_and_of_its_paper() -> None:
    """The keys and values that version 1.2.0 of the format requires."""
    found = read_yaml("CITATION.cff")
    assert found["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= found.keys()
    assert found["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    paper = found["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["url"] == PAPER
    assert all({"family-names", "given-names"} == author.keys() for author in paper["authors"])


def test_readme_says_how_to_get_it_and_what_it_is() -> None:
    text = (ROOT / "README.md").read_text()
    clone = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"] + ".git"
    assert f"git clone {clone}" in text
    for wanted in (PAPER, "](LICENSE)", "](CITATION.cff)", "](CONTRIBUTING.md)", "![", "](docs/provenance.md)"):
        assert wanted in text


def test_nobody_is_told_to_install_a_name_that_is_not_ours() -> None:
    shown = [name for name in tracked("README.md", "CONTRIBUTING.md", "docs", "cluster", ".github")]
    for name in shown:
        if name.endswith((".md", ".yml", ".yaml", ".sh")):
            told = re.findall(r"pip install +(?:-\S+ +)*['\"]?bat[-_]dist", (ROOT / name).read_text())
            assert not told, name


WORKFLOW = ".github/workflows/ci.yml"


def test_the_public_ci_does_what_a_person_would() -> None:
    found = read_yaml(WORKFLOW)
    assert found["permissions"] == {"contents": "read"}
    steps = [step for job in found["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    run = "\n".join(step.get("run", "") for step in steps)
    for command in re.findall(r"make ([\w-]+)", run):
        assert re.search(rf"(?m)^{command}:", (ROOT / "Makefile").read_text()), command
    assert {"setup", "lint", "test"} <= {*re.findall(r"make ([\w-]+)", run)}
    assert "uv build" in run
    versions = found["jobs"]["wheel"]["strategy"]["matrix"]["python-version"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [f"Programming Language :: Python :: {version}" in project["classifiers"] for version in versions] == [
        True
    ] * 3


def test_forms_for_issues_are_forms() -> None:
    forms = [name for name in tracked(".github/ISSUE_TEMPLATE") if not name.endswith("config.yml")]
    assert len(forms) == 2
    for name in forms:
        form = read_yaml(name)
        assert {"name", "description", "body"} <= form.keys()
        ids = [part["id"] for part in form["body"]]
        assert len({*ids}) == len(ids) >= 2
        assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in form["body"])


def test_pre_commit_has_the_ruff_of_the_clone() -> None:
    (ruff,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert f"ruff=={ruff['rev'].removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text()
