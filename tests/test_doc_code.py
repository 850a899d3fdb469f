"""The Python that README and docs show runs, page by page and in its order; the notebooks run.

A block that cannot be run here has a mark before it, `<!-- python: not run: REASON -->`: it is compiled, and what it
imports must be there.
"""

import ast
import importlib.util
import os
import runpy
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

from bat_dist.artifacts.checkpoints import ModelSpec, save_model
from bat_dist.memorization.exchange import feldman_zhang, save_feldman_zhang
from bat_dist.storage.files import Folder
from tests.helpers.doc_blocks import Block, blocks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
DIGITS = ModelSpec("tinynet", tuple("0123456789"), 8, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
FLAGS = ["clean", "autoattack:apgd-ce", "autoattack:apgd-t", "autoattack"]


def python_of(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the results are that pages speak of, in small."""
    folder, rng = tmp_path_factory.mktemp("results"), np.random.default_rng(0)
    network = DIGITS.build()
    for name in ("results/bat", "runs/bat", "tutorial/runs/bat", "exported/bat"):
        save_model(Folder(folder / name), "best", network.state_dict(), DIGITS, {"epoch": 1})
    for name in ("bat-eval", "pgd-at-eval"):
        (folder / "results" / name).mkdir()
        flags = np.sort(rng.random((len(FLAGS), 20)), axis=0)[::-1] > 0.4
        np.savez(folder / "results" / name / "flags.npz", flags=flags, attacks=FLAGS)
    mem, labels = rng.random(20), np.arange(20) % 2
    with (folder / "cifar100_infl_matrix.npz").open("wb") as file:
        mask = rng.random((60, 20)) > 0.3
        save_feldman_zhang(file, feldman_zhang(mem, mask, mask, labels, labels))
    scores = folder / "results/cifar10"
    scores.mkdir()
    ids = [f"{number}.jpg" for number in range(20)]
    np.savez(scores / "memorization.npz", mem=mem, mem_low=mem - 0.1, mem_high=mem + 0.1, train_ids=ids)
    (scores / "memorization.csv").write_text("id,mem\n0.jpg,0.5\n")
    (scores / "summary.json").write_text("{}")
    (folder / "runs/bat/history.csv").write_text("epoch,val_pgd\n1,0.5\n")
    return folder


@pytest.fixture
def here(results: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a page's first block may use; the results are in the present folder."""
    monkeypatch.chdir(results)
    images, labels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    return {"__name__": "page", "model": DIGITS.build().eval(), "images": images, "labels": labels}


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, here: dict[str, Any]) -> None:
    for block in python_of(page):
        where = f"{page.name}, line {block.line}"
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        for module, name in imported(block.text):
            if importlib.util.find_spec(module.partition(".")[0]):
                assert not name or name in dir(importlib.import_module(module)), f"{where}: {module}.{name}"
            else:
                assert module.partition(".")[0] in block.reason, (
                    f"{where}: {module} is not there, and its mark does not say so"
                )
        if block.title:
            Path(block.title).write_text(block.text)
        if not block.reason:
            exec(code, here)


def imported(text: str) -> list[tuple[str, str]]:
    """(module, name) of each import; the name is "" where the module itself is imported."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def test_what_is_not_run_says_why() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert not block.mark or len(block.reason) > 10, f"{page.name}, line {block.line}: {block.mark}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_has_run_from_its_first_cell_to_its_last(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "make notebooks"
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert all(output.output_type != "error" for output in outputs)
    assert path.stat().st_size < 300_000


LESS_WORK = {
    "bat_from_scores": {"num_trials=30, epochs=20": "num_trials=10, epochs=5", "epochs=30": "epochs=4"},
    "network_from_elsewhere": {"part[:100]": "part[:20]"},
    "own_images": {"num_trials=40": "num_trials=10", "epochs=25": "epochs=5"},
}
"""What notebooks that are committed have, and what the test has in its place: that they run does not depend on it."""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    text = path.read_text()
    for much, less in LESS_WORK[path.stem].items():
        assert much in text
        text = text.replace(much, less)
    (tmp_path / path.name).write_text(text)
    run = runpy.run_path(str(ROOT / "docs/run_notebooks.py"))
    run["executed"](tmp_path / path.name)  # raises where a cell does
