"""The commands that README, docs and Makefile show are commands that the programs take."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from bat_dist import collect, listing
from bat_dist.config import parse, status_asked
from bat_dist.plan import verb_of
from bat_dist.settings.collect import CollectSettings
from bat_dist.settings.completion import CompletionSettings
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.export import ExportSettings
from bat_dist.settings.listing import ListSettings
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.plan import PlanSettings
from bat_dist.settings.program_plans import StudyPlanSettings, TablePlanSettings
from bat_dist.settings.report import ReportSettings
from bat_dist.settings.reproduce import ReproduceSettings
from bat_dist.settings.study import StudySettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings, find_config
from bat_dist.study import with_option as named_studies
from tests.helpers.doc_blocks import blocks

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "memorize": MemorizeSettings,
    "train": TrainSettings,
    "export": ExportSettings,
    "evaluate": EvaluateSettings,
    "collect": CollectSettings,
    "tune": TuneSettings,
    "report": ReportSettings,
    "reproduce": ReproduceSettings,
    "plan": PlanSettings,
    "study": StudySettings,
    "list": ListSettings,
    "completion": CompletionSettings,
}
PAGES = [
    ROOT / "README.md",
    ROOT / "Makefile",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "cluster").iterdir()),
    *sorted((ROOT / "tune_configs").glob("*.yaml")),
]
SUBMITTED = r"^[#\s]*ray submit +(?:--tmux +)?cluster/[\w-]+\.yaml +bat_dist/(\w+)\.py -- +(.*--.*)$"


def commands() -> list[tuple[str, str]]:
    """(page, command) for every line that runs bat-dist, continued lines joined."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        if page.parent.name == "tune_configs":
            text = re.sub(r"(?m)^#", "", re.sub(r" +#  +(?=--\w)", " ", text))
        if page.parent.name == "cluster":  # a command goes on in the next line, of a comment or of YAML
            text = re.sub(r"\n#? +(?=--\w)", " ", text).replace("(one line)", "")
        lines = re.findall(r"^\s*(?:\$\(BIN\)/)?bat-dist +(\w+ .*--.*)$", text, flags=re.MULTILINE)
        lines += [line.removeprefix("bat-dist ") for line in shown(page) if "--" not in line]
        lines += [f"{verb} {options}" for verb, options in re.findall(SUBMITTED, text, flags=re.MULTILINE)]
        found += [(page.name, line) for line in lines if "..." not in line and "--help" not in line]
    return found


def shown(page: Path) -> list[str]:
    """The lines of a page's fenced blocks that run bat-dist."""
    if page.suffix != ".md":
        return []
    text = "".join(block.text.replace("\\\n", " ") for block in blocks(page))
    return [line for line in text.splitlines() if line.startswith("bat-dist ")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Python files that pages show, by the titles of their blocks."""
    folder = tmp_path_factory.mktemp("files")
    for page in PAGES:
        for block in blocks(page) if page.suffix == ".md" else ():
            if block.title:
                (folder / block.title).write_text(block.text)
    return folder


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_of_the_docs_are_valid(page: str, command: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    verb, *options = shlex.split(command.partition(" > ")[0], comments=True)
    if verb == "help":
        verb, options = options[0], ["--help"]
    first = {
        "collect": collect.options,
        "completion": lambda words: ["--shell", *words],
        "list": listing.with_option,
        "study": named_studies,
        "tune": find_config,
    }
    words = first.get(verb, list)(options)
    planned = verb_of(words) if verb == "plan" else ""
    if "--status" in words:
        assert status_asked(SETTINGS[verb], words, prog=verb)
        return
    if verb in ("memorize", "train") and [word for word in words if word.startswith("--")] == ["--out"]:
        return  # all else is told by the folder, which is not here
    # The option that tells of the data, which then need not be named.
    knows = {"evaluate": "--checkpoint", "train": "--scores", "memorize": "--merge"}.get(verb)
    told = ["--dataset", "cifar10"] if knows in words and "--dataset" not in words else []
    forms = {"reproduce": TablePlanSettings, "study": StudyPlanSettings}
    parse(forms[planned] if planned else SETTINGS[verb], [*words, *told], prog=verb)


def test_each_command_that_a_page_shows_is_tried() -> None:
    tried = {command for _, command in commands()}
    for page in PAGES:
        for line in shown(page):
            assert line.removeprefix("bat-dist ") in tried, f"{page.name}: {line}"
    assert len(tried) > 50


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_reference_is_what_help_says() -> None:
    page = ROOT / "docs" / "reference.md"
    assert page.read_text() == runpy.run_path(str(page.with_name("make_reference.py")))["reference"](), "run make docs"


def test_the_picture_of_the_folders_is_up_to_date() -> None:
    folder = ROOT / "docs"
    drawn = runpy.run_path(str(folder / "make_rooms.py"))["picture"]()
    assert (folder / "images/rooms.svg").read_text() == drawn, "run make docs"
