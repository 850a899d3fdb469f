"""TensorBoard and MLflow, read back with their own readers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bat_dist.errors import UserError
from bat_dist.training.mlflow_library import import_mlflow
from bat_dist.training.mlflow_tracker import RECORD
from bat_dist.training.trackers import TRACKERS, flatten, open_trackers

SETTINGS = {"arch": "resnet18", "lr": 0.1, "attack": {"epsilon": 8 / 255, "steps": 10}, "seeds": [1, 2], "note": None}


@pytest.fixture(autouse=True)
def _no_mlflow_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


def open_one(name: str, out: Path | str, *, first_epoch: int = 1, settings: Any = SETTINGS) -> Any:
    (tracker,) = open_trackers([name], out=str(out), settings=settings, run_name="a run", first_epoch=first_epoch)
    return tracker


def scalars(out: Path, name: str) -> list[tuple[int, float]]:
    """As the public reader gives them, and TensorBoard's page too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    public = EventAccumulator(str(out / "tensorboard")).Reload().Scalars(name)
    found = [(event.step, event.value) for event in public]
    assert found == [(event.step, make_ndarray(event.tensor_proto).item()) for event in on_the_page(out, name)]
    return found


def on_the_page(out: Path, name: str) -> list[Any]:
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    return EventAccumulator(str(out / "tensorboard")).Reload().Tensors(name)


def client_of(out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # as a user does who looks at it
    return import_mlflow().MlflowClient(tracking_uri=(out / "mlruns").as_uri())


def runs(out: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    client = client_of(out, monkeypatch)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def history(out: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    (run,) = runs(out, monkeypatch)
    metrics = client_of(out, monkeypatch).get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value) for metric in metrics)


# --- both


def test_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown tracker 'mflow': one of tensorboard, mlflow; did you mean mlflow"):
        open_one("mflow", tmp_path)
    assert open_trackers([], out=str(tmp_path / "x"), settings={}, run_name="", first_epoch=1) == []
    twice = open_trackers(["mlflow", "tensorboard"] * 2, out=str(tmp_path), settings={}, run_name="", first_epoch=1)
    assert len(twice) == 2
    for tracker in twice:
        tracker.close()


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install '\.\[{name}\]'"):
        open_trackers(TRACKERS, out=str(tmp_path / "out"), settings={}, run_name="", first_epoch=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", TRACKERS)
def test_a_remote_folder_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        open_one(name, "memory://trackers")


def test_settings_become_text() -> None:
    assert flatten({"a": 1, "b": {"c": [2, 3], "d": {"e": None}}}) == {"a": "1", "b.c": "[2, 3]", "b.d.e": "None"}


def test_importing_the_module_imports_neither_package() -> None:
    code = "import sys, bat_dist.training.trackers; print([m for m in ('mlflow', 'tensorboard') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- TensorBoard


def test_tensorboard_shows_each_number_and_the_settings(tmp_path: Path) -> None:
    tracker = open_one("tensorboard", tmp_path)
    tracker.log(1, {"loss": 2.5, "robust accuracy/test": 0.25})
    tracker.log(2, {"loss": float("nan"), "robust accuracy/test": None})
    tracker.log(3, {"loss": 1.5})
    before_close = scalars(tmp_path, "loss")
    tracker.close()
    assert scalars(tmp_path, "loss") == before_close == [(1, 2.5), (3, 1.5)]
    assert scalars(tmp_path, "robust accuracy/test") == [(1, 0.25)]
    (text,) = on_the_page(tmp_path, "settings/text_summary")
    assert text.tensor_proto.string_val[0].decode().splitlines()[2] == f"    attack.epsilon: {8 / 255}"


def test_tensorboard_after_kills_has_each_epoch_once(tmp_path: Path) -> None:
    for first, last in [(1, 2), (1, 5), (4, 6), (4, 7)]:
        killed = open_one("tensorboard", tmp_path, first_epoch=first)
        for epoch in range(first, last + 1):
            killed.log(epoch, {"loss": 100 * last + epoch})
        # a kill: what is in the file is all there is, and the last record may be cut
        newest = max((tmp_path / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:-3])
    resumed = open_one("tensorboard", tmp_path, first_epoch=7)
    resumed.log(7, {"loss": 7})
    resumed.close()
    assert scalars(tmp_path, "loss") == [(1, 501), (2, 502), (3, 503), (4, 704), (5, 705), (6, 706), (7, 7)]
    assert [text.step for text in on_the_page(tmp_path, "settings/text_summary")] == [1, 4, 7]


# --- MLflow


def test_mlflow_gets_one_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"setting_{number}": "x" * 7000 for number in range(150)}
    tracker = open_one("mlflow", tmp_path, settings=SETTINGS | many)
    tracker.log(1, {"loss": 2.5, "robust accuracy/test": 0.25})
    tracker.log(2, {"loss": float("nan"), "robust accuracy/test": None})
    tracker.log(3, {"loss": 1.5})
    assert runs(tmp_path, monkeypatch)[0].info.status == "RUNNING"
    tracker.close()
    (run,) = runs(tmp_path, monkeypatch)
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert client_of(tmp_path, monkeypatch).get_experiment(run.info.experiment_id).name == "bat-dist"
    assert run.data.params.items() >= flatten(SETTINGS).items()
    assert run.data.params["setting_149"] == "x" * 5997 + "..."
    assert history(tmp_path, "loss", monkeypatch) == [(1, 2.5), (3, 1.5)]
    assert history(tmp_path, "robust accuracy/test", monkeypatch) == [(1, 0.25)]


def test_mlflow_after_kills_has_one_run_and_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for first, last in [(1, 2), (1, 5), (4, 6), (4, 7)]:
        killed = open_one("mlflow", tmp_path, first_epoch=first)
        for epoch in range(first, last + 1):
            killed.log(epoch, {"loss": 100 * last + epoch})
    done = open_one("mlflow", tmp_path, first_epoch=8, settings=SETTINGS | {"lr": 0.2, "epochs": 9})
    done.log(8, {"loss": 8, "late": 1})
    done.close()
    reopened = open_one("mlflow", tmp_path, first_epoch=9)
    assert runs(tmp_path, monkeypatch)[0].info.status == "RUNNING"
    reopened.close()
    expected = [(1, 201), (2, 202), (3, 503), (4, 504), (5, 505), (6, 606), (7, 707), (8, 8)]
    assert history(tmp_path, "loss", monkeypatch) == expected
    (run,) = runs(tmp_path, monkeypatch)
    assert (run.data.params["lr"], run.data.params["epochs"]) == ("0.1", "9")  # what was logged stays


def test_mlflow_begins_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def number_after(**changes: Any) -> int:
        open_one("mlflow", tmp_path, **changes).close()
        return len(runs(tmp_path, monkeypatch))

    assert number_after() == 1
    assert number_after() == 1
    assert number_after(settings=SETTINGS | {"lr": 0.2}) == 2  # other settings from the start
    run_id = json.loads((tmp_path / RECORD).read_text())["run_id"]
    client_of(tmp_path, monkeypatch).delete_run(run_id)
    assert number_after(first_epoch=5) == 2  # one there, one deleted
    (tmp_path / RECORD).write_text(json.dumps({"run_id": "0" * 32, "params": {}}))
    assert number_after(first_epoch=5) == 3  # another server does not know it


def test_mlflow_lets_the_training_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    tracker = open_one("mlflow", tmp_path)
    tracker.log(1, {"loss": 1})
    (tmp_path / "mlruns").rename(tmp_path / "away")
    tracker.log(2, {"loss": 2})
    tracker.log(3, {"loss": 3})
    assert "MLflow did not take 2 values, they are tried again" in caplog.text
    (tmp_path / "away").rename(tmp_path / "mlruns")
    tracker.log(4, {"loss": 4})
    (tmp_path / "mlruns").rename(tmp_path / "away")
    tracker.close()
    assert "could not be marked as finished" in caplog.text
    (tmp_path / "away").rename(tmp_path / "mlruns")
    assert history(tmp_path, "loss", monkeypatch) == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "nonsense://x", "file:///dev/null/mlruns"])
