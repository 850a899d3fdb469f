"""The worked example of docs/training.md is a whole method."""

import re
import sys
import types
from pathlib import Path

import pytest

from bat_dist.methods import table
from bat_dist.storage.files import Folder
from bat_dist.train import main
from bat_dist.training.files import read_history

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.fixture
def logit_pairing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and the line of the page."""
    text = PAGE.read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "class " in block)
    name, where = re.findall(r'^    "(logit_pairing)": "(.*)",$', text, flags=re.MULTILINE)[0]
    module = types.ModuleType(f"bat_dist.methods.{where.partition('.')[0]}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(table.METHODS, name, where)


def test_the_seventh_method_trains(tmp_path: Path, logit_pairing: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--dataset",
        "digits",
        "--num_test",
        "100",
        "--arch",
        "tinynet",
        "--loader",
        "memory",
        "--recipe",
        "fast",
    ]
    options += ["--epochs", "8", "--batch_size", "32", "--num_steps", "3", "--precision", "fp32"]
    method = ["--method", "logit_pairing"]
    assert main([*options, *method, "--hyper", "weight=1", "--out", str(tmp_path / "out")]) == 0
    last = read_history(Folder(tmp_path / "out"))[-1]
    assert last["val_clean"] is not None
    assert last["val_clean"] > 0.4
    assert last["val_pgd"] is not None
    assert last["val_pgd"] > 0.2
    assert main([*options, *method, "--hyper", "weight=much", "--out", str(tmp_path / "no")]) == 2
    assert "weight of logit_pairing, got 'much'" in capsys.readouterr().err
