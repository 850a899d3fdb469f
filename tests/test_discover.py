"""What a newcomer asks of the commands: help, names, completion, and hints after a slip."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from bat_dist.cli import main
from bat_dist.completion import parser_of_all, settings_classes
from bat_dist.config.declared import declared
from bat_dist.data.table import DATASETS, OWN_FORMS
from bat_dist.evaluation.names import AUTOATTACK, SINGLE, STANDARD, check_attacks
from bat_dist.methods.table import METHODS
from bat_dist.models.names import check_arch
from bat_dist.settings.listing import names
from bat_dist.verbs import VERBS

ROOT = Path(__file__).parents[1]


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(words) == code
    out, err = capsys.readouterr()
    return err if code else out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_its_own_and_ends_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "help", verb)
    assert text == said(capsys, verb, "--help")
    before, _, examples = text.partition("\nexamples:\n")
    assert before.startswith(f"usage: bat-dist {verb} ")
    lines = examples.splitlines()
    assert 2 <= len(lines) <= 3
    assert all(line.startswith(f"  bat-dist {verb}") for line in lines)


def test_help_alone_and_help_of_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "help")
    assert text == said(capsys, "--help") == said(capsys, "-h")
    assert all(f"  {verb}" in text for verb in VERBS)
    assert "no command memorise; did you mean memorize?" in said(capsys, "help", "memorise", code=2)


def test_lists_hold_the_names_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "list", "--json"))
    assert {kind: [*lines] for kind, lines in found.items()} == {kind: [*lines] for kind, lines in names().items()}
    forms = {kind: {name for name in found[kind] if name.endswith(":NAME")} for kind in found}
    assert {*found["datasets"]} == {*DATASETS, *forms["datasets"]}
    assert forms["datasets"] == {*OWN_FORMS}
    assert {*found["methods"]} == {*METHODS, *forms["methods"]}
    assert len(forms["archs"]) == 4
    for name in {*found["archs"]} - forms["archs"]:
        check_arch(name.replace("wrnD-K", "wrn16-4").replace("-wW", "-w8"))
    for name in found["attacks"]:
        check_attacks((re.sub("[KN]$", "3", name),))
    assert {*SINGLE, *STANDARD, *AUTOATTACK} <= {*found["attacks"]}
    assert all(line for lines in found.values() for line in lines.values())


def test_lists_are_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "list", "datasets", "methods")
    assert "\n  cifar10   10 classes, 32x32 pixels, 50,000 training and 10,000 test images, epsilon 8/255\n" in (
        re.sub(" +", lambda gap: gap[0][:3], text)
    )
    assert text.startswith("datasets:\n")
    assert "\n\nmethods:\n  erm" in text
    assert "attacks" not in text
    assert "did you mean attacks?" in said(capsys, "list", "attack", code=2)


COMPLETED = {
    "bat-dist m": ["memorize"],
    "bat-dist help tr": ["train"],
    "bat-dist list me": ["methods"],
    "bat-dist train --method pgd": ["pgd_at"],
    "bat-dist train --dataset digits --method tr": ["trades"],
    "bat-dist memorize --dataset cifar": ["cifar10", "cifar100"],
    "bat-dist evaluate --attacks clean fg": ["fgsm"],
    "bat-dist memorize --arch tiny": ["tinynet"],
    "bat-dist train --no_ran": ["--no_random_start"],
    "bat-dist plan --tab": ["--table"],
    "bat-dist study sep": ["separation"],
    "bat-dist export --checkpoint pyproject.to": ["pyproject.toml"],
    "bat-dist train --no_such": [],
}


def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(said(capsys, "completion", "bash"))
    lines = ["source " + str(tmp_path / "script")]
    for typed in COMPLETED:
        words = typed.split()
        lines += [f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=()"]
        lines += ["_shtab_bat_dist; echo ${COMPREPLY[*]}"]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert dict(zip(COMPLETED, map(str.split, done.stdout.splitlines()), strict=True)) == COMPLETED


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_shell_gets_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "completion", shell) == said(capsys, "completion", "--shell", shell)
    assert "must be one of bash, zsh, tcsh, got fish" in said(capsys, "completion", "fish", code=2)


def test_completion_knows_every_verb() -> None:
    usage = parser_of_all(VERBS).format_usage()
    assert "{" + ",".join([*VERBS, "help"]) + "}" in usage


# --- options


def options() -> list[tuple[str, str, frozenset[object]]]:
    """Verb, setting and kinds of each option that any verb has."""
    forms = [(verb, form) for verb in VERBS for form in settings_classes(verb)]
    return [(verb, name, frozenset(one.kinds)) for verb, form in forms for name, one in declared(form).items()]


def test_no_option_is_a_double_negative() -> None:
    negative = re.compile(r"(no|not|non|without|skip|disable|dont)_")
    assert [(verb, name) for verb, name, kinds in options() if "boolean" in kinds and negative.match(name)] == []
    help_texts = [one.help.text for verb in VERBS for form in settings_classes(verb) for one in declared(form).values()]
    assert [text for text in help_texts if re.search(r"\bnot un|\bnot without|\bdo not dis", text)] == []


def test_every_option_is_read_somewhere() -> None:
    code = {file: file.read_text() for file in (ROOT / "bat_dist").rglob("*.py")}
    read = {
        match for text in code.values() for found in re.findall(r"\.([a-z_]+)\b|\"([a-z_]+)\"", text) for match in found
    }
    assert sorted({(verb, name) for verb, name, _ in options() if name not in read}) == []
