"""`bat-dist export`: a folder that others can load, whose card says what is known and nothing else."""

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bat_dist.artifacts import onnx_file
from bat_dist.artifacts.checkpoints import ModelSpec, load_checkpoint, load_model, save_model, save_tensors
from bat_dist.artifacts.export import AccuracyRow, architecture, model_info, pixels, read_trained
from bat_dist.config import parse
from bat_dist.errors import RunError
from bat_dist.export import main
from bat_dist.reporting.model_card import model_card
from bat_dist.settings.export import ExportSettings
from bat_dist.storage.files import Folder

DIGITS = tuple("0123456789")
FACTS: dict[str, Any] = {
    "method": "bat",
    "method_settings": {"alpha": 1.0, "beta": 0.2},
    "dataset": "cifar10",
    "num_train": 49_000,
    "num_val": 1000,
    "fingerprint": "ab" * 32,
    "epsilon": 8 / 255,
    "step_size": 2 / 255,
    "num_steps": 10,
    "val_steps": 20,
    "best_by": "val_pgd",
    "clip_norm": None,
    "epoch": 77,
    "epochs": 100,
    "val_clean": 0.8512,
    "val_pgd": 0.5,
    "seed": 4321,
    "precision": "bf16",
    "recipe": {"lr": 0.1},
}
RUN = {
    "command": "bat-dist train --data_dir s3://user:hunter2@host/x",
    "bat_dist": "0.1.0",
    "git_revision": "0123456789ab",
    "versions": {"torch": "2.14.1"},
    "cpu": "a fast one",
    "computed_on": [{"cpu": "c1", "threads": 1, "gpu": "NVIDIA H100"}, {"cpu": "c2", "threads": 4}],
    "environment": {"TOKEN": "hunter3"},
    "hostname": "hunter4",
}


def train_folder(place: Path, *, class_names: tuple[str, ...] = DIGITS, **changed: Any) -> Path:
    """As `bat-dist train` leaves it: best and last differ."""
    spec = ModelSpec("tinynet", class_names, 8, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4))
    for which in ("best", "last"):
        save_model(Folder(place), which, spec.build().state_dict(), spec, {**FACTS, **changed})
    Folder(place).write_json("run.json", RUN)
    (place / "history.csv").write_text("epoch\n0\n")
    return place


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return train_folder(tmp_path / "run")


def export(checkpoint: Path | str, out: Path | str, *options: str) -> int:
    return main(["--checkpoint", str(checkpoint), "--out", str(out), *options])


def card_of(out: Path) -> tuple[dict[str, Any], str]:
    """Front matter and text, parted as the Hub does it."""
    text = (out / "README.md").read_text()
    match = re.search(r"^(\s*---\n)([\S\s]*?)(\n---[ \t]*(\n|$))", text)
    assert match
    return yaml.safe_load(match[2]), text[match.end() :]


