"""Each diff of docs/extending.md is a whole addition: it applies, is small, and works in the real program."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers.waiting import PATIENCE
from tests.test_house import LONGEST_FUNCTION, length
from tests.test_layers import violations

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
EXAMPLES = dict(
    re.findall(
        r"^## (?:A|An) ([^\n,]*)[^\n]*\n(?:(?!^## ).)*?```diff\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
)
ALL = ["training method", "setting of `train`", "attack", "section of the report's page", "dataset"]

# One process for all, since to start one takes longer than what it does.  Evaluations are in it too, without Ray.
PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
import bat_dist
from bat_dist.cli import main
from bat_dist.config import parse, to_dict
from bat_dist.data.datasets import load_dataset
from bat_dist.jobs.attacked_network import load_subject
from bat_dist.jobs.evaluate_here import evaluate_here
from bat_dist.planning.timed_operations import step_work
from bat_dist.results.evaluation_file import write_evaluation
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.storage.files import Folder

out, said = Path(sys.argv[1]), {"from": bat_dist.__file__, "passes": sum(step_work("logit_pairing", 2).values())}
QUICK = "--arch tinynet --loader memory --recipe fast --batch_size 32 --num_steps 2 --precision fp32".split()
DIGITS = "--dataset digits --num_test 100".split()

def train(name, words):
    with contextlib.redirect_stderr(io.StringIO()) as told:
        code = main(["train", *QUICK, *words.split(), "--out", str(out / name)])
    said[f"{name}: {words}"] = [code, told.getvalue()]

def evaluate(name):
    words = [*DIGITS, "--checkpoint", str(out / name), "--out", str(out / f"{name}-attacked"), "--check_images", "0"]
    settings, _ = parse(EvaluateSettings, [*words, "--attacks", "fgsm", "mifgsm", "clean"], prog="")
    folder, dataset = Folder(settings.out), load_dataset("digits", **settings.data)
    subject = load_subject(dataset, settings)
    found = evaluate_here(folder, dataset, settings, subject)
    write_evaluation(folder, dataset, to_dict(settings), found, subsets={}, facts=subject.facts, digest=subject.digest)

SMALL = " ".join(DIGITS) + " --num_train 300 --epochs 1 --method pgd_at"
train("method", " ".join(DIGITS) + " --epochs 5 --method logit_pairing --hyper weight=1")
train("no", SMALL.replace("pgd_at", "logit_pairing") + " --hyper weight=much")
train("plain", SMALL)
for words in ("--gradient_noise 0.3", "--gradient_noise 0.3", "--gradient_noise 1", ""):
    train("noisy", f"{SMALL} {words}")
train("dataset", "--dataset gratings --epochs 3 --method erm")
for name in ("method", "plain", "noisy"):
    evaluate(name)
assert main(["report", "--runs", str(out), "--out", str(out / "report")]) == 0
(out / "said.json").write_text(json.dumps(said))
"""


class Tried(NamedTuple):
    """The copy with all additions, what the programs left, and for each call of `train` its exit code and messages.

    passes: what a plan charges for a step of the method with two steps of its attack.
    """

    tree: Path
    out: Path
    calls: Mapping[str, tuple[int, str]]
    passes: float

    def read(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())

    @property
    def tables(self) -> str:
        return (self.out / "report" / "tables.md").read_text().replace("\\", "")

    def said(self, words: str) -> list[tuple[int, str]]:
        return [told for call, told in self.calls.items() if words in call]


