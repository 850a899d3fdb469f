"""Measurements are made by hand and seldom: do they still fit the package, and what do they say of numbers?"""

import dataclasses
import json
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.training.precision import ISA_LIMITS
from bat_dist.training.threads import torch_threads
from benchmarks import __main__ as program
from benchmarks import trial_precision
from benchmarks.catalogue import MEASUREMENTS
from benchmarks.machine import Machine, this_machine
from benchmarks.measurement import (
    Context,
    Measured,
    Measurement,
    Noise,
    Quantities,
    Share,
    Sides,
    Speed,
    Unavailable,
    Value,
    measure,
)
from benchmarks.record import Entry, Results, entry_of, falls, read, summary, write
from benchmarks.table import table

PROGRAMS = ("gpu", "start_time", "autoattack_agreement", "trial_precision")
MACHINE = Machine("avx512", "a processor", 2, "AVX512 with bf16", 0.25, {"torch": "2"}, {})
FAST = Speed(text="fast over slow", side="fast", over=("slow", "slower"), at_least={"avx512": 2.0, "avx2": 1.5})
SHARE = Share(text="fast, of slow", side="fast", of="slow", at_most=60.0)
EQUAL = Value(text="equal", side="slow", quantity="equal", unit="%", at_least=99.0)
SAME = Noise(text="difference", side="fast", other="slow", quantity="accuracy", at_most=2.0)
TOY = Measurement(name="toy", what="a toy", setup="toy:toy", figures=(FAST, SHARE, EQUAL), minutes=1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_can_be_loaded(name: str) -> None:
    path = Path(program.ROOT, "benchmarks", f"{name}.py")
    assert "main" in runpy.run_path(str(path), run_name="loaded")


@pytest.mark.parametrize(("share_right", "is_chance"), [(0.6, True), (0.7, False)])
def test_trials_in_two_precisions_are_told_apart_if_they_differ(
    share_right: float,
    is_chance: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A is right on 60% of the test images in each of 20 trials."""
    fields = {name: Field("bool", (50,)) for name in trial_precision.FIELDS}
    for place, share in (("a", 0.6), ("b", share_right)):
        store = RowStore.open(Folder(tmp_path / place / "trials"), fields=fields, identity={}, num_rows=20)
        for number in range(20):
            of_both, own = np.random.default_rng(number), np.random.default_rng([number, ord(place)])
            right = own.random(50) < share
            store.write(number, {"mask": of_both.random(50) < 0.7, "train_correct": right, "test_correct": right})
    monkeypatch.setattr("sys.argv", ["trial_precision", str(tmp_path / "a"), str(tmp_path / "b")])
    trial_precision.main()
    p = float(capsys.readouterr().out.split("difference of test accuracy")[1].split("p = ")[1].split()[0])
    assert (p > 0.05) == is_chance


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda one: one.name)
def test_a_measurement_in_tiny_gives_its_figures(measurement: Measurement, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those on Ray and the sweep take too long, and are only looked up."""
    module, _, function = measurement.setup.partition(":")
    if measurement.on_ray or measurement.name == "sweep":
        assert callable(getattr(import_module(f"benchmarks.{module}"), function))
        return
    monkeypatch.setattr("benchmarks.rivals.NUM_WORKERS", 0)
    number = 2 if any(isinstance(figure, Noise) for figure in measurement.figures) else 1
    context = Context(None, cores=1, size="tiny")
    with torch_threads(torch.get_num_threads()):
        found = measure(measurement, context, rounds=number, warm_up=False, say=lambda line: None)
    for figure in measurement.figures:
        assert set(figure.sides) <= found.rounds[0].keys() | found.left_out.keys(), figure
        if not set(figure.sides) & found.left_out.keys():
            assert all(value >= 0 for value in figure.values(found.rounds)), figure


def rounds(fast: float, slow: float = 1.0, equal: float = 100.0) -> list[dict[str, Quantities]]:
    return [
        {"fast": {"seconds": fast}, "slow": {"seconds": slow, "equal": equal}, "slower": {"seconds": 2 * slow}}
        for slow in (0.5 * slow, slow, 1.5 * slow)
    ]


def entry(fast: float, *, images: str = "synthetic", equal: float = 100.0) -> Entry:
    found = Measured(rounds(fast, equal=equal), {})
    return entry_of(TOY, found, machine=MACHINE, at="2026-01-01T00:00:00+00:00", source="abc", images=images)


def test_figures_by_hand() -> None:
    assert FAST.values(rounds(0.25)) == [2.0, 4.0, 6.0]
    assert SHARE.values(rounds(0.25)) == [50.0, 25.0, pytest.approx(50 / 3)]
    assert EQUAL.values(rounds(0.25)) == [100.0] * 3
    found = summary(FAST, Measured(rounds(0.25), {}))
    assert found is not None
    assert (found.median, found.lowest, found.highest) == (4.0, 2.0, 6.0)
    assert summary(FAST, Measured(rounds(0.25), {"slow": "not installed"})) is None


def test_noise_is_the_difference_in_its_standard_errors() -> None:
    """By hand: means 2 and 4, variances 1 and 4, three rounds: 2 / sqrt(5 / 3)."""
    both = zip((1.0, 2.0, 3.0), (2.0, 4.0, 6.0), strict=True)
    found = [{"fast": {"accuracy": a}, "slow": {"accuracy": b}} for a, b in both]
    assert SAME.values(found) == [pytest.approx(2 / (5 / 3) ** 0.5)]
    assert SAME.values([{"fast": {"accuracy": 1.0}, "slow": {"accuracy": 1.0}}] * 2) == [0.0]
    with pytest.raises(ValueError, match="two rounds"):
        SAME.values(found[:1])


def test_goals_are_those_of_the_class_of_machine() -> None:
    assert FAST.goal("avx512") == (">=", 2.0)
    assert FAST.goal("avx2") == (">=", 1.5)
    assert SHARE.goal("avx2") == ("<=", 60.0)
    assert dataclasses.replace(FAST, at_least=None).goal("avx2") is None


@pytest.mark.parametrize(
    ("has", "limit", "kind"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, None, "amx"),
        ({"avx512_bf16": True, "amx_bf16": True}, "AVX512_CORE_AMX", "amx"),
        ({"avx512_bf16": True, "amx_bf16": True}, "AVX512_CORE_BF16", "avx512"),
        ({"avx512_bf16": True}, None, "avx512"),
        ({}, None, "avx2"),
    ],
)
def test_machines_are_told_apart_by_what_computes_bf16(
    has: dict[str, bool], limit: str | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **has})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for name in ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    if limit:
        monkeypatch.setenv(ISA_LIMITS[0], limit)
    assert this_machine().machine_class == kind


