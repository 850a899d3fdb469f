"""TensorBoard, MLflow and W&B; the first two are read back with their own readers, W&B's files with its messages."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bat_dist.errors import UserError
from bat_dist.training.mlflow_library import import_mlflow
from bat_dist.training.mlflow_tracker import RECORD
from bat_dist.training.trackers import TRACKERS, flatten, open_trackers
from bat_dist.training.wandb_tracker import has_key, import_wandb

SETTINGS = {"arch": "resnet18", "lr": 0.1, "attack": {"epsilon": 8 / 255, "steps": 10}, "seeds": [1, 2], "note": None}


@pytest.fixture(autouse=True)
def _no_settings_of_trackers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))  # the machine's own may have a key for W&B


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
    with pytest.raises(
        ValueError, match="unknown tracker 'mflow': one of tensorboard, mlflow, wandb; did you mean mlflow"
    ):
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
    with pytest.raises(UserError, match="WANDB_DIR" if name == "wandb" else "MLFLOW_TRACKING_URI"):
        open_one(name, "memory://trackers")


def test_settings_become_text() -> None:
    assert flatten({"a": 1, "b": {"c": [2, 3], "d": {"e": None}}}) == {"a": "1", "b.c": "[2, 3]", "b.d.e": "None"}


def test_importing_the_module_imports_neither_package() -> None:
    code = f"import sys, bat_dist.training.trackers; print([m for m in {TRACKERS} if m in sys.modules])"
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


# --- W&B


def logged(out: Path) -> list[tuple[str, int, dict[str, float]]]:
    """(run, step, values) of every line of history in W&B's files, in the order in which they were written.

    The files are LevelDB's log: blocks of 32 KiB, after a head of 7 bytes, of pieces with a checksum (4 bytes), a
    length (2) and a kind (1: whole, 2: first, 3: middle, 4: last).
    """
    from wandb.proto import wandb_internal_pb2

    read: Any = vars(wandb_internal_pb2)["Record"].FromString

    found: list[tuple[str, int, dict[str, float]]] = []
    for file in sorted(out.glob("wandb/offline-run-*/*.wandb")):
        data, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 2**15 - at % 2**15 < 7:  # no room for another piece in this block
                at += 2**15 - at % 2**15
                continue
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
            if kind in (1, 4):
                history = read(whole).history
                if history.item:
                    values = {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in history.item
                    }
                    own = {name: value for name, value in values.items() if not name.startswith("_")}
                    found.append((file.stem, int(values["_step"]), own))
                whole = b""
    return found


KILLED = """
import os, signal, sys
from bat_dist.training.trackers import open_trackers
(tracker,) = open_trackers(["wandb"], out=sys.argv[1], settings={}, run_name="", first_epoch=3)
for epoch in range(3, 300):  # a full block of its file reaches the disk
    tracker.log(epoch, {"loss": -epoch, **{f"number_{n}": 1.0 for n in range(20)}})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_wandb_without_a_key_has_each_epoch_once_even_after_a_kill(tmp_path: Path) -> None:
    tracker = open_one("wandb", tmp_path, settings={})
    tracker.log(1, {"loss": 21, "robust accuracy/test": None, "lr": float("nan")})
    tracker.log(2, {"loss": 22})
    tracker.log(2, {"loss": 23})
    tracker.close()
    own = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], env=own, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (tmp_path / "history.csv").write_text("epoch,loss,val_pgd\n1,21,\n2,22,\n3,33,0.5\n4,34,\n")  # what the run knows
    tracker = open_one("wandb", tmp_path, settings={}, first_epoch=5)
    tracker.log(5, {"loss": 35})
    tracker.close()
    record = json.loads((tmp_path / "wandb_run.json").read_text())
    assert (record["kept"], record["unfinished"]) == (5, None)
    found = logged(tmp_path)
    assert {run for run, _, _ in found} == {f"run-{record['run_id']}"}
    assert [(epoch, values) for _, epoch, values in found] == [
        *[(1, {"loss": 21}), (2, {"loss": 22})],
        *[(3, {"loss": 33, "val_pgd": 0.5}), (4, {"loss": 34}), (5, {"loss": 35})],
    ]


class FakeRun:
    """A run of W&B that keeps what it is told, at a server that knows the steps below `step`."""

    def __init__(self, step: int = 0, error: Exception | None = None, **how: Any) -> None:
        self.step, self.error, self.how, self.dir, self.told = step, error, how, "x/wandb/run-1/files", list[int]()

    def log(self, values: Mapping[str, float], *, step: int, commit: bool) -> None:
        if self.error:
            raise self.error
        assert commit  # else W&B waits for the next step
        self.told.append(step)

    def finish(self) -> None:
        if self.error:
            raise self.error


def test_wandb_gets_settings_and_begins_anew_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[FakeRun] = []
    monkeypatch.setattr(import_wandb(), "init", lambda **how: began.append(FakeRun(**how)) or began[-1])
    for settings, first_epoch in [(SETTINGS, 1), (SETTINGS, 1), ({"lr": 2}, 5), ({"lr": 2}, 1)]:
        open_one("wandb", tmp_path, settings=settings, first_epoch=first_epoch)
    assert began[0].how["config"]["attack.steps"] == "10"
    assert began[0].how["project"] == "bat-dist"
    ids = [run.how["id"] for run in began]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    open_one("wandb", "memory://wandb")
    assert [run.how["mode"] for run in began] == ["offline"] * 4 + ["online"]
    assert (began[-1].how["project"], began[-1].how["dir"]) == ("mine", str(tmp_path))


def test_wandb_is_told_what_its_server_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    (tmp_path / "history.csv").write_text("epoch,loss\n" + "".join(f"{epoch},1.5\n" for epoch in range(1, 8)))
    for step, first_epoch, told in [(5, 8, [5, 6, 7, 8, 9]), (9, 8, [9]), (0, 8, [1, 2, 3, 4, 5, 6, 7, 8, 9])]:
        (tmp_path / "wandb_run.json").unlink(missing_ok=True)
        run = FakeRun(step)
        monkeypatch.setattr(import_wandb(), "init", lambda run=run, **how: run)
        tracker = open_one("wandb", tmp_path, first_epoch=first_epoch)
        tracker.log(8, {"loss": 1})
        tracker.log(9, {"loss": 1})
        assert run.told == told


def test_wandb_finds_the_key_of_its_own_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_key()
    (tmp_path / "no netrc").write_text("machine api.wandb.ai login user password key\n")
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not has_key()


def test_wandb_lets_the_training_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    wandb = import_wandb()
    monkeypatch.setattr(wandb, "init", lambda **how: FakeRun(error=wandb.Error("the service is gone")))
    tracker = open_one("wandb", tmp_path)
    tracker.log(1, {"loss": 1})
    tracker.close()
    assert "W&B did not take epoch 1: the service is gone" in caplog.text
    assert "could not be finished" in caplog.text
    assert json.loads((tmp_path / "wandb_run.json").read_text())["kept"] == 0

    def refuse(**how: Any) -> None:
        raise wandb.errors.CommError("no answer")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match="WANDB_MODE=offline does without its server"):
        open_one("wandb", tmp_path)


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
