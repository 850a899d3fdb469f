"""`bat-dist report` as a user types it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bat_dist.report import main
from tests.helpers.made_results import study, write_evaluation
from tests.helpers.waiting import until

RIGHT = {"clean": np.ones(10, bool), "pgd20": np.arange(10) < 4}


def test_it_writes_all_files_and_says_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", str(study(tmp_path / "runs")), "--out", str(tmp_path / "report")]) == 0
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"tables.md", "tables.csv", "tables.tex", "robustbench.json", "report.html"} <= names
    said = capsys.readouterr().out
    assert "70.0 ± 0.0 ▲" in said
    assert "report.html" in said


def test_its_own_report_does_not_disturb_the_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path)
    assert main(["--runs", str(tmp_path)]) == 0
    first = (tmp_path / "report" / "tables.csv").read_bytes()
    assert main(["--runs", str(tmp_path)]) == 0
    assert (tmp_path / "report" / "tables.csv").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which results? Give --runs DIR"),
        (["--runs", "nowhere"], "nowhere does not exist"),
        (["--runs", "."], "there is no result of bat-dist below ."),
        (["--rums", "."], "unknown option --rums (command line); did you mean --runs?"),
    ],
)
def test_bad_input_is_told(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_broken_results_name_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluation(tmp_path / "new", RIGHT, format=99, bat_dist="7.7")
    assert main(["--runs", str(tmp_path)]) == 2
    assert "written by a newer bat_dist, 7.7" in capsys.readouterr().err


def test_a_page_is_watched_while_runs_go_on(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "runs" / "a", RIGHT)
    out = tmp_path / "report"
    command = [str(Path(sys.executable).with_name("bat-dist")), "report", "--watch", str(tmp_path / "runs")]
    with subprocess.Popen([*command, "--out", str(out), "--every", "1"], stdout=subprocess.PIPE, text=True) as watcher:
        try:
            until(lambda: 'http-equiv="refresh" content="1"' in _text(out / "report.html"))
            assert "PGD-AT" in _text(out / "tables.md")
            write_evaluation(tmp_path / "runs" / "b", RIGHT, method="trades")
            until(lambda: "TRADES" in _text(out / "tables.md"))
        finally:
            watcher.terminate()
    assert watcher.returncode == 1  # as after any signal


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
