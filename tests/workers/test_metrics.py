"""What a run tells Prometheus: the right numbers on the node's port, the same names in the dashboard, no harm done."""

import json
import logging
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bat_dist.data.datasets import Split
from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.workers import metrics
from bat_dist.workers.metrics import METRICS, CountedLoader, EpochTracker, Metric
from tests.helpers.waiting import PATIENCE, until

CLUSTER = Path(__file__).parents[2] / "cluster"


# --------------------------------------------------------------------------------------------------- dashboard


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_each_metric_and_no_other() -> None:
    dashboard = json.loads((CLUSTER / "grafana.json").read_text())
    shown = set(re.findall(r"ray_bat_dist_\w+", " ".join(expressions(dashboard))))
    assert shown == {metric.exported for metric in METRICS.values()}


def test_the_dashboard_works_with_any_data_source_and_groups_by_tags_there_are() -> None:
    dashboard = json.loads((CLUSTER / "grafana.json").read_text())
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    for panel in dashboard["panels"]:
        assert {part["datasource"]["uid"] for part in (panel, *panel["targets"])} == {"${datasource}"}
    for expression in expressions(dashboard):
        (tags,) = re.findall(r"by \(([\w, ]+)\)", expression)
        assert set(tags.split(", ")) <= set(metrics.TAGS)
        counted = expression.count("_total")
        assert ("rate(" in expression) <= counted  # a rate is of a counter
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_prometheus_finds_the_nodes_where_ray_names_them() -> None:
    settings = yaml.safe_load((CLUSTER / "prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]


# --------------------------------------------------------------------------------------------------- on the port

JOB = """
import json, os, sys, time, urllib.request
from pathlib import Path

from bat_dist.workers.private_ray import prepare_environment

os.environ.pop("RAY_AUTH_TOKEN", None)
prepare_environment("local")
os.environ["RAY_metrics_report_interval_ms"] = "1000"  # ten seconds otherwise
import numpy as np
import ray

from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.metrics import IMAGES
from bat_dist.workers.resources import Resources
from bat_dist.jobs.fill_rows import fill_rows
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.workers.session import start_in_time

out, port = Path(sys.argv[1]), int(sys.argv[2])


def scrape(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("ray_bat_dist"):
            name, what = line.split("{")[0], line.split('what="')[1].split('"')[0]
            found[f"{name} {what}"] = found.get(f"{name} {what}", 0) + float(line.split()[-1])
    return found, text


def told_by(worker, port):
    lines = [line for line in scrape(port)[1].splitlines() if line.startswith("ray_bat_dist_images") and worker in line]
    return sum(float(line.split()[-1]) for line in lines)


def build(out, port):
    units = []  # of this process

    def work(unit):
        units.append(unit)
        IMAGES.tell(32, what="trials")
        marker = Path(out) / str(unit)
        first, _ = not marker.exists(), marker.touch()
        if unit == 1:
            raise ValueError("bad luck")
        if unit == 2 and first:
            end, me = time.time() + 600, ray.get_runtime_context().get_worker_id()
            while told_by(me, port) < 32 * len(units) and time.time() < end:  # until Ray has reported what it told
                time.sleep(0.1)
            os._exit(1)
        if unit == 3:  # look from here how many are busy
            end = time.time() + 600
            while not (busy := scrape(port)[0].get("ray_bat_dist_workers_busy trials")) and time.time() < end:
                time.sleep(0.2)
            return {"value": np.float64(busy or 0)}
        return {"value": np.float64(unit)}

    return work


how = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
start_in_time(lambda: ray.init(address="local", num_cpus=2, _metrics_export_port=port, **how))
session = Path(ray._private.worker._global_node.get_session_dir_path())
folder = Folder(out / "results")
store = RowStore.open(folder / "trials", fields={"value": Field("float64", ())}, identity={}, num_rows=6)
with Heartbeat(folder, "trials", total=6) as heart:
    how = {"what": "trials", "resources": Resources(), "num_workers": 2, "give_up_on": ()}
    fill_rows(store, folder, 6, build, [str(out), port], **how, heart=heart)
end, found = time.time() + 600, {}
last = {"ray_bat_dist_units_done_total trials": 5, "ray_bat_dist_workers_busy trials": 0}
last["ray_bat_dist_images_total trials"] = 32 * 9
while not last.items() <= found.items() and time.time() < end:  # several reports may lie between the two
    time.sleep(0.5)
    found, text = scrape(port)
busy = float(store.read("value", np.array([3]))[0])
ray.shutdown()
token = os.environ["RAY_AUTH_TOKEN"].encode()
files = [path for top in (session, out) for path in top.rglob("*") if path.is_file()]
leaks = [str(path) for path in files if token in path.read_bytes()]
print(json.dumps({"found": found, "busy": busy, "leaks": leaks, "in_metrics": token.decode() in text}))
print(token.decode(), file=sys.stderr)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_job_is_counted_on_the_metrics_port_and_the_token_stays_secret(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(JOB)
    command = [sys.executable, str(script), str(tmp_path), str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])  # Ray itself tells of the worker that died
    assert said["found"] == {
        "ray_bat_dist_units_done_total trials": 5,
        "ray_bat_dist_units_failed_total trials": 1,
        "ray_bat_dist_units_retried_total trials": 3,
        "ray_bat_dist_units_lost_total trials": 1,
        "ray_bat_dist_images_total trials": 32 * 9,  # 4 once, one thrice, one twice
        "ray_bat_dist_workers_busy trials": 0,
    }
    assert said["busy"] in (1, 2)
    token = done.stderr.split()[-1]
    assert len(token) == 64
    assert said["leaks"] == []
    assert not said["in_metrics"]
    assert (done.stdout + done.stderr).count(token) == 1


# ----------------------------------------------------------------------------------------------------- no harm


class Told(list):
    """What Ray's metrics are told, in the place of Ray's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
        for kind, verb in (("Counter", "inc"), ("Gauge", "set")):
            monkeypatch.setattr(metrics.ray.util.metrics, kind, lambda name, *_, verb=verb: self.made(name, verb))
        for metric in METRICS.values():
            monkeypatch.setattr(metric, "_made", None)

    def made(self, name: str, verb: str) -> Any:
        return type("Fake", (), {verb: lambda _, value, tags: self.append((name, value, tags["what"]))})()


def test_a_metric_that_fails_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no agent")

    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(metrics.ray.util.metrics, "Counter", broken)
    monkeypatch.setattr(metrics, "METRICS", {})
    metric = Metric("Counter", "bat_dist_broken", "")
    for _ in range(3):
        metric.tell(what="trials")
    assert [line.getMessage() for line in caplog.records] == ["no more metric bat_dist_broken: RuntimeError: no agent"]


def test_outside_a_session_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: False)
    metrics.UNITS_DONE.tell(what="trials")
    assert told == []


def test_a_counted_loader_hands_out_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    told, rng = Told(monkeypatch), np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (10, 8, 8, 3), np.uint8), np.arange(10), np.arange(10).astype(str))
    loader = MemoryLoader(split.images, split.labels, crop_padding=1, flip=True)
    counted = CountedLoader(loader, "training")
    epochs = []
    for kind in (loader, counted):
        how = {"batch_size": 4, "generator": torch.Generator().manual_seed(0), "drop_last": True}
        epochs.append(
            [
                *kind.train_epoch(np.arange(9), **how),
                *kind.eval_epoch(batch_size=4),
                *kind.eval_epoch([3], batch_size=1),
            ]
        )
    for ours, theirs in zip(*epochs, strict=True):
        assert all(map(torch.equal, ours, theirs))
    assert told == [("bat_dist_images", number, "training") for number in (4, 4, 4, 4, 2, 1)]


def test_an_epoch_is_told_again_and_again_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    monkeypatch.setattr(metrics, "REFRESH", 0.02)
    tracker = EpochTracker(first_epoch=5)
    until(lambda: told.count(("bat_dist_epoch", 4, "training")) > 2)
    tracker.log(5, {})
    until(lambda: told.count(("bat_dist_epoch", 5, "training")) > 2)
    tracker.close()
    time.sleep(0.1)
    number = len(told)
    time.sleep(0.1)
    assert len(told) == number


def test_gpu_memory_is_told_where_cuda_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    metrics.tell_gpu_memory("trials")
    assert told == [] or torch.cuda.is_initialized()
    for name, value in (("is_available", True), ("is_initialized", True), ("max_memory_allocated", 123)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    metrics.tell_gpu_memory("trials")
    assert told[-1] == ("bat_dist_gpu_memory_bytes", 123, "trials")


def test_telling_that_fails_ends_quietly(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error")

    metrics.keep_telling(broken)
    until(lambda: "no more metrics" in caplog.text)
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING] == [
        "no more metrics of this process: RuntimeError: CUDA error"
    ]
