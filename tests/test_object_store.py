"""The programs with their results on S3: the same to the last bit, resumed, through outages, and what bad input says.

The server is moto's, in a process of its own; all talk to it through a relay that can be cut.
"""

import contextlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from bat_dist.artifacts.checkpoints import load_model
from bat_dist.evaluate import main as evaluate
from bat_dist.memorize import main as memorize
from bat_dist.report import main as report
from bat_dist.storage import compaction, lease, location
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.train import main as train
from tests.helpers.made_results import study
from tests.helpers.options import last_ones
from tests.helpers.waiting import PATIENCE

KEY, SECRET = "AKIAIOSFODNN7BATDIST", "wJalrXUtnFEMI/K7MDENG/not-to-be-found-anywhere"
BUCKET = "results-of-tests"
DATA = ["--dataset", "digits", "--num_train", "200", "--num_test", "100", "--loader", "memory"]
ONE = ["--num_workers", "1"]
TRIALS = [*DATA, *ONE, "--num_trials", "6", "--arch", "tinynet", "--epochs", "1", "--precision", "fp32"]
NUM_EPOCHS = 30  # a fifth of a second each: what is killed after two of them is far from its end
RECIPE = f"--recipe fast --epochs {NUM_EPOCHS} --batch_size 32 --num_steps 10 --precision fp32".split()
TRAINING = [*DATA, *RECIPE, "--method", "pgd_at", "--arch", "tinynet"]
LEASE = 3.0  # seconds; a killed driver's is waited for
STOP_AND_GO = (signal.SIGSTOP, signal.SIGCONT)


