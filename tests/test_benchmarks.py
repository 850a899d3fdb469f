"""Benchmarks are run by hand and seldom; that they still fit the package is seen here."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_can_be_loaded(path: Path) -> None:
    assert "main" in runpy.run_path(str(path), run_name="loaded")
