import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from annotated_types import Ge, Gt, Interval, Lt, MaxLen, MinLen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator

from bat_dist import __version__, cli
from bat_dist.config import Group, Help, differences, dump_yaml, parse, to_dict
from bat_dist.config.yaml_file import read_yaml
from bat_dist.errors import ConfigError, RunError, UserError
from bat_dist.program import run_command
from bat_dist.settings.tune import TuneSettings
from bat_dist.verbs import FILES
from tests.helpers.options import last_ones

ROOT = Path(__file__).parents[1]


def even(number: int) -> int:
    if number % 2:
        raise ValueError(f"must be even, got {number}")
    return number


def registered(name: str) -> str:
    if name != "resnet9":
        raise ValueError("there is no such architecture")
    return name


@dataclass(frozen=True)
class Settings:
    dataset: Annotated[Literal["digits", "cifar10", "cifar100"], Help("what to learn"), Group("data")]
    out: Annotated[str, Help("result folder", "DIR")]
    num_trials: Annotated[int, Ge(1), Help("leave-out trials: 100% of them")] = 1000
    num_train: Annotated[int | None, Ge(1), Help("samples"), Group("data")] = None
    subset_ratio: Annotated[float, Interval(gt=0, lt=1), Help("share that a trial keeps")] = 0.7
    lr: Annotated[float, Gt(0)] = 0.1
    archs: Annotated[tuple[Literal["resnet9", "resnet18"], ...], MinLen(1), Help("networks")] = ("resnet9",)
    drops: Annotated[tuple[Annotated[int, Ge(0)], ...] | None, MaxLen(3)] = None
    bits: Annotated[Literal[16, 32], Help("of a number")] = 16
    data_dir: Annotated[str | None, Help("where the data lie", "DIR"), Group("data")] = None
    workers: Annotated[int | Literal["auto"], Help("at a time")] = "auto"
    status: Annotated[bool, Help("only look")] = False
    resume: bool = True
    batch_size: Annotated[int, AfterValidator(even)] = 128
    arch: Annotated[str, AfterValidator(registered)] = "resnet9"
    tags: list[str] = field(default_factory=list)

    def __post_init__(self):
        if self.lr > 1 and self.bits == 16:
            raise ValueError(f"lr above 1 needs bits 32, got lr {self.lr}")


REQUIRED = ("--dataset", "digits", "--out", "results")


def parsed(*argv):
    return parse(Settings, argv, prog="bat-dist test", description="A test.")[0]


