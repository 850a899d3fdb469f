"""The table of a sweep that goes on: what it shows, and what drawing it anew may cost."""

from pathlib import Path

import pytest
from rich.console import Console

import bat_dist.jobs.tune_display
from bat_dist.jobs.tune_display import Display
from bat_dist.settings.tune import TuneSettings
from bat_dist.sweep import results
from bat_dist.sweep.record import RunOutcome, SweepRun
from bat_dist.workers.pace import Pace

ROW = {"epoch": 1, "val_clean": 0.5, "val_pgd": 0.4}


def done(number: int) -> RunOutcome:
    return RunOutcome(SweepRun({"alpha": float(number), "beta": 0.0}, 0), "done", epochs=1, best=ROW, last=ROW)


def display_of(num_ended: int, place: Path) -> Display:
    settings = TuneSettings(out=str(place), base={"method": "pgd_at", "dataset": "digits"}, space={"epochs": [1, 2]})
    return Display(
        settings, Pace("runs", total=99, done=0, clock=lambda: 0.0), [done(number) for number in range(num_ended)]
    )


def text_of(display: Display) -> str:
    console = Console(width=120)
    with console.capture() as drawn:
        console.print(display)
    return drawn.get()


def test_points_that_have_no_row_are_counted(tmp_path: Path) -> None:
    display = display_of(25, tmp_path)
    assert "more" not in text_of(display)
    for number in range(100, 110):
        display.epoch(done(number).run, ROW)
    lines = text_of(display).splitlines()
    assert sum("done" in line for line in lines) == 20
    assert "... and 5 more" in lines


def test_a_redraw_summarizes_nothing_anew_until_a_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never tests the points against PGD-AT, which takes seconds for many."""
    calls = 0

    def counting(*given, **asked):
        nonlocal calls
        calls += 1
        return results.summarize(*given, **asked)

    def refused(*given, **asked):
        raise AssertionError("the display tests nothing")

    monkeypatch.setattr(bat_dist.jobs.tune_display, "summarize", counting)
    monkeypatch.setattr(results, "against_reference", refused)
    display = display_of(3, tmp_path)
    assert text_of(display) == text_of(display)
    assert calls == 1
    display.ended(done(3))
    assert "alpha=3" in text_of(display)
    assert calls == 2