def test_mlflow_that_does_not_answer(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        open_one("mlflow", tmp_path)


def test_mlflow_goes_where_its_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere" / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for _ in range(2):  # the second finds experiment and run
        open_one("mlflow", "memory://mlflow_elsewhere").close()
    (run,) = runs(tmp_path / "elsewhere", monkeypatch)
    assert client_of(tmp_path / "elsewhere", monkeypatch).get_experiment(run.info.experiment_id).name == "mine"


# --- the network and the environment

PROGRAM = """
import json, os, socket, sys, threading
attempts = []
def refuse(*args, **kwargs):
    attempts.append(repr(args[:2]))
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
if "before" in sys.argv:
    import mlflow
if "ours" in sys.argv:
    environment = dict(os.environ)
    from bat_dist.training.trackers import open_trackers
    trackers = open_trackers(["tensorboard", "mlflow"], out=sys.argv[1], settings={"a": 1}, run_name="", first_epoch=1)
    for tracker in trackers:
        tracker.log(1, {"loss": 1.0})
        tracker.close()
    changed = {name for name, _ in environment.items() ^ os.environ.items()}
    assert changed <= {"_MLFLOW_TELEMETRY_SESSION_ID"} and len(os.environ) <= len(environment), changed
import mlflow
mlflow.MlflowClient(tracking_uri="file://" + sys.argv[1] + "/plain").create_experiment("an event of their telemetry")
for thread in threading.enumerate():
    if thread.name == "GetTelemetryConfig":
        thread.join(10)
print(json.dumps(attempts))
"""


@pytest.mark.parametrize(
    ("order", "is_silent"),
    [(["ours"], True), (["before", "ours"], True), (["before"], False)],  # the last one shows that the trap works
)
def test_nobody_phones_home(order: list[str], is_silent: bool, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_ALLOW_FILE_STORE": "true"}
    environment |= {"OMP_NUM_THREADS": "1"}  # and none of those by which MLflow knows a test from a user
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "out"), *order],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout) == []) == is_silent, done.stdout
    if "before" not in order:
        assert not (tmp_path / ".config").exists()  # where MLflow would number this installation