def test_sides_are_done_in_turn_after_a_round_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    @contextmanager
    def sides(self: Measurement, context: Context) -> Iterator[Sides]:
        yield {
            "fast": lambda number: done.append(("fast", number)),
            "gone": Unavailable("not installed"),
            "slow": lambda number: {"seconds": 7.0, "equal": done.append(("slow", number)) or 100.0},
        }

    monkeypatch.setattr(Measurement, "open", sides)
    said = list[str]()
    found = measure(TOY, Context(None, 1), rounds=2, warm_up=True, say=said.append)
    assert done == [(side, number) for number in (0, 0, 1) for side in ("fast", "slow")]
    assert found.left_out == {"gone": "not installed"}
    assert [one["slow"] for one in found.rounds] == [{"seconds": 7.0, "equal": 100.0}] * 2
    assert all(one["fast"]["seconds"] >= 0 for one in found.rounds)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("now", "fallen"),
    [
        (entry(0.25), []),
        (entry(0.27), []),  # 7% less
        (entry(0.3), ["fast over slow", "fast, of slow"]),
        (entry(0.25, equal=85.0), ["equal"]),
        (entry(0.2), []),  # better
        (entry(0.3, images="others.zip"), []),
    ],
)
def test_a_figure_that_is_worse_by_more_than_a_tenth_has_fallen(now: Entry, fallen: list[str]) -> None:
    found = falls(TOY, now, {"toy": entry(0.25)})
    assert [fall.figure for fall in found] == fallen
    assert falls(TOY, now, {}) == []


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert read(path) == Results()
    results = Results()
    results.of(MACHINE)["toy"] = entry(0.25)
    write(path, results)
    assert read(path) == results
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert list(read(path).machines) == ["avx512, 2 cores"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "holds no results"), ('{"machines": {"x": {"toy": 1}}}', "holds no results"), ('{"format": 9}', "format 9")],
)
def test_a_damaged_file_of_results_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The program on a toy, whose fast side takes what this says."""
    fast = {"seconds": 0.25}

    def measured(measurement: Measurement, asked: object) -> Measured | str:
        return "failed with exit code 3" if fast["seconds"] < 0 else Measured(rounds(fast["seconds"]), {})

    monkeypatch.setattr(program, "MEASUREMENTS", (TOY, dataclasses.replace(TOY, name="other", by_default=False)))
    monkeypatch.setattr(program, "this_machine", lambda: MACHINE)
    monkeypatch.setattr(program, "rounds_apart", measured)
    return fast


def test_a_run_records_and_a_planted_fall_is_flagged(
    bench: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    words = ["--results", str(path)]
    assert program.main(words) == 0
    assert "| toy | fast over slow | x4 (2 to 6) | >= x2 | yes |  |" in capsys.readouterr().out
    assert read(path).of(MACHINE)["toy"].figures["fast over slow"].median == 4.0

    bench["seconds"] = 0.5
    assert program.main(words) == 1
    told = capsys.readouterr()
    assert "| toy | fast over slow | x2 (1 to 3) | >= x2 | yes | FELL, was 4 |" in told.out
    assert "--accept" in told.err
    assert read(path).of(MACHINE)["toy"].figures["fast over slow"].median == 4.0

    bench["seconds"] = 0.1  # is not measured again, since the unfinished run has it
    assert program.main([*words, "--accept"]) == 0
    assert read(path).of(MACHINE)["toy"].figures["fast over slow"].median == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_run_goes_on_where_it_was_ended(
    bench: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--results", str(tmp_path / "results.json"), "--only", "toy", "other"]
    unfinished = Results()
    unfinished.of(MACHINE)["toy"] = dataclasses.replace(entry(0.125), source="older source")
    write(tmp_path / "results.unfinished.json", unfinished)
    bench["seconds"] = -1
    assert program.main(words) == 1
    assert "| other | a toy | failed with exit code 3 |" in capsys.readouterr().out
    bench["seconds"] = 0.25
    assert program.main(words) == 0
    assert read(tmp_path / "results.json").of(MACHINE)["toy"].figures["fast over slow"].median == 4.0


def test_a_quick_run_records_nothing(bench: dict[str, float], tmp_path: Path) -> None:
    assert program.main(["--quick", "--results", str(tmp_path / "results.json")]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--only", "no-such"], ["--images", "/no/such/file"]])
def test_wrong_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(words) == 2
    assert words[1] in capsys.readouterr().err


def test_the_list_has_all_goals(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--list"]) == 0
    told = capsys.readouterr().out
    assert all(measurement.name in told for measurement in MEASUREMENTS)
    assert "PGD-AT over the textbook, x: >= 1.8 or >= 4" in told
    assert sum(measurement.minutes for measurement in MEASUREMENTS if measurement.by_default) <= 65


def test_what_was_left_out_is_said() -> None:
    found = Measured(rounds(0.25), {"slow": "rival is not installed"})
    kept = entry_of(TOY, found, machine=MACHINE, at="", source="", images="synthetic")
    told = table(MACHINE, [TOY], {"toy": kept}, [], {})
    assert "| toy | fast over slow | left out | >= x2 |  |  |" in told
    assert "toy: slow left out: rival is not installed" in told
    assert "synthetic images" in told
    assert "load at the start 0.25" in told


def test_the_recorded_results_can_be_read() -> None:
    for entries in read(program.RESULTS).machines.values():
        assert all(json.dumps(dataclasses.asdict(one)) for one in entries.values())