class Relay:
    """A port on loopback that leads to another; `cut` refuses new connections and breaks those there are."""

    def __init__(self, target: int):
        self.target, self.port = target, 0
        self._open: list[socket.socket] = []
        self.join()

    def join(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._serve, args=[self._door], daemon=True).start()

    def cut(self) -> None:
        for one in (self._door, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _serve(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):  # cut
            while True:
                pair = door.accept()[0], socket.create_connection(("127.0.0.1", self.target))
                self._open += pair
                for source, sink in (pair, pair[::-1]):
                    threading.Thread(target=_pump, args=[source, sink], daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()  # also one that came while the others were cut


class Server:
    """moto on a port of its own; it forgets all when it ends."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert self.process.poll() is None
            time.sleep(0.1)
        self.url = f"http://127.0.0.1:{port}"
        self.relay = Relay(port)

    def check_credentials(self, after: float) -> None:
        """Refuse unknown keys, after so many requests."""
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=str(after).encode(), headers=plain)
        with urllib.request.urlopen(request, timeout=10):
            pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.relay.port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(lease, "LEASE_SECONDS", LEASE)
        torch.set_num_threads(1)  # as the drivers below
        Folder("s3://").fs.mkdir(BUCKET)
        yield server
    torch.set_num_threads(threads)
    server.relay.cut()
    server.process.kill()
    server.process.wait()


def on_s3(name: str) -> Folder:
    return Folder(f"s3://{BUCKET}/{name}")


def driver(program: str, *options: str) -> subprocess.Popen[str]:
    """The program in a process of its own, with one thread, and with the tests' lease."""
    code = (
        f"import sys; from bat_dist.storage import lease; lease.LEASE_SECONDS = {LEASE}\n"
        f"from bat_dist.program import exit_with; from bat_dist.{program} import main; exit_with(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *options], env=environment, start_new_session=True, **pipes)


def assert_same(here: Path, there: Folder, name: str) -> None:
    with np.load(here / name) as expected:
        found = there.read_npz(name)
        assert found.keys() == set(expected.files)
        for key in expected.files:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name}: {key}")


def test_a_finished_store_is_in_few_objects(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "BLOCK", 4)
    place = on_s3("finished")
    store = RowStore.open(place, fields={"mask": Field("bool", (30,))}, identity={}, num_rows=6)
    masks = np.random.default_rng(0).random((6, 30)) < 0.5
    for number, mask in enumerate(masks):
        store.write(number, {"mask": mask})
    compaction.compact_if_complete(store)
    assert {*place.names("mask/*"), *place.names("digest/*")} == {"0.0", "zarr.json"}
    found = RowStore.existing(place)
    assert found is not None
    assert found.status().complete.all()
    np.testing.assert_array_equal(found.read("mask", np.arange(6)), masks)


# ------------------------------------------------------------------------------------------------- memorize


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """Trials on the local disk."""
    out = tmp_path_factory.mktemp("trials")
    assert memorize([*TRIALS, "--out", str(out)]) == 0
    return out


@contextlib.contextmanager
def outage_at_first_row(begin: Callable[[], None], end: Callable[[], None], seconds: float) -> Iterator[None]:
    """It begins before a row is written; that one and those after it are written when it has ended."""
    write, begun, ended = RowStore.write, threading.Event(), threading.Event()

    def back() -> None:
        end()
        ended.set()

    def writing(self: RowStore, row: int, values: Any) -> None:
        if not begun.is_set():
            begun.set()
            begin()
            threading.Timer(seconds, back).start()
        write(self, row, values)
        assert ended.is_set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowStore, "write", writing)
        patch.setattr(location, "SILENCE", 2.0)
        yield
    assert ended.is_set()


@pytest.fixture(scope="module")
def there(server: Server, ray_cluster: None) -> tuple[Folder, str]:
    """The same trials on S3, whose server could not be reached for a while, and what was said."""
    out = on_s3("trials")
    with (
        outage_at_first_row(server.relay.cut, server.relay.join, 4.0),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        assert memorize([*TRIALS, "--out", out.location]) == 0
    return out, said.getvalue()


def test_scores_on_s3_are_those_on_disk(here: Path, there: tuple[Folder, str]) -> None:
    out, _ = there
    for name in ("memorization.npz", "influence.npz", "typicality.npz"):
        assert_same(here, out, name)
    for name in ("index.html", "summary.json", "figures/memorization_histogram.png"):
        assert out.read(name), name
    assert not out.exists(lease.LOCK)


def test_an_outage_is_said_and_waited_for(there: tuple[Folder, str]) -> None:
    out, said = there
    assert f"{out}/trials cannot be reached since" in said
    assert f"{out}/trials answers again, after" in said


def test_status_on_s3(there: tuple[Folder, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert memorize([*TRIALS, "--out", there[0].location, "--status"]) == 0
    assert "6 of 6 trials complete" in capsys.readouterr().out


def test_rows_lost_or_damaged_on_s3_are_computed_again_though_it_falls_silent(
    here: Path, there: tuple[Folder, str], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    out, place = there[0], there[0] / "trials"
    (mask,) = place.names("mask/c.3.*")
    place.write(f"mask/{mask}", b"junk")
    place.remove("digest/c.1.0")
    (correct,) = place.names("train_correct/c.4.*")
    place.remove(f"train_correct/{correct}")
    out.remove("memorization.npz")
    before = written(place)
    assert len(before) == 5
    stop, go_on = ((lambda number=number: server.process.send_signal(number)) for number in STOP_AND_GO)
    with outage_at_first_row(stop, go_on, 6.0):
        assert memorize([*TRIALS, "--out", out.location]) == 0
    assert_same(here, out, "memorization.npz")
    after = written(place)
    assert {name for name in after if after[name] != before.get(name)} == {"c.1.0", "c.3.0", "c.4.0"}
    assert f"{out}/trials cannot be reached since" in capsys.readouterr().err


def written(store: Folder) -> dict[str, Any]:
    """When each row's digest was."""
    return {name: store.fs.info(f"{store.root}/digest/{name}")["LastModified"] for name in store.names("digest/c.*")}


def test_a_file_is_made_once_on_s3(server: Server) -> None:
    """That is a conditional write of the server's: two who look and then write could both succeed."""
    folder = on_s3("once")
    assert folder.write_new("x", b"first")
    assert not folder.write_new("x", b"second")
    assert folder.read("x") == b"first"
    folder.write("x", b"third")
    folder.write("below/y", b"")
    folder.remove_folder("below")
    assert folder.names("*") == ["x"]


def test_a_second_driver_on_s3_is_refused(there: tuple[Folder, str], capsys: pytest.CaptureFixture[str]) -> None:
    with lease.only_driver(there[0]):
        assert memorize([*TRIALS, "--out", there[0].location]) == 2
    assert f"another run (process {os.getpid()} on {socket.gethostname()}) is writing" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- train, evaluate


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A network trained undisturbed on the local disk."""
    out = tmp_path_factory.mktemp("trained")
    assert train([*TRAINING, "--out", str(out)]) == 0
    return out


def kill_after_epochs(count: int, out: Folder, process: subprocess.Popen[str], server: Server) -> None:
    """kill -9 of the driver; no process of its run can reach the store again, so no epoch ends after this."""
    for _ in range(3000):
        if out.exists("history.csv") and len(out.read("history.csv").splitlines()) > count:
            break
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)
    else:
        raise AssertionError(f"no {count} epochs in time")
    server.relay.cut()
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    own = [child for child in children if not child.name().endswith("Agent")]  # Ray's agents stay for a minute
    _, alive = psutil.wait_procs(own, timeout=PATIENCE)
    assert not alive
    server.relay.join()
    assert out.exists(lease.LOCK)
    assert len(out.read("history.csv").splitlines()) < 1 + NUM_EPOCHS, "it had ended"


@pytest.fixture(scope="module")
def trained_there(server: Server) -> tuple[Folder, str]:
    """The same training on S3, killed after its second epoch, and what was said when it went on."""
    out = on_s3("trained")
    process = driver("train", *TRAINING, "--out", out.location)
    kill_after_epochs(2, out, process, server)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert train([*TRAINING, "--out", out.location]) == 0
    return out, said.getvalue()


def test_a_training_killed_on_s3_goes_on_to_the_same_end(trained: Path, trained_there: tuple[Folder, str]) -> None:
    out, said = trained_there
    assert "no sign of life from process" in said
    assert "going on after epoch" in said
    for name in ("last.safetensors", "best.safetensors"):
        assert out.read(name) == (trained / name).read_bytes(), name
    assert out.read_json("run.json")["finished"]
    assert not out.exists("state.safetensors")


@pytest.mark.slow
def test_data_parallel_training_on_s3_is_that_of_one_process_on_disk(tmp_path: Path, server: Server) -> None:
    """Its workers keep Ray's own notes there too; what a kill costs is seen on disk, and with one process on S3."""
    rest = ["--method", "erm", "--arch", "tinynet", "--sync_bn", "--epochs", "1", "--lr", "0.01"]
    options = last_ones([*DATA, *RECIPE, *rest])
    assert train([*options, "--out", str(tmp_path)]) == 0
    out, two = on_s3("two-workers"), ["--num_workers", "2", "--ray_address", "local"]
    process = driver("train", *options, *two, "--out", out.location)  # its workers know the server
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said[-3000:]
    assert out.names(".ray-*") == []
    alone, together = (load_model(place, "last").state_dict() for place in (str(tmp_path), out.location))
    for name, tensor in alone.items():  # only the order of sums differs
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-4)


def test_scores_are_read_from_s3(there: tuple[Folder, str], tmp_path: Path) -> None:
    options = [*DATA, *RECIPE, "--method", "bat", "--arch", "tinynet", "--epochs", "1"]
    words = last_ones([*options, "--scores", f"{there[0]}/memorization.npz", "--out", tmp_path])
    assert train(words) == 0


def test_evaluation_on_s3_is_that_on_disk(
    tmp_path: Path, trained: Path, trained_there: tuple[Folder, str], ray_cluster: None
) -> None:
    options = [*DATA, *ONE, "--attacks", "clean", "pgd20", "--check_images", "0", "--batch_size", "50"]
    out = on_s3("evaluated")
    assert evaluate([*options, "--checkpoint", str(trained), "--out", str(tmp_path)]) == 0
    assert evaluate([*options, "--checkpoint", trained_there[0].location, "--out", out.location]) == 0
    assert_same(tmp_path, out, "flags.npz")
    assert out.exists("evaluation.json")


def test_a_report_of_s3_on_s3_is_that_of_disk(tmp_path: Path, server: Server) -> None:
    place, out = study(tmp_path / "study", seeds=2), on_s3("tables")
    bucket = on_s3("study").fs
    bucket.put(str(place), on_s3("study").root, recursive=True)
    assert report(["--runs", str(place), "--out", str(tmp_path / "report")]) == 0
    assert report(["--runs", on_s3("study").location, "--out", out.location]) == 0
    for name in ("tables.md", "tables.tex", "robustbench.json"):
        assert out.read(name) == (tmp_path / "report" / name).read_bytes()
    assert f"s3://{BUCKET}/study/eval-bat-0" in out.read("tables.csv").decode()
    assert out.exists("report.html")


@pytest.mark.slow
def test_a_run_of_a_sweep_on_s3_is_that_of_train_on_disk(tmp_path: Path, server: Server) -> None:
    base = ["method=trades", "dataset=digits", "num_train=200", "num_test=100", "loader=memory", "arch=tinynet"]
    base += ["recipe=fast", "epochs=2", "batch_size=32", "num_steps=2", "precision=fp32"]
    options = [
        "--base",
        *base,
        "--space",
        "beta=[1, 6]",
        "--seeds",
        "0",
        "--test_attacks",
        "clean",
        "--concurrency",
        "1",
    ]
    out = on_s3("sweep")
    process = driver("tune", *options, "--ray_address", "local", "--out", out.location)  # its workers know the server
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, said[-3000:]
    assert (
        train(
            [word for setting in base for word in f"--{setting}".split("=")] + ["--beta", "6", "--out", str(tmp_path)]
        )
        == 0
    )
    weights = "last.safetensors"
    assert out.read(f"runs/beta=6/seed0/{weights}") == (tmp_path / weights).read_bytes()
    assert out.exists("index.html")
    assert out.exists("test/beta=6/seed0/evaluation.json") or out.exists("test/beta=1/seed0/evaluation.json")
    assert out.names(".ray-*") == []


# ------------------------------------------------------------------------------------------------- bad input

PROGRAMS: dict[str, tuple[Callable[[Sequence[str]], int], list[str]]] = {
    "memorize": (memorize, TRIALS),
    "status": (memorize, [*TRIALS, "--status"]),
    "train": (train, TRAINING),
}


def refused(program: str, out: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What a program that ends with exit code 2 says."""
    main, given = PROGRAMS[program]
    capsys.readouterr()
    assert main(last_ones([*given, "--out", out, *options])) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert SECRET not in errors
    assert len([line for line in errors.splitlines() if line.startswith("error: ")]) == 1
    return errors


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bucket_that_does_not_exist(program: str, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    errors = refused(program, "s3://no-such-bucket/run", capsys)
    assert "s3://no-such-bucket/run/" in errors
    assert "there is no such bucket: make it first, or name another" in errors
    Folder("s3://no-such-bucket/run").create()
    assert not Folder("s3://").fs.exists("no-such-bucket")  # nor is it made


@pytest.mark.parametrize("program", PROGRAMS)
def test_credentials_that_are_refused(program: str, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.check_credentials(after=0)
    try:
        errors = refused(program, on_s3("other").location, capsys)
    finally:
        server.check_credentials(after=float("inf"))
    assert "access is refused" in errors
    assert "check credentials and permissions" in errors


def test_without_s3fs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    assert "pip install '.[s3]'" in refused("train", "s3://bucket/run", capsys)


class Bomb:
    """Unpickling it leaves a folder behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_pickles_in_the_bucket_are_refused_and_not_run(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb, place = tmp_path / "went off", on_s3("planted")
    buffer = io.BytesIO()
    np.savez(buffer, mem=np.array([Bomb(bomb)], dtype=object), fingerprint=np.array("x"))
    place.write("memorization.npz", buffer.getvalue())
    place.write("best.safetensors", pickle.dumps(Bomb(bomb)))
    out = str(tmp_path / "out")
    errors = refused("train", out, capsys, "--method", "bat", "--scores", f"{place}/memorization.npz")
    assert f"{place}/memorization.npz cannot be read as npz" in errors
    assert evaluate([*DATA, "--checkpoint", place.location, "--out", out]) == 2
    assert f"{place}/best.safetensors cannot be read as safetensors" in capsys.readouterr().err
    assert not bomb.exists()
    with pytest.raises(OSError, match="went off"):
        pickle.loads(pickle.dumps(Bomb(bomb / "below")))  # a dud proves nothing


def test_credentials_are_in_no_object(there: tuple[Folder, str], trained_there: tuple[Folder, str]) -> None:
    """Of all that the tests above have left; passes alone, but says more after them."""
    fs = there[0].fs
    objects = {path: fs.cat_file(path) for path in fs.find(BUCKET)}
    assert len(objects) > 40
    for path, content in objects.items():
        assert SECRET.encode() not in content, path
        assert KEY.encode() not in content, path
    assert SECRET not in there[1] + trained_there[1]
