"""The files in cluster/ say what they must.  No cloud and no cluster: this runs anywhere, in seconds.

Here: what all of them say, the files for `ray up`, by Ray's own validation and scheduler, and the image.
"""

import re
from typing import Any

import jsonschema
import pytest

from bat_dist.workers.private_ray import START_SECONDS
from tests.cluster.cluster_files import (
    CLOUDS,
    CLUSTER,
    LAUNCHED,
    QUARTER,
    ROOT,
    WITH_THREE_EDITS,
    exported,
    load,
    machines_for,
    prepared,
    settings_of,
    text,
)

# --- all files


@pytest.mark.parametrize("name", WITH_THREE_EDITS)
def test_there_are_three_places_to_edit(name: str) -> None:
    assert re.findall(r"# EDIT (\d)\b", text(name)) == ["1", "2", "3"]
    assert "Edit the three places marked EDIT" in text(name)


SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|\b[0-9a-f]{40,}\b|(?i:secret_access_key|password|api_?key|auth_token)\s*[:=]\s*[\"']?[\w/+]{8,}"
)


def test_nothing_secret_is_in_the_files() -> None:
    for path in [*CLUSTER.iterdir(), ROOT / ".dockerignore"]:
        assert not SECRETS.search(path.read_text()), path


@pytest.mark.parametrize(
    "planted",
    [
        "AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "aws_secret_access_key = wJalrXUtn/K7M",
        "0a1b" * 16,
    ],
)
def test_a_secret_would_be_seen(planted: str) -> None:
    assert SECRETS.search(f"  x: {planted}\n")


def test_the_costs_and_what_was_tried_are_said() -> None:
    for name in (*CLOUDS, "kuberay"):
        assert "COSTS MONEY" in text(name)
        assert "Not tried" in text(name)


def test_a_silent_node_is_given_up_soon() -> None:
    environment = {name: int(value) for name, value in exported().items() if value.isdigit()}
    silent = environment["RAY_health_check_failure_threshold"] * (
        environment["RAY_health_check_period_ms"] + environment["RAY_health_check_timeout_ms"]
    )
    assert silent <= 30_000
    assert (
        environment["RAY_grpc_client_keepalive_time_ms"] + environment["RAY_grpc_client_keepalive_timeout_ms"] <= 30_000
    )
    assert exported()["RAY_AUTH_MODE"] == "token"


def test_a_node_may_take_minutes_to_start_as_a_private_ray_may() -> None:
    assert START_SECONDS.items() <= exported().items()


# --- files for `ray up`


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_the_file(name: str) -> None:
    prepared(load(name))


@pytest.mark.parametrize("name", LAUNCHED)
@pytest.mark.parametrize(
    ("place", "key", "typo"),
    [((), "file_mounts", "file_mount"), (("auth",), "ssh_user", "ssh_usr"), ((), "provider", "providers")],
)
def test_a_typo_is_seen(name: str, place: tuple[str, ...], key: str, typo: str) -> None:
    config = load(name)
    where = config
    for step in place:
        where = where[step]
    where[typo] = where.pop(key)
    with pytest.raises((jsonschema.ValidationError, KeyError)):
        prepared(config)


@pytest.mark.parametrize("name", CLOUDS)
def test_a_typo_in_a_kind_of_machine_is_seen(name: str) -> None:
    config = load(name)
    config["available_node_types"]["gpu"]["min_worker"] = 0
    with pytest.raises(jsonschema.ValidationError):
        prepared(config)


