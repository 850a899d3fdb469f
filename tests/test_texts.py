"""What programs say while they wait, and what they say of numbers: plain, with right plurals, and possible."""

import io
import logging
import re

import numpy as np
import pytest
from rich.console import Console

from bat_dist.memorization.noise import Noise, noise_notes
from bat_dist.plan import main as plan
from bat_dist.wording import counted
from bat_dist.workers import pace, pool
from bat_dist.workers.pace import Pace, progress
from bat_dist.workers.resources import Resources
from bat_dist.workers.retry import RetryPolicy
from bat_dist.workers.running import Running


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 CPUs"), (1, "1 CPU"), (1.0, "1 CPU"), (2.0, "2 CPUs"), (0.5, "0.5 CPUs"), (12_345, "12,345 CPUs")],
)
def test_plurals(number: float, text: str) -> None:
    assert counted(number, "CPU") == text
    assert (counted(1, "batch", "batches"), counted(2, "batch", "batches")) == ("1 batch", "2 batches")


def test_what_a_worker_occupies_in_words() -> None:
    assert Resources(1).of_workers(1) == "1 worker with 1 CPU"
    assert Resources(2, 1.0).of_workers(1) == "1 worker with 2 CPUs and 1 GPU"
    assert Resources(1, 0.5).of_workers(4) == "4 workers with 1 CPU and 0.5 GPUs each"


def test_before_the_first_outcome_the_bar_tells_what_is_at_work() -> None:
    shown = Pace("trials", total=5, done=3)
    assert shown.describe() == "starting workers"
    at_work: list[Running] = []
    shown.watch(lambda: at_work)
    assert shown.describe() == "starting workers"
    at_work += [Running(3, "here", 1, 12.0), Running(4, "here", 2, 70.2)]
    assert shown.describe() == "2 running, the first for 0:01:10"
    shown.step(failed=1)
    assert "trials/h, 0:00:0" in shown.describe()
    assert shown.describe().endswith(", 1 failed")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_at_work_is_shown_again_and_again(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    monkeypatch.setattr(pace, "FIRST_LOG", 0.01)
    monkeypatch.setattr(pace.sys.stderr, "isatty", lambda: is_terminal, raising=False)
    text = io.StringIO()
    monkeypatch.setattr(
        pace, "Console", lambda stderr: Console(file=text, force_terminal=is_terminal, width=120, color_system=None)
    )
    seconds = iter(range(100_000))
    shown = Pace("trials", total=5, done=0)
    with progress(shown):
        shown.watch(lambda: [Running(0, "here", 1, float(next(seconds)))])
        for _ in range(2000):
            if len(said(text)) >= 2:
                break
            pace.time.sleep(0.01)
        else:
            raise AssertionError(text.getvalue())
        shown.step(failed=0)
    assert "1/5" in text.getvalue()
    assert "trials/h" in text.getvalue()


def said(text: io.StringIO) -> set[str]:
    return set(re.findall(r"1 running, the first for [0-9:]+", text.getvalue()))


def test_who_waits_for_a_worker_says_for_what(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "describe_resources", lambda: "1 node, 2 CPUs, no GPU")
    waiting = pool._Pool((), Resources(1), "trials", None, RetryPolicy())
    waiting.waiting_since -= pool.WAITING_INTERVAL + 1
    with caplog.at_level(logging.WARNING, "bat_dist"):
        waiting._say_if_waiting()
    assert caplog.messages == ["waiting for a worker with 1 CPU; the cluster has 1 node, 2 CPUs, no GPU"]


@pytest.mark.parametrize("trials", range(2, 40))
def test_no_influence_above_1_is_asked_for(trials: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(50) % 10
    num_in = min(round(0.7 * trials), trials - 1)
    mask = np.repeat(np.arange(trials)[:, None] < num_in, 50, axis=1)
    noise = Noise.of(trials, mask.sum(axis=0), (rng.random((trials, 50)) < 0.9).sum(axis=0), (labels, labels))
    notes = [note for note in noise_notes(noise, np.ones(50, bool), (0.15, 0.05), 3.0) if note.startswith("few")]
    assert notes
    for note in notes:
        reached = note.partition("must reach about ")[2]
        assert float(reached.split()[0]) <= 1 if reached else "can be told from noise" in note
    few = "not even an influence of 1, the largest possible, can be told from noise, so hardly any puts a sample into"
    largest_noise = np.sqrt((1 / num_in + 1 / (trials - num_in)) / 4)  # of an accuracy of 1/2
    assert any(few in note for note in notes) == (0.15 + 3 * largest_noise > 1)


def test_the_help_of_plan_is_of_all_forms(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: bat-dist plan --dataset NAME [options]")
    assert "usage: bat-dist plan --table N [options]" in text
    assert "usage: bat-dist plan --study NAME ... [options]" in text
    assert text.count("  --table N ") == text.count("  --study NAME ...") == text.count("  --price X ") == 1
    assert "--status" not in text
