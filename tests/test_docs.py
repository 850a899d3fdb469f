"""The commands that README, docs and Makefile show are commands that the programs take."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from bat_dist import collect, listing, study
from bat_dist.config import parse, status_asked
from bat_dist.plan import verb_of
from bat_dist.settings.collect import CollectSettings
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.export import ExportSettings
from bat_dist.settings.listing import ListSettings
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.plan import PlanSettings, StudyPlanSettings, TablePlanSettings
from bat_dist.settings.report import ReportSettings
from bat_dist.settings.reproduce import ReproduceSettings
from bat_dist.settings.study import StudySettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import TuneSettings, find_config

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
        lines += [f"{verb} {options}" for verb, options in re.findall(SUBMITTED, text, flags=re.MULTILINE)]
        found += [(page.name, line) for line in lines if "..." not in line and "--help" not in line]
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_of_the_docs_are_valid(page: str, command: str) -> None:
    verb, *options = shlex.split(command, comments=True)
    first = {"collect": collect.options, "list": listing.with_option, "study": study.with_option, "tune": find_config}
    words = first.get(verb, list)(options)
    planned = verb_of(words) if verb == "plan" else ""
    if "--status" in words:
        assert status_asked(SETTINGS[verb], words, prog=verb)
        return
    knows = {"evaluate": "--checkpoint", "train": "--scores"}.get(verb)  # the data, of which it then need not be told
    told = ["--dataset", "cifar10"] if knows in words and "--dataset" not in words else []
    forms = {"reproduce": TablePlanSettings, "study": StudyPlanSettings}
    parse(forms[planned] if planned else SETTINGS[verb], [*words, *told], prog=verb)


def test_there_are_commands() -> None:
    assert len(commands()) >= 5


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
