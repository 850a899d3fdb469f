"""To the Hugging Face Hub and back, with its own client, against a server on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bat_dist.artifacts.hub import check_can_push
from bat_dist.errors import ConfigError, UserError
from bat_dist.export import main as export
from bat_dist.storage.files import Folder
from tests.helpers.fake_hub import fake_hub

TOKEN = "hf_of_a_test"
PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
import torch
from bat_dist.artifacts.checkpoints import ModelSpec, load_checkpoint, save_model
from bat_dist.export import main
from bat_dist.storage.files import Folder

place = Path(sys.argv[1])
torch.manual_seed(0)
spec = ModelSpec("tinynet", ("a", "b"), 8, (0.5,) * 3, (0.25,) * 3)
network = spec.build().eval()
facts = {"epoch": 3, "method": "erm", "dataset": "digits"}
save_model(Folder(place / "run"), "best", network.state_dict(), spec, facts)

def push(repository, out):
    texts = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(texts[0]), contextlib.redirect_stderr(texts[1]):
        code = main(["--checkpoint", str(place / "run"), "--out", str(place / out), "--push", repository])
    return code, *(text.getvalue() for text in texts)

found = {"pushed": push("me/net", "exported"), "again": push("me/net", "exported")}
read = load_checkpoint("hf://me/net")
images = torch.rand(4, 3, 8, 8)
found["same"] = bool((read.model(images) == network(images)).all())
found["facts"] = dict(read.facts)
for name in ("hf://me/none", "hf://me/net/no.safetensors"):
    try:
        load_checkpoint(name)
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
import os
os.environ["HF_TOKEN"] = "hf_of_nobody"
found["refused"] = push("me/net", "other")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub_and_found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("hub")
    own = {"PATH": os.environ["PATH"], "HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
    own |= {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with fake_hub(TOKEN) as hub:
        hub.repositories["me/net"] = {"model.onnx": b"of an earlier export", "notes.txt": b"mine"}
        hub.private["me/net"] = False
        command = [sys.executable, "-c", PROGRAM, str(place)]
        done = subprocess.run(command, env={**own, "HF_ENDPOINT": hub.url}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return place, hub, json.loads(done.stdout.splitlines()[-1]), done


def test_an_export_is_on_the_hub_whole(hub_and_found: Any) -> None:
    place, hub, found, _ = hub_and_found
    code, out, err = found["pushed"]
    assert (code, err) == (0, "")
    assert f"on the Hub: {hub.url}/me/net (load_model('hf://me/net') reads it)" in out
    files = hub.repositories["me/net"]
    exported = {file.name: file.read_bytes() for file in (place / "exported").iterdir()}
    assert files == {**exported, "notes.txt": b"mine"}  # and no ONNX file of another network
    assert {"model.safetensors", "config.json", "README.md", "model_info.json"} == exported.keys()
    assert found["again"][0] == 0


def test_what_is_read_from_the_hub_is_the_network(hub_and_found: Any) -> None:
    found = hub_and_found[2]
    assert found["same"]
    assert found["facts"]["epoch"] == 3
    assert found["hf://me/none"] == ["UserError", "hf://me/none/best.safetensors does not exist"]
    assert found["hf://me/net/no.safetensors"] == ["UserError", "hf://me/net/no.safetensors does not exist"]


def test_a_refusal_is_said_and_the_token_is_not(hub_and_found: Any) -> None:
    _, hub, found, done = hub_and_found
    code, out, err = found["refused"]
    assert code == 2
    assert err.startswith("error: the Hub refuses me/net: ")
    assert "(401): may your token write there?" in err
    said = out + err + done.stderr + "".join(found["pushed"][1:])
    assert TOKEN not in said
    assert "hf_of_nobody" not in said
    assert all(token in (TOKEN, "hf_of_nobody", "") for _, _, token in hub.asked)
    assert all(TOKEN.encode() not in content for content in hub.repositories["me/net"].values())


def test_what_cannot_be_pushed_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    words = ["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--push", "me/net"]
    assert export(words) == 2
    assert "error: the Hub asks who you are: run `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="a local --out"):
        check_can_push(Folder("memory://exported"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="--push needs huggingface_hub"):
        check_can_push(Folder(tmp_path))


@pytest.mark.parametrize("name", ["net", "me/", "me/net/more", "../net", "me/a b", "https://huggingface.co/me/net"])
def test_names_that_are_no_repositories(name: str) -> None:
    from bat_dist.config import parse
    from bat_dist.settings.export import ExportSettings

    with pytest.raises(ConfigError, match="push: must be USER/NAME of the Hub, got"):
        parse(ExportSettings, ["--checkpoint", "a", "--out", "b", "--push", name], prog="export")


def test_a_hub_that_does_not_answer_is_a_failure_and_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from bat_dist.artifacts.hub import push
    from bat_dist.errors import RunError

    def lost(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lost)
    with pytest.raises(RunError, match=r"does not answer \(ConnectionError: no route to host\); the export is in"):
        push(Folder(tmp_path), "me/net")