def complaints(*argv):
    with pytest.raises(ConfigError) as caught:
        parsed(*argv)
    return caught.value.errors


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes x.yaml in the current folder."""
    monkeypatch.chdir(tmp_path)
    return lambda text: Path("x.yaml").write_bytes(text.encode() if isinstance(text, str) else text)


# --- what wins


def test_defaults_where_nothing_is_given():
    assert parsed(*REQUIRED) == Settings(dataset="digits", out="results")


def test_command_line_wins_over_file_over_defaults(written):
    written("# mine\ndataset: cifar10\nout: a\nnum_trials: 7\nlr: 0.5\n")
    read, origins = parse(Settings, ["--out", "b", "--config", "x.yaml", "--lr", "0.25"], prog="x")
    assert read == Settings(dataset="cifar10", out="b", num_trials=7, lr=0.25)
    assert origins == {
        "dataset": "x.yaml line 2",
        "out": "command line",
        "num_trials": "x.yaml line 4",
        "lr": "command line",
    }


def test_a_file_value_that_is_replaced_is_not_judged(written):
    written("dataset: digits\nout: a\nlr: -1\n")
    assert parsed("--config", "x.yaml", "--lr", "1").lr == 1


def test_sys_argv_is_the_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bat-dist", *REQUIRED, "--bits", "32"])
    assert parse(Settings, prog="x")[0].bits == 32


# --- what each kind of field takes


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--num_trials 5", "num_trials", 5),
        ("--num-trials 5", "num_trials", 5),
        ("--num-trials=5", "num_trials", 5),
        ("--num_train 5", "num_train", 5),
        ("--num_train none", "num_train", None),
        ("--data_dir none", "data_dir", None),
        ("--data_dir s3://a-b/c-d", "data_dir", "s3://a-b/c-d"),
        ("--out=--odd-name", "out", "--odd-name"),
        ("--lr 1e-3", "lr", 0.001),
        ("--archs resnet18 resnet9", "archs", ("resnet18", "resnet9")),
        ("--drops 80 120", "drops", (80, 120)),
        ("--drops none", "drops", None),
        ("--drops", "drops", ()),
        ("--tags a b", "tags", ["a", "b"]),
        ("--bits 32", "bits", 32),
        ("--workers 3", "workers", 3),
        ("--workers auto", "workers", "auto"),
        ("--status", "status", True),
        ("--status true", "status", True),
        ("--status false", "status", False),
        ("--no_status", "status", False),
        ("--no-resume", "resume", False),
    ],
)
def test_words_of_the_command_line(words, name, value):
    read = getattr(parsed(*last_ones([*REQUIRED, *words.split()])), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("num_train: null", "num_train", None),
        ("num_train: none", "num_train", None),
        ("data_dir: none", "data_dir", "none"),
        ("lr: 1e-3", "lr", 0.001),  # text, says YAML
        ("lr: 1", "lr", 1.0),
        ("archs: [resnet18]", "archs", ("resnet18",)),
        ("archs:\n- resnet18", "archs", ("resnet18",)),
        ("bits: '32'", "bits", 32),
        ("status: yes", "status", True),
        ("out: é", "out", "é"),
    ],
)
def test_lines_of_yaml(written, line, name, value):
    written(("" if name == "out" else "out: a\n") + f"dataset: digits\n{line}\n")
    read = getattr(parsed("--config", "x.yaml"), name)
    assert read == value
    assert type(read) is type(value)


def test_an_empty_file_sets_nothing(written):
    written("# nothing yet\n")
    assert parsed("--config", "x.yaml", *REQUIRED) == parsed(*REQUIRED)


# --- what is wrong

LINE = "(command line)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epoch 3", f"unknown option --epoch {LINE}"),
        ("--num_trails 3", f"unknown option --num_trails {LINE}; did you mean --num_trials?"),
        ("--num_trial=3", f"unknown option --num_trial=3 {LINE}; did you mean --num_trials?"),
        ("--no_statu", f"unknown option --no_statu {LINE}; did you mean --no_status?"),
        ("--no_lr", f"unknown option --no_lr {LINE}"),
        ("--num_trials many", f"num_trials must be a whole number >= 1, got many {LINE}"),
        ("--num_trials 1.5", f"num_trials must be a whole number >= 1, got 1.5 {LINE}"),
        ("--num_trials 0", f"num_trials must be a whole number >= 1, got 0 {LINE}"),
        ("--num_trials -3", f"num_trials must be a whole number >= 1, got -3 {LINE}"),
        ("--lr -1e-3", f"lr must be a number > 0, got -1e-3 {LINE}"),
        ("--lr -2.E+1", f"lr must be a number > 0, got -2.E+1 {LINE}"),
        ("--lr -inf", f"lr must be a number > 0, got -inf {LINE}"),
        ("-- --lr 0.1", f"-- ends no options here {LINE}: leave it out"),
        ("--num_trials none", f"num_trials must be a whole number >= 1, got none {LINE}"),
        ("--num_train 0", f"num_train must be a whole number >= 1 or none, got 0 {LINE}"),
        ("--subset_ratio 1.7", f"subset_ratio must be a number in (0, 1), got 1.7 {LINE}"),
        ("--subset_ratio nan", f"subset_ratio must be a number in (0, 1), got nan {LINE}"),
        ("--lr inf", f"lr must be a number > 0, got inf {LINE}"),
        ("--lr", f"lr takes one value, a number > 0, got nothing {LINE}"),
        ("--lr 1 2", f"lr takes one value, a number > 0, got 1 2 {LINE}"),
        ("--lr=", f"lr must be a number > 0, got '' {LINE}"),
        ("--data_dir=", f"data_dir must not be empty, got '': is a variable unset? {LINE}"),
        ("--bits 8", f"bits must be one of 16, 32, got 8 {LINE}"),
        ("--workers all", f"workers must be a whole number or auto, got all {LINE}"),
        ("--status maybe", f"status must be true or false, got maybe {LINE}"),
        (
            "--dataset cifar",
            f"dataset must be one of digits, cifar10, cifar100, got cifar; did you mean cifar10? {LINE}",
        ),
        (
            "--archs",
            f"archs must be a list of length >= 1, each one of resnet9, resnet18, got nothing {LINE}",
        ),
        (
            "--drops 1 -2",
            f"drops must be a list of length <= 3, each a whole number >= 0 or none, got 1 -2 {LINE}",
        ),
        ("--batch_size 3", f"batch_size: must be even, got 3 {LINE}"),
        ("--arch vgg", f"arch vgg: there is no such architecture {LINE}"),
        ("--lr 2", "lr above 1 needs bits 32, got lr 2.0"),
        ("--no_status true", f"true follows no option {LINE}: write --name value"),
        ("--config", f"--config takes one file, got nothing {LINE}"),
        ("--config a b", f"--config takes one file, got a b {LINE}"),
        ("--config a --config b", f"--config takes one file, got a b {LINE}"),
        ("--config no/file.yaml", f"--config no/file.yaml: No such file or directory {LINE}"),
        ("--config /", f"--config /: Is a directory {LINE}"),
    ],
)
def test_one_mistake_on_the_command_line(words, message):
    given = words.split()
    required = REQUIRED[2:] if "--dataset" in given else REQUIRED
    assert complaints(*required, *given) == [message]


def test_an_option_that_is_given_twice_is_refused():
    """argparse would let the last one win."""
    for words in ("--num_trials 5 --num_trials 6", "--num-trials 5 --num_trials=5"):
        assert complaints(*REQUIRED, *words.split()) == [f"num_trials is given twice {LINE}"]
    assert complaints(*REQUIRED, "--status", "--no_status") == [f"status is given twice {LINE}"]


def test_what_the_terminal_lacks_is_written_in_plain_characters():
    code = "from bat_dist.program import run_command; run_command(lambda argv: print('\\u03b1 \\xb1 1% \\u732b'), [])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "alpha +- 1% ?\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_trails: 3", "unknown setting num_trails (x.yaml line 1); did you mean num_trials?"),
        ("num-trials: 3", "unknown setting num-trials (x.yaml line 1); did you mean num_trials?"),
        ("3: 3", "unknown setting 3 (x.yaml line 1)"),
        ("lr: 1\n\nlr: 1", "lr is given twice (x.yaml line 1 and x.yaml line 3)"),
        ("lr: 1\nlr: 2", "lr is given twice (x.yaml line 1 and x.yaml line 2)"),
        ("lr: fast", "lr must be a number > 0, got fast (x.yaml line 1)"),
        ("lr:", "lr must be a number > 0, got none (x.yaml line 1)"),
        ("lr: .nan", "lr must be a number > 0, got nan (x.yaml line 1)"),
        ("num_trials: true", "num_trials must be a whole number >= 1, got true (x.yaml line 1)"),
        ("tags: [a, no]", "tags must be a list, each text, got a false; put it in quotes (x.yaml line 1)"),
        ("data_dir: 2024", "data_dir must be text or none, got 2024; put it in quotes (x.yaml line 1)"),
        ("num_trials: 2024-05-01", "num_trials must be a whole number >= 1, got 2024-05-01 (x.yaml line 1)"),
        ("tags: ['  ']", "tags must not be empty, got '  ': is a variable unset? (x.yaml line 1)"),
        ("tags:\n- {a: 1, b: 2, a: 3}", "a is given twice (x.yaml lines 2 and 2)"),
        ("num_trials: 3\nlr: {b: {a: 1,\n a: 3}}", "a is given twice (x.yaml lines 2 and 3)"),
        ("tags: a", "tags must be a list, each text, got a (x.yaml line 1)"),
        ("tags: {a: 1}", "tags must be a list, each text, got {'a': 1} (x.yaml line 1)"),
        (
            'archs: ["resnet\\n"]',
            "archs must be a list of length >= 1, each one of resnet9, resnet18, got 'resnet\\n'; "
            "did you mean resnet9? (x.yaml line 1)",
        ),
        ("- lr", "x.yaml must hold lines of `name: value`"),
        ("lr", "x.yaml must hold lines of `name: value`"),
        ("lr: 1\ntags: [a\nbits: 32", "x.yaml line 3 is not plain YAML: expected ',' or ']', but got ':'"),
        ("lr: 1\n---\nlr: 2", "x.yaml line 2 is not plain YAML: but found another document"),
        (
            "lr: !!python/object/apply:os.getcwd []",
            "x.yaml line 1 is not plain YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
        *(
            (
                f"num_trials: 3\n{name}: {number}",
                f"x.yaml line 2 is not plain YAML: {number} means another number to YAML: give a decimal number "
                "without leading zeros or colons, or put it in quotes if it is text",
            )
            for name, number in [("num_train", "0300"), ("lr", "1:30"), ("lr", "1:30.5"), ("drops", "-0_7")]
        ),
        ("lr: 2024-31-01", "x.yaml is not plain YAML: month must be in 1..12"),
    ],
)
def test_one_mistake_in_the_file(written, text, message):
    written(text)
    assert complaints("--config", "x.yaml", *REQUIRED) == [message]


@pytest.mark.parametrize("data", [b"lr: \xff\xfe\xfd", b"lr: \x00", b"\x80"])
def test_a_file_that_is_no_text(written, data):
    written(data)
    (error,) = complaints("--config", "x.yaml")
    assert error.startswith("x.yaml is not plain YAML: ")
    assert "\n" not in error


def test_what_is_required():
    assert complaints() == [
        "dataset is required: --dataset NAME, one of digits, cifar10, cifar100",
        "out is required: --out DIR",
    ]


def test_all_mistakes_at_once(written):
    written("num_trials: 0\nlearning_rate: 3\n")
    assert complaints("stray", "--gibberish", "5", "--config", "x.yaml", "--lr", "0", "--dataset", "mnist") == [
        "unknown option --gibberish (command line)",
        "unknown setting learning_rate (x.yaml line 2)",
        "dataset must be one of digits, cifar10, cifar100, got mnist (command line)",
        "out is required: --out DIR",
        "num_trials must be a whole number >= 1, got 0 (x.yaml line 1)",
        "lr must be a number > 0, got 0 (command line)",
    ]


def test_every_error_is_one_short_line():
    (error,) = complaints(*REQUIRED, "--lr", "a\nb" * 1000)
    assert "\n" not in error
    assert len(error) < 200


def test_options_are_not_abbreviated():
    assert complaints(*REQUIRED, "--num_tri", "3")[0].startswith("unknown option --num_tri ")


@pytest.mark.parametrize(
    ("constraints", "rule"),
    [
        ([Ge(0), Lt(1)], "in [0, 1)"),
        ([Gt(0), Interval(le=2)], "in (0, 2]"),
        ([Lt(1)], "< 1"),
        ([Interval(le=1)], "<= 1"),
    ],
)
def test_bounds_in_words(constraints, rule):
    @dataclass(frozen=True)
    class One:
        x: Annotated[float, *constraints] = 0.5  # pyright: ignore

    with pytest.raises(ConfigError, match=r"^x must be a number ") as caught:
        parse(One, ["--x", "7"], prog="x")
    assert str(caught.value) == f"x must be a number {rule}, got 7 (command line)"


# --- help


def help_text(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stopped:
        parsed("--help")
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("columns", "width"), [(80, 80), (100, 100), (250, 100)])
def test_help_fits_the_terminal(capsys, monkeypatch, columns, width):
    lines = help_text(capsys, monkeypatch, columns).splitlines()
    assert width - 25 < max(map(len, lines)) <= width


def test_help_says_defaults_choices_and_groups(capsys, monkeypatch):
    text = help_text(capsys, monkeypatch, 100)
    assert text.startswith("usage: bat-dist test --dataset NAME --out DIR [options]\n\nA test.\n")
    options, data = text.split("\ndata:\n")
    words = " ".join(options.split())
    for expected in [
        "--config FILE.yaml settings from a file",
        "--out DIR result folder [required]",
        "--num_trials N leave-out trials: 100% of them [default 1000, >= 1]",
        "--subset_ratio X share that a trial keeps [default 0.7, in (0, 1)]",
        "--bits NAME of a number [default 16, one of 16, 32]",
        "--archs NAME ... networks [default resnet9, a list of length >= 1, each one of resnet9, resnet18]",
        "--status, --no_status only look [default false]",
        "--tags TEXT ... [default nothing]",
    ]:
        assert expected in words
    words = " ".join(data.split())
    assert "--dataset NAME what to learn [required, one of digits, cifar10, cifar100]" in words
    assert "--num_train N samples [default none, >= 1]" in words
    assert "--data_dir DIR where the data lie [default none]" in words


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("10", 10), ("-3", -3), ("1_000", 1000), ("0.5", 0.5), ("0x1F", 31)]
)
def test_other_numbers_of_yaml_are_read(text, number):
    assert read_yaml(text) == number


def test_a_number_in_base_8_within_a_block_is_refused():
    with pytest.raises(ConfigError, match="base: 0300 is not plain YAML: 0300 means another number"):
        parse(TuneSettings, ["--out", "x", "--space", "lr=[1]", "--base", "num_train=0300"], prog="tune")


def test_a_key_of_a_block_is_given_once_on_the_command_line():
    with pytest.raises(ConfigError, match="base: lr is given twice"):
        parse(TuneSettings, ["--out", "x", "--space", "lr=[1]", "--base", "lr=1", "lr=2"], prog="tune")


# --- there and back

TEXT = st.text().filter(lambda text: text.strip() not in ("", "--"))  # argparse takes two dashes for its own sign
SETTINGS = st.builds(
    Settings,
    dataset=st.sampled_from(["digits", "cifar10", "cifar100"]),
    out=TEXT,
    num_trials=st.integers(1),
    num_train=st.none() | st.integers(1),
    subset_ratio=st.floats(0, 1, exclude_min=True, exclude_max=True),
    lr=st.floats(0, 1, exclude_min=True),
    archs=st.lists(st.sampled_from(["resnet9", "resnet18"]), min_size=1).map(tuple),
    drops=st.none() | st.lists(st.integers(0), max_size=3).map(tuple),
    bits=st.sampled_from([16, 32]),
    data_dir=st.none() | TEXT,
    workers=st.integers() | st.just("auto"),
    status=st.booleans(),
    resume=st.booleans(),
    batch_size=st.integers().map(lambda n: 2 * n),
    tags=st.lists(TEXT),
)


@settings(deadline=None)
@example(Settings("digits", "à\x85"))  # PyYAML loses it with allow_unicode
@given(SETTINGS)
def test_a_dumped_file_reads_back_equal(values):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x.yaml")
        file.write_text(dump_yaml(values), encoding="utf-8", newline="")
        assert parsed("--config", str(file)) == values


@settings(deadline=None)
@given(SETTINGS)
def test_typed_values_read_back_equal(values):
    plain = {name: value for name, value in to_dict(values).items() if not isinstance(value, list)}
    read = parsed(*(f"--{name}={'none' if value is None else value}" for name, value in plain.items()))
    expected = plain | {"data_dir": None} if values.data_dir == "none" else plain
    assert {name: getattr(read, name) for name in plain} == expected


def test_to_dict_is_plain():
    values = to_dict(Settings("digits", "a", drops=(1, 2)))
    assert values["drops"] == [1, 2]
    assert list(values)[:3] == ["dataset", "out", "num_trials"]
    assert yaml.safe_load(yaml.safe_dump(values)) == values


def test_differences_name_both_values():
    stored = {"epochs": 15, "seed": 0, "archs": ["a", "b"], "old": 1, "lr": None}
    now = {"epochs": 20, "seed": 0, "archs": ("a", "b"), "lr": 0.1, "new": False}
    assert differences(stored, now) == [
        "epochs: 15 in the store, 20 now",
        "old: 1 in the store, absent now",
        "lr: none in the store, 0.1 now",
        "new: absent in the store, false now",
    ]
    assert differences(stored, dict(stored)) == []


def test_a_value_of_none_is_not_an_absent_one():
    assert differences({"a": None}, {}) == ["a: none in the store, absent now"]


# --- exit codes


def raising(error):
    def body(argv):
        raise error

    return body


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_body_says_its_exit_code(returned, code):
    assert run_command(lambda argv: returned, []) == code


def test_bad_input_is_2_and_one_message(capsys):
    assert run_command(raising(UserError("results/ has no trials: run bat-dist memorize first")), []) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: results/ has no trials: run bat-dist memorize first\n")


def test_all_bad_settings_are_printed(capsys):
    assert run_command(raising(ConfigError(["a is wrong", "b is wrong"])), []) == 2
    assert capsys.readouterr().err == "error: a is wrong\nerror: b is wrong\n"


def test_a_worker_s_bad_input_is_2_without_its_remote_traceback(capsys):
    exceptions = pytest.importorskip("ray.exceptions")
    remote = exceptions.RayTaskError("trial", "Traceback ...", UserError("no images in d/"))
    assert run_command(raising(remote.as_instanceof_cause()), []) == 2
    assert capsys.readouterr().err == "error: no images in d/\n"


def test_a_full_disk_is_1_and_says_how_to_go_on(capsys):
    assert run_command(raising(OSError(errno.ENOSPC, "No space left on device", "runs/trials/mask/c.3.0")), []) == 1
    message = "No space left on device (runs/trials/mask/c.3.0): make room; the same command then goes on from there"
    assert capsys.readouterr().err == f"error: {message}\n"
    with pytest.raises(PermissionError):
        run_command(raising(PermissionError(errno.EACCES, "no")), [])


def test_a_run_that_cannot_go_on_is_1_and_one_message(capsys):
    assert run_command(raising(RunError("3 workers in a row could not be set up")), []) == 1
    assert capsys.readouterr().err == "error: 3 workers in a row could not be set up\n"


@pytest.mark.parametrize("printed", [1, 100_000])  # which fails at the end, or at once
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_a_reader_that_leaves_ends_it_without_a_word(printed, stream, options):
    body = f"lambda argv: print('x' * {printed}, file=sys.{stream})"
    code = f"import sys; from bat_dist.program import exit_with, run_command; exit_with(run_command({body}, []))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        stdout=write if stream == "stdout" else subprocess.PIPE,
        stderr=write if stream == "stderr" else subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.returncode == 141
    assert not done.stdout
    assert not done.stderr


def test_another_pipe_that_breaks_passes():
    with pytest.raises(BrokenPipeError):
        run_command(raising(BrokenPipeError(errno.EPIPE, "a connection's")), [])


def test_interruption_is_130_and_says_how_to_go_on(capsys):
    assert run_command(raising(KeyboardInterrupt()), []) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a failure"), SystemExit(3)])
def test_other_exceptions_pass(error):
    with pytest.raises(type(error)):
        run_command(raising(error), [])


# --- bat-dist VERB


@pytest.fixture
def one_verb(tmp_path, monkeypatch):
    """A house in which only memorize.py exists; it prints its arguments."""
    (tmp_path / "memorize.py").write_text("def main(argv):\n    print('memorize', argv)\n    return 1\n")
    monkeypatch.setattr(cli, "VERBS", {"memorize": "what it does"})
    monkeypatch.setattr("bat_dist.__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "bat_dist.memorize", raising=False)
    yield
    sys.modules.pop("bat_dist.memorize", None)


@pytest.mark.usefixtures("one_verb")
@pytest.mark.parametrize(
    ("argv", "code", "out", "err"),
    [
        (["memorize", "--out", "a"], 1, "memorize ['--out', 'a']\n", ""),
        (["memorise"], 2, "", "error: no command memorise; did you mean memorize? (there are: memorize)\n"),
        (["train"], 2, "", "error: no command train (there are: memorize)\n"),
        (["config"], 2, "", "error: no command config (there are: memorize)\n"),
        ([], 2, "", "error: no command given (there are: memorize)\n"),
        (["--version"], 0, f"bat-dist {__version__}\n", ""),
    ],
)
def test_verbs(capsys, argv, code, out, err):
    assert cli.main(argv) == code
    assert capsys.readouterr() == (out, err)


@pytest.mark.usefixtures("one_verb")
def test_help_lists_the_verbs(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "memorize  what it does" in out
    assert "evaluate" not in out


def test_every_verb_has_its_file():
    assert all((ROOT / "bat_dist" / f"{FILES.get(verb, verb)}.py").is_file() for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["--version"], 0, f"bat-dist {__version__}\n"), (["memorise"], 2, "error: no command memorise")],
)
def test_the_exit_code_stands_where_a_native_library_crashes_at_the_end(words, code, said, tmp_path):
    script = (
        "import ctypes, sys; from bat_dist.cli import program\n"
        "libc = ctypes.CDLL(None); libc.__cxa_atexit(libc.abort, None, None)\n"  # a destructor that aborts
        "import atexit, pathlib; atexit.register(pathlib.Path(sys.argv.pop()).write_text, 'called')\n"
        "program()"
    )
    command = [sys.executable, "-W", "error", "-c", script, *words, tmp_path / "python"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == code
    told, silent = (ran.stderr, ran.stdout) if code else (ran.stdout, ran.stderr)
    assert told.startswith(said)
    assert silent == ""
    assert (tmp_path / "python").exists()  # Python's own exit functions are called