@pytest.mark.parametrize("name", LAUNCHED)
def test_nodes_get_the_code_the_token_and_the_environment(name: str) -> None:
    config = prepared(load(name))
    assert config["file_mounts"] == {"~/src/bat-dist": ".", "~/.ray/auth_token": "~/.ray/auth_token"}
    for kind in ("head", "worker"):
        assert any("bash ~/src/bat-dist/cluster/install.sh" in line for line in config[f"{kind}_setup_commands"]), kind
    install = (CLUSTER / "install.sh").read_text()
    assert 'cp "$source/cluster/env.sh" "$home/env.sh"' in install
    assert ".bashrc" in install
    assert "chmod 600" in install


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_is_started_as_it_should(name: str) -> None:
    config = prepared(load(name))
    head, worker = " ".join(config["head_start_ray_commands"]), " ".join(config["worker_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "ray start --address=$RAY_HEAD_IP:6379" in worker
    for line in (head, worker):
        assert "python -m bat_dist.workers.start_again ray start --" in line
        assert re.search(r"--object-store-memory=\d{10}\b", line)
        assert "--metrics-export-port=8080" in line  # cluster/prometheus.yml
        assert "0.0.0.0" not in line
    # v2 starts one machine too few where head and workers are of one kind: provider local.  Clouds have it by default.
    assert ("RAY_enable_autoscaler_v2=0" in head) == (name == "local")
    assert "--stop" not in text(name)


@pytest.mark.parametrize("name", LAUNCHED)
def test_nodes_with_workers_have_mps_before_ray(name: str) -> None:
    config = prepared(load(name))
    kinds = ("head", "worker") if name == "local" else ("worker",)
    for kind in ("head", "worker"):
        commands = config[f"{kind}_start_ray_commands"]
        starts = [number for number, line in enumerate(commands) if "-m bat_dist.workers.mps" in line]
        assert starts == [1] * (kind in kinds), kind
        assert "ray start" in commands[-1]
    assert "\n# export BAT_DIST_MPS=0\n" in (CLUSTER / "env.sh").read_text()


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_runs_no_trials_and_workers_come_and_go(name: str) -> None:
    config = prepared(load(name))
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    assert not is_spot(name, head)
    assert kinds
    for kind in kinds.values():
        assert kind["min_workers"] == 0
        assert kind["max_workers"] == config["max_workers"]
        assert is_spot(name, kind)
    assert 0 < config["max_workers"] <= 8  # nobody's bill is to surprise them
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False  # stopped disks cost, too


def is_spot(name: str, kind: dict[str, Any]) -> bool:
    node = kind["node_config"]
    return {
        "gpu": node.get("InstanceMarketOptions", {}).get("MarketType") == "spot",
        "gpu-gcp": node.get("scheduling", {}).get("provisioningModel") == "SPOT",
        "gpu-azure": node.get("azure_arm_parameters", {}).get("priority") == "Spot",
    }[name]


@pytest.mark.parametrize("name", ["gpu-gcp", "gpu-azure"])
def test_the_autoscaler_brings_what_the_queue_asks_for(name: str) -> None:
    config = prepared(load(name))
    assert machines_for(config, [QUARTER]) == {"gpu": 1}
    assert machines_for(config, [QUARTER] * 16) == {"gpu": 4}  # four share a GPU
    assert machines_for(config, [QUARTER] * 1000) == {"gpu": config["max_workers"]}
    assert machines_for(config, [{"CPU": 1}]) == {"gpu": 1}  # not the head


@pytest.mark.parametrize("name", CLOUDS)
def test_every_worker_proves_its_gpu_before_it_joins(name: str) -> None:
    assert "torch.cuda.is_available()" in prepared(load(name))["worker_setup_commands"][-1]


@pytest.mark.parametrize(("name", "store"), [("gpu", "s3://"), ("gpu-gcp", "gs://"), ("gpu-azure", "abfs://")])
def test_the_command_of_the_header_is_one(name: str, store: str) -> None:
    header = text(name).replace("\n#     ", " ")
    submit = re.search(rf"ray submit --tmux cluster/{name}\.yaml bat_dist/(memorize)\.py -- (.*?)  ", header)
    assert submit
    settings = settings_of(f"{submit[1]} {submit[2]}")
    assert settings.out.startswith(store)
    assert settings.gpus_per_trial == 0.25


# --- the image


def test_the_image_has_what_install_needs_and_no_root() -> None:
    image = re.sub(r"^#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    needed = re.search(r"^system_packages=\((.*)\)", (CLUSTER / "install.sh").read_text(), flags=re.MULTILINE)
    assert needed
    assert set(needed[1].split()) | {"wget", "openssh-client"} <= set(image.replace("\\", " ").split())
    assert re.findall(r"^USER (.*)", image, flags=re.MULTILINE) == ["1000:1000"]
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)", image, flags=re.MULTILINE)
    assert base
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", base[1])  # not a tag that moves from version to version
    assert "bash cluster/install.sh s3" in image
    assert not re.search(r"^ADD|curl .*\| *(ba)?sh", image, flags=re.MULTILINE)


def test_the_builder_gets_what_is_named_and_no_more() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert sent == {"bat_dist", "cluster", "constraints.txt", "LICENSE", "pyproject.toml", "README.md", "tune_configs"}
    assert all((ROOT / name).exists() for name in sent)