def git_apply(diff: str, tree: Path, *options: str) -> None:
    no_repository = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(
        ["git", "apply", *options], input=diff, cwd=tree, env=no_repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def copy(tree: Path) -> Path:
    shutil.copytree(ROOT / "bat_dist", tree / "bat_dist", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    tree, out = copy(tmp_path_factory.mktemp("tree")), tmp_path_factory.mktemp("out")
    for diff in EXAMPLES.values():
        git_apply(diff, tree)
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, out],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((out / "said.json").read_text())
    assert Path(said.pop("from")).is_relative_to(tree)
    return Tried(tree, out, passes=said.pop("passes"), calls=said)


def test_there_are_all_five() -> None:
    assert list(EXAMPLES) == ALL


@pytest.mark.parametrize("name", ALL)
def test_each_applies_by_itself_and_touches_two_files_at_most(name: str) -> None:
    git_apply(EXAMPLES[name], ROOT, "--check")
    touched = re.findall(r"^--- a/(\S+)", EXAMPLES[name], re.MULTILINE)
    assert 1 <= len(touched) <= 2
    assert all((ROOT / file).is_file() for file in touched)


def test_a_method_trains_and_has_its_name_in_tables(tried: Tried) -> None:
    assert tried.read("method/run.json")["identity"]["method_settings.weight"] == 1
    last = tried.read("method/run.json")["last"]
    assert last["val_clean"] > 0.4
    assert last["val_pgd"] > 0.2
    [(code, message)] = tried.said("weight=much")
    assert code == 2
    assert "weight of logit_pairing, got 'much'" in message
    assert "| ALP " in tried.tables
    assert tried.passes == 2 + 2  # of the attack; of natural and adversarial images


def test_a_setting_is_part_of_what_a_run_is(tried: Tried) -> None:
    assert tried.read("noisy/run.json")["identity"]["gradient_noise"] == 0.3
    assert "gradient_noise" not in tried.read("plain/run.json")["identity"]
    losses = [tried.read(f"{name}/run.json")["last"]["train_loss"] for name in ("plain", "noisy")]
    assert losses[0] != losses[1]
    [(again, _)], [(other, message)] = tried.said("--gradient_noise 0.3"), tried.said("--gradient_noise 1")
    assert (again, other) == (0, 2)
    assert "gradient_noise: 0.3 in the store, 1.0 now" in message
    assert [code for call, (code, _) in tried.calls.items() if call.startswith("noisy") and call.endswith(" ")] == [2]
    assert "PGD-AT (gradient_noise = 0.3)" in tried.tables


def test_an_attack_is_a_column(tried: Tried) -> None:
    rows = {row["attack"]: row for row in tried.read("method-attacked/evaluation.json")["rows"]}
    assert 0 < rows["mifgsm"]["accuracy"] <= rows["fgsm"]["accuracy"] < rows["clean"]["accuracy"]
    assert rows["mifgsm"]["max_delta"] == pytest.approx(16 / 255, abs=1e-6)
    assert "| Clean | FGSM | MI-FGSM |" in tried.tables


def test_a_section_is_on_the_page(tried: Tried) -> None:
    page = (tried.out / "report" / "report.html").read_text()
    assert '<li><a href="#time">Time of the trainings</a></li>' in page
    section = page.partition('<h2 id="time">')[2].partition("</section>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(\d+)</td>', section) == [
        ("ERM", "tinynet", "1"),
        ("ALP", "tinynet", "1"),
        ("PGD-AT", "tinynet", "2"),
    ]


def test_a_dataset_is_trained_on(tried: Tried) -> None:
    run = tried.read("dataset/run.json")
    assert run["identity"]["dataset"] == "gratings"
    assert run["last"]["val_clean"] > 0.6


def test_additions_are_in_the_style_of_the_house(tried: Tried) -> None:
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run([*ruff, *words, "bat_dist"], cwd=tried.tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    assert violations(tried.tree / "bat_dist") == []
    for file in re.findall(r"^\+\+\+ b/(\S+\.py)$", "\n".join(EXAMPLES.values()), re.MULTILINE):
        for node in ast.walk(ast.parse((tried.tree / file).read_text())):
            assert not isinstance(node, ast.FunctionDef) or length(node) <= LONGEST_FUNCTION, f"{file}: {node.name}"