def assert_equal_networks(a: torch.nn.Module, b: torch.nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ------------------------------------------------------------------------------------------------------- the folder


def test_the_folder_loads_in_one_line_and_is_the_network(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(run, out) == 0
    assert f"tinynet-cifar10-bat: exported to {out}" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "model.safetensors", "model_info.json"}
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    model, images = load_model(str(out)), torch.rand(3, 3, 8, 8)
    assert not model.training
    assert_equal_networks(model, load_model(str(run)))
    assert torch.equal(model(images), load_model(str(run))(images))
    assert load_checkpoint(str(out)).facts == load_checkpoint(str(run)).facts


def test_last_and_a_file_and_another_file_system(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bat_dist.storage.places._LOST", frozenset())  # this process is the program, and stays
    memory = f"memory://{uuid.uuid4().hex}/out"
    assert export(run, tmp_path / "last", "--which", "last") == 0
    assert export(run / "last.safetensors", memory) == 0
    for out in (str(tmp_path / "last"), memory):
        assert_equal_networks(load_model(out), load_model(str(run), "last"))
    text = Folder(memory).read("README.md").decode()
    assert "chosen among all epochs" not in text
    assert "0123456789ab" in text, "the run.json beside the file"
    assert "| computed_on | cpu c1, threads 1, gpu NVIDIA H100; cpu c2, threads 4 |" in text


def test_config_says_how_to_feed_it(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["arch"] == "tinynet"
    assert config["id2label"]["7"] == "7"
    assert config["mean"] == [0.3, 0.4, 0.5]
    assert config["training"]["seed"] == 4321
    assert config["origin"]["git_revision"] == "0123456789ab"


def test_an_earlier_export_is_replaced_and_nothing_of_it_stays(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(run, out, "--name", "first") == 0
    (out / "model.onnx").write_bytes(b"of the first network")
    assert export(run, out, "--which", "last") == 0
    assert not (out / "model.onnx").exists()
    assert_equal_networks(load_model(str(out)), load_model(str(run), "last"))
    assert "first" not in (out / "README.md").read_text()


def test_an_export_that_breaks_off_does_not_load(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even over an earlier one: the weights would be of one network and the card of another."""
    out = tmp_path / "out"
    assert export(run, out) == 0
    write, written = Folder.write, []

    def full_disk(self: Folder, name: str, data: bytes) -> None:
        written.append(name)
        if len(written) == 2:
            raise OSError("full")
        write(self, name, data)

    monkeypatch.setattr(Folder, "write", full_disk)
    with pytest.raises(OSError, match="full"):
        export(run, out, "--which", "last")
    monkeypatch.undo()
    assert not (out / "model.safetensors").exists()
    assert export(run, out, "--which", "last") == 0, "the same command goes on"


# ---------------------------------------------------------------------------------------------------------- the card


def test_the_hub_takes_the_card(run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    assert export(run, tmp_path / "out", "--license", "apache-2.0") == 0
    data = hub.ModelCard.load(tmp_path / "out" / "README.md").data
    assert data.license == "apache-2.0"
    assert data.library_name == "bat_dist"
    assert data.datasets == ["uoft-cs/cifar10"]
    assert {"bat", "tinynet", "adversarial-robustness"} <= set(data.tags)
    found = {result.metric_name: (result.metric_value, result.dataset_split) for result in data.eval_results}
    assert found == {
        "clean accuracy, validation split (%)": (85.12, "validation"),
        "pgd20 accuracy, validation split (%)": (50.0, "validation"),
    }


def test_the_card_says_what_is_known(run: Path, tmp_path: Path) -> None:
    options = ["--name", "My net", "--authors", "A. Author, B. Author", "--link", "https://arxiv.org/abs/2106.01234"]
    assert export(run, tmp_path / "out", *options) == 0
    head, text = card_of(tmp_path / "out")
    assert "license" not in head
    assert head["model-index"][0]["name"] == "My net"
    for part in (
        "# My net",
        "By A. Author, B. Author.",
        "<https://arxiv.org/abs/2106.01234>",
        "6,418 parameters",
        "| attack in training | PGD, l_inf, epsilon 8/255, 10 steps of 2/255 |",
        "| attack in validation | PGD, l_inf, epsilon 8/255, 20 steps of 2/255 |",
        "| further settings | best_by val_pgd |",
        "alpha 1.0, beta 0.2",
        "| seed | 4321 |",
        "| clean | 1,000 validation | 85.12% | 82.78% to 87.19% |",  # by statsmodels
        "| pgd20 | 1,000 validation | 50.00% | 46.91% to 53.09% |",
        "not accuracies on the test set",
        "**There is no AutoAttack result.**",
        "chosen among all epochs by these very images (val_pgd)",
        "| versions | torch 2.14.1 |",
        "| cpu | a fast one |",
        "0123456789ab",
    ):
        assert part in text, part


def test_nothing_secret_reaches_the_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hunter5")
    assert export(run, tmp_path / "out", "--onnx") == 0
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"hunter" not in everything
    assert b"s3://***@host/x" in everything
    assert str(Path(__file__).parents[1]).encode() not in everything, "a path of this machine"


EVIL = "x\n---\nlicense: mit\n<script>alert(1)</script> | `a` [b](javascript:c) **d** \u202ee"


def test_names_cannot_write_into_the_card(tmp_path: Path) -> None:
    checkpoint = train_folder(tmp_path / "run", class_names=(EVIL, "<img src=x>"), dataset=EVIL, method=EVIL)
    assert export(checkpoint, tmp_path / "out", "--name", EVIL, "--authors", EVIL) == 0
    head, text = card_of(tmp_path / "out")
    assert "license" not in head
    assert head["model-index"][0]["name"] == EVIL.replace("\n", " ").replace("\u202e", "")
    assert "<script" not in text
    assert "<img" not in text
    assert "\u202e" not in text
    assert r"\[b\](javascript:c) \*\*d\*\*" in text
    assert r" \| \`a\` " in text
    assert len([line for line in text.splitlines() if line.startswith("---")]) == 0
    tables = re.findall(r"^\|.*\|$", text.partition("## Accuracies")[0], flags=re.MULTILINE)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {3}, "two cells a row"
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    html = markdown.render(text)
    assert "<script" not in html
    assert "<a " not in html.replace('<a href="https', ""), "no link of its own"
    assert "<strong>d" not in html


def test_erm_is_not_said_to_be_attacked_in_training(tmp_path: Path) -> None:
    text = model_card(read_trained(str(train_folder(tmp_path, method="erm"))), name="x")
    assert "| attack in training | none |" in text
    assert "| attack in validation | PGD, l_inf, epsilon 8/255, 20 steps of 2/255 |" in text


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    spec = ModelSpec("tinynet", DIGITS, 8, (0.3, 0.3, 0.3), (0.2, 0.2, 0.2))
    save_model(Folder(tmp_path / "run"), "best", spec.build().state_dict(), spec, {})
    assert export(tmp_path / "run", tmp_path / "out") == 0
    head, text = card_of(tmp_path / "out")
    assert "model-index" not in head
    assert "datasets" not in head
    assert "None were measured." in text
    assert "there was no run.json" in text
    assert "None |" not in text
    info = json.loads((tmp_path / "out" / "model_info.json").read_text())
    assert [info[key] for key in ("dataset", "eps", "clean_acc", "autoattack_acc", "footnote")] == [None] * 5


def test_an_undefined_accuracy_is_none(tmp_path: Path) -> None:
    trained = read_trained(str(train_folder(tmp_path, val_pgd=None, val_clean=float("nan"))))
    assert trained.validated == ()
    assert "None were measured." in model_card(trained, name="x")


# ---------------------------------------------------------------------------------------------------- robustbench


def test_model_info_has_robustbenchs_shape(run: Path, tmp_path: Path) -> None:
    """The keys of its README; a validation accuracy is not its clean_acc."""
    assert export(run, tmp_path / "out", "--authors", "A, B") == 0
    assert json.loads((tmp_path / "out" / "model_info.json").read_text()) == {
        "link": None,
        "name": "tinynet-cifar10-bat",
        "authors": "A, B",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar10",
        "venue": None,
        "architecture": "tinynet",
        "eps": "8/255",
        "clean_acc": None,
        "reported": None,
        "autoattack_acc": None,
        "footnote": "On 1000 validation images held out of the training set: clean 85.12%, pgd20 50.00%.",
    }


def test_what_was_evaluated_is_told_too(run: Path) -> None:
    rows = [AccuracyRow("clean", 0.84321, 0.0036, 10_000), AccuracyRow("autoattack", 0.4807, 0.005, 10_000)]
    trained = read_trained(str(run), evaluated=rows)
    info = model_info(trained, name="x", authors=None, link=None)
    assert (info.clean_acc, info.reported, info.autoattack_acc) == ("84.32", "48.07", "48.07")
    text = model_card(trained, name="x")
    assert "| autoattack | 10,000 test | 48.07% | 47.09% to 49.05% |" in text
    assert "no AutoAttack result" not in text
    results = yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]
    assert [result["dataset"]["split"] for result in results] == ["test", "test", "validation", "validation"]


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("wrn28-10", "WideResNet-28-10"),
        ("resnet18", "ResNet-18"),
        ("resnet20", "ResNet-20"),
        ("preactresnet18", "PreActResNet-18"),
        ("resnet9-w8", "resnet9-w8"),
    ],
)
def test_architectures_are_called_as_in_papers(arch: str, name: str) -> None:
    assert architecture(arch) == name


def test_lengths_are_written_as_in_papers() -> None:
    assert [pixels(value) for value in (8 / 255, 1 / 255, 0.031, 0.5)] == ["8/255", "1/255", "0.031", "0.5"]


# --------------------------------------------------------------------------------------------------------------- onnx


@pytest.mark.parametrize(("arch", "size"), [("tinynet", 8), ("resnet9-w4", 16), ("resnet20", 12), ("wrn10-1", 16)])
def test_onnx_gives_the_same_logits_for_any_batch(arch: str, size: int) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    network = ModelSpec(arch, DIGITS, size, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4)).build().eval()
    file = onnx_file.to_onnx(network, size)
    assert file.max_difference is not None
    assert file.max_difference < 1e-4
    onnx.checker.check_model(onnx.load_from_string(file.data))
    session = runtime.InferenceSession(file.data, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape[1:], type(i.shape[0])) for i in session.get_inputs()] == [("images", [3, size, size], str)]
    assert [output.name for output in session.get_outputs()] == ["logits"]
    for batch in (1, 2, 5):
        images = torch.rand(batch, 3, size, size)
        logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        torch.testing.assert_close(logits, network(images).detach(), rtol=1e-4, atol=1e-4)


def test_onnx_lies_in_the_folder_and_its_check_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    assert export(run, tmp_path / "out", "--onnx") == 0
    assert (tmp_path / "out" / "model.onnx").is_file()
    difference = json.loads((tmp_path / "out" / "config.json").read_text())["onnx_max_difference"]
    assert 0 <= difference < 1e-4
    told = f"logits within {difference:.1e} of torch's"
    assert told in capsys.readouterr().out
    assert told in (tmp_path / "out" / "README.md").read_text()


def test_onnx_that_computes_something_else_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    right = onnx_file.to_onnx(load_model(str(run)), 8)
    with pytest.raises(RunError, match=r"differ by .* nothing was written"):
        onnx_file._max_difference(right.data, load_model(str(run), "last"), 8)
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    assert export(run, tmp_path / "out", "--onnx") == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_onnxruntime_the_card_says_that_it_was_not_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(run, tmp_path / "out", "--onnx") == 0
    assert "Not run: onnxruntime is not installed." in (tmp_path / "out" / "README.md").read_text()


def test_without_the_packages_the_way_out_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert export(run, tmp_path / "out", "--onnx") == 2
    assert (
        "--onnx needs onnxscript: `make setup`, or pip install '.[onnx]' in the clone of bat-dist"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
    assert export(run, tmp_path / "out") == 0


# ----------------------------------------------------------------------------------------------------------- bad input


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def test_bad_input_is_one_clear_error_and_nothing_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = Folder(tmp_path), tmp_path / "out"
    save_tensors(folder, "state.safetensors", {"momentum": torch.zeros(2)}, {"epoch": 4})
    damage(train_folder(tmp_path / "flipped") / "best.safetensors")
    (train_folder(tmp_path / "torn") / "run.json").write_text('{"command": ')
    cases = [
        (tmp_path / "nowhere", [], "does not exist"),
        (tmp_path / "nowhere.safetensors", [], "does not exist"),
        (run / "run.json", [], "does not exist"),
        (tmp_path / "state.safetensors", [], "not a network"),
        (tmp_path / "flipped", [], "is damaged"),
        (tmp_path / "torn", [], "run.json is not valid JSON"),
        ("nonsense://x", [], "cannot open nonsense://x"),
        (run, ["--which", "first"], "which must be one of best, last"),
        (run, ["--link", "javascript:alert(1)"], "must be a plain http:// or https:// address"),
        (run, ["--link", "https://x.org/>\n<script>"], "must be a plain http:// or https:// address"),
        (run, ["--license", "MIT\nx: y"], "must be a name that the Hub knows"),
        (run, ["--name", " \n"], "must have a letter to show"),
    ]
    for checkpoint, options, message in cases:
        assert export(checkpoint, out, *options) == 2, message
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("error: ") == 1
        assert "Traceback" not in errors
        assert not out.exists()


def test_what_lies_in_the_way_is_not_touched(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for name, content in {"notes.txt": "mine", "config.json": '{"library_name": "timm"}', ".hidden": "mine"}.items():
        (tmp_path / name.strip(".")).mkdir()
        (tmp_path / name.strip(".") / name).write_text(content)
    cases = {"file": "is a file", "file/below": "is a file", "notes.txt": "is not empty", "config.json": "is not empty"}
    cases |= {"hidden": "is not empty", "run": "is the folder itself that is exported"}
    for name, message in cases.items():
        before = sorted(tmp_path.rglob("*"))
        assert export(run, tmp_path / name) == 2, name
        assert message in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert export(run, tmp_path / "empty") == 0


def test_exporting_an_export_keeps_the_network(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "a") == 0
    assert export(tmp_path / "a", tmp_path / "b") == 0
    assert_equal_networks(load_model(str(tmp_path / "b")), load_model(str(run)))
    assert export(tmp_path / "a", tmp_path / "a") == 2


def test_the_command_of_the_card_and_the_settings_agree() -> None:
    settings, _ = parse(ExportSettings, ["--checkpoint", "a", "--out", "b", "--onnx"], prog="bat-dist export")
    assert settings == ExportSettings(checkpoint="a", out="b", onnx=True)
