"""The tables as text: CSV reads back equal, LaTeX compiles, nothing breaks the formats, nothing is bold by luck."""

import csv
import io
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bat_dist.reporting import cells, latex, records, tables
from bat_dist.results.compare import ComparedResults, compare
from bat_dist.results.find import find_results
from bat_dist.results.rows import ALL
from tests.helpers.made_results import random_flags, study, write_evaluation
from tests.helpers.waiting import PATIENCE

NASTY = "a_b&c%d#e{f}g^h~i\\j|k<l>m$n α \"'"


@pytest.fixture
def comparison(tmp_path: Path) -> ComparedResults:
    return compare(find_results([str(study(tmp_path))]))


def nasty(tmp_path: Path) -> ComparedResults:
    place = study(tmp_path / "<script>alert(1)</script>_&_%")
    facts = {"method": None, "model": NASTY}
    write_evaluation(place / "own", {"clean": np.ones(200, bool)}, facts=facts)
    return compare(find_results([str(tmp_path)]))


def test_the_csv_reads_back_equal(comparison: ComparedResults) -> None:
    """To the last bit, with nothing but the standard library."""
    written = records.records(comparison)
    read = list(csv.DictReader(io.StringIO(records.csv_text(comparison))))
    assert len(read) == len(written) == 3 * 2 * 3
    for record, row in zip(written, read, strict=True):
        assert list(row) == list(record)
        for name, value in record.items():
            if isinstance(value, float):
                assert (row[name] == "") if math.isnan(value) else float(row[name]) == value, name
            else:
                assert row[name] == str(value), name
        values = [float(one) for one in row["per_seed"].split()]
        assert np.mean(values) == pytest.approx(float(row["accuracy"]))


def test_markdown_holds_means_marks_and_bold_for_what_is_better_alone(comparison: ComparedResults) -> None:
    text = tables.markdown(comparison)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "PGD-AT (reference)" in lines
    main = text.split("Difference to")[0]
    bat = next(line for line in main.splitlines() if line.startswith("| BAT"))
    trades = next(line for line in main.splitlines() if line.startswith("| TRADES"))
    assert "| **70.0 ± 0.0** ▲ |" in bat
    assert "**" not in trades
    assert trades.count("≈") == 2
    difference = next(line for line in text.split("Difference to")[1].splitlines() if line.startswith("| BAT"))
    assert "+20.0 [" in difference


def grid_rows(part: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    return [line.strip("| ").split(" | ") for line in part.splitlines()[2:]]


def test_every_bold_number_is_significant(comparison: ComparedResults) -> None:
    sections = tables.markdown(comparison).split("\n## ")[1:]
    for table, section in zip(comparison.tables, sections, strict=False):  # what is missing comes last
        parts = section.split("\n\n")
        by_kind = next(number for number, part in enumerate(parts) if part.startswith("By kind of test image")) + 1
        words: dict[tuple[int, str, str], str] = {}
        for head, part, subsets in ((3, parts[2], [ALL]), (2, parts[by_kind], [n for n in table.subsets if n != ALL])):
            places = [(attack, subset) for attack in table.attacks for subset in subsets]
            for number, row in enumerate(grid_rows(part)):
                words |= {(number, *place): cell for place, cell in zip(places, row[head:], strict=True)}
        assert words.keys() == table.cells.keys()
        for place, cell in table.cells.items():
            bold = "**" in words[place]
            assert bold == bool(cell.compared and cell.compared.is_significant and cell.compared.found.difference > 0)


def test_rows_of_markdown_have_as_many_cells_as_their_head(tmp_path: Path) -> None:
    for block in tables.markdown(nasty(tmp_path)).split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed (make page-tools)")
def test_latex_compiles_whatever_the_names(tmp_path: Path) -> None:
    text = latex.latex(nasty(tmp_path))
    document = "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage{amsmath, amssymb, booktabs}",
            r"\begin{document}",
            text,
            r"\end{document}",
        ]
    )
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 10_000


def test_latex_has_a_line_for_each_row_between_booktabs_rules(comparison: ComparedResults) -> None:
    text = latex.latex(comparison)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 3
    assert all(line.count("&") == 4 and line.endswith(r"\\") for line in body)
    assert r"\textbf{70.0 $\pm$ 0.0} $\blacktriangle$" in text
    assert r"BAT ($\alpha$ = 1, $\beta$ = 0.2)" in text


def test_robustbench_has_autoattack_only_where_it_was_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_evaluation(tmp_path / "a", {"clean": random_flags(rng, 0.5), "autoattack": random_flags(rng, 0.25)})
    fast = {"clean": random_flags(rng, 0.6), "autoattack_fast": random_flags(rng, 0.3)}
    write_evaluation(tmp_path / "b", fast, method="bat")
    first, second = records.robustbench(compare(find_results([str(tmp_path)])))
    assert (first["clean_acc"], first["autoattack_acc"], first["eps"]) == ("50.00", "25.00", "16/255")
    assert second["autoattack_acc"] is None
    assert isinstance(second["all_accuracies"], dict)
    assert second["all_accuracies"]["autoattack_fast"] == "30.00"
    json.dumps([first, second])


def test_passwords_do_not_reach_tables(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", {"clean": np.ones(5, bool)})
    found = find_results([str(tmp_path)])
    found.evaluations[0] = type(found.evaluations[0])(
        "s3://key:secret@host/x", *list(vars(found.evaluations[0]).values())[1:]
    )
    found.left_out.append(type("L", (), {"place": "s3://key:secret@host/y", "reason": "damaged"})())  # type: ignore[arg-type]
    comparison = compare(found)
    for text in (tables.markdown(comparison), records.csv_text(comparison), "\n".join(tables.terminal(comparison))):
        assert "secret" not in text


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("clean", "Clean"),
        ("pgd100", "PGD-100"),
        ("cw", "CW"),
        ("cw20", "CW-20"),
        ("autoattack", "AA"),
        ("square", "SQUARE"),
    ],
)
def test_headings(attack: str, words: str) -> None:
    assert cells.heading(attack) == words


def test_without_evaluations_it_says_so(tmp_path: Path) -> None:
    assert "no finished evaluation" in tables.markdown(compare(find_results([str(tmp_path)])))
