"""The files in cluster/ say what they must.  No cloud and no cluster: this runs anywhere, in seconds.

Ray's own code judges where it can: its validation of launcher files, its reading of a KubeRay cluster, its scheduler,
and its AWS provider against a simulated AWS.
"""

import contextlib
import copy
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from bat_dist.config import parse
from bat_dist.settings.memorize import MemorizeSettings

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CLOUDS = ("gpu", "gpu-gcp", "gpu-azure")
LAUNCHED = ("local", *CLOUDS)
WITH_THREE_EDITS = (*LAUNCHED, "kuberay")
QUARTER = {"CPU": 1, "GPU": 0.25}  # a trial of --gpus_per_trial 0.25


def text(name: str) -> str:
    return (CLUSTER / f"{name}.yaml").read_text()


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load(text(name))


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The file as `ray up` takes it.  Raises what `ray up` would."""
    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def settings_of(words: str) -> MemorizeSettings:
    verb, *options = shlex.split(words)
    assert verb == "memorize"
    return parse(MemorizeSettings, options, prog="memorize")[0]


def machines_for(config: dict[str, Any], demand: list[dict[str, float]]) -> dict[str, int]:
    """Which machines Ray's autoscaler would start for a queue, on a cluster that is its head alone."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    read = AutoscalingConfig(config, skip_content_hash=True)
    request = SchedulingRequest(
        node_type_configs=read.get_node_type_configs() or {},
        max_num_nodes=read.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(one) for one in demand]),
        current_instances=[],
        disable_launch_config_check=True,
    )
    return {launch.instance_type: launch.count for launch in ResourceDemandScheduler().schedule(request).to_launch}


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


def exported() -> dict[str, str]:
    """What cluster/env.sh puts into every node's environment."""
    found = re.findall(r"^export (\w+)=(\S+)", (CLUSTER / "env.sh").read_text(), flags=re.MULTILINE)
    return dict(found)


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
        assert re.search(r"--object-store-memory=\d{10}\b", line)
        assert "--metrics-export-port=8080" in line  # cluster/prometheus.yml
        assert "0.0.0.0" not in line
    # v2 starts one machine too few where head and workers are of one kind: provider local.  Clouds have it by default.
    assert ("RAY_enable_autoscaler_v2=0" in head) == (name == "local")
    assert "--stop" not in text(name)


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


# --- AWS


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A simulated AWS that has the instance profile of cluster/gpu.yaml."""
    moto, boto3 = pytest.importorskip("moto"), pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "simulated")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a key pair to ~/.ssh
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with moto.mock_aws():
        boto3.client("iam", region_name="us-west-2").create_instance_profile(InstanceProfileName="bat-dist")
        yield boto3.client("ec2", region_name=load("gpu")["provider"]["region"])


def launch(config: dict[str, Any], ec2: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file as Ray fills it in, and a machine of each kind, as AWS tells them."""
    from ray.autoscaler._private.aws import node_provider

    types = [kind["node_config"]["InstanceType"] for kind in config["available_node_types"].values()]
    # All of AWS's types take half a minute to simulate.
    found = ec2.describe_instance_types(InstanceTypes=types)["InstanceTypes"]
    monkeypatch.setattr(node_provider, "list_ec2_instances", lambda *_: found)
    config = node_provider.AWSNodeProvider.fillout_available_node_types_resources(prepared(config))
    config = node_provider.AWSNodeProvider.bootstrap_config(config)
    provider = node_provider.AWSNodeProvider(config["provider"], config["cluster_name"])
    started = {}
    for name, kind in config["available_node_types"].items():
        tags = {
            "ray-node-kind": "head" if name == "head" else "worker",
            "ray-launch-config": "x",
            "ray-node-name": name,
        }
        (started[name],) = provider.create_node(kind["node_config"], tags, 1)
    reservations = ec2.describe_instances(InstanceIds=list(started.values()))["Reservations"]
    told = {one["InstanceId"]: one for reservation in reservations for one in reservation["Instances"]}
    return config, {name: told[number] for name, number in started.items()}


def test_ray_makes_the_machines_in_a_simulated_aws(aws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, machines = launch(load("gpu"), aws, monkeypatch)
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    worker = config["available_node_types"]["gpu"]["resources"]
    assert (worker["CPU"], worker["GPU"]) == (8, 1)
    assert machines_for(config, [QUARTER] * 16) == {"gpu": 4}
    assert "InstanceLifecycle" not in machines["head"]
    assert machines["gpu"]["InstanceLifecycle"] == "spot"
    for name, gigabytes in (("head", 100), ("gpu", 150)):
        assert machines[name]["IamInstanceProfile"]["Arn"].endswith("/bat-dist")
        (disk,) = config["available_node_types"][name]["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] == gigabytes
        assert disk["Ebs"]["Encrypted"]
    (key,) = (tmp_path / ".ssh").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_only_ssh_comes_in_from_outside(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, machines = launch(load("gpu"), aws, monkeypatch)
    groups = {group["GroupId"] for machine in machines.values() for group in machine["SecurityGroups"]}
    rules = [
        rule
        for group in aws.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
        for rule in group["IpPermissions"]
    ]
    from_outside = [rule for rule in rules if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in from_outside] == [(22, 22)]
    among_nodes = [pair["GroupId"] for rule in rules for pair in rule["UserIdGroupPairs"]]
    assert set(among_nodes) == groups


def test_a_typo_in_an_aws_machine_is_seen(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.exceptions

    config = load("gpu")
    node = config["available_node_types"]["gpu"]["node_config"]
    node["InstanceMarketOption"] = node.pop("InstanceMarketOptions")
    with pytest.raises(botocore.exceptions.ParamValidationError, match="InstanceMarketOption"):
        launch(config, aws, monkeypatch)


# --- Google Cloud and Azure: their simulators are not at hand


def test_the_google_place_is_one_place() -> None:
    config = load("gpu-gcp")
    region, zone = config["provider"]["region"], config["provider"]["availability_zone"]
    assert re.fullmatch(rf"{region}-[a-f]", zone)
    for kind in config["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        assert disk["autoDelete"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"
        assert disk["initializeParams"]["diskSizeGb"] >= 100


# Names of Google's API (instances.insert) that the file uses: the client sends any, the server refuses strange ones.
GOOGLE = {
    "": {"machineType", "disks", "scheduling", "serviceAccounts"},
    "scheduling": {"provisioningModel", "instanceTerminationAction", "automaticRestart", "onHostMaintenance"},
    "disks": {"boot", "autoDelete", "type", "initializeParams"},
    "serviceAccounts": {"email", "scopes"},
    "initializeParams": {"diskSizeGb", "diskType", "sourceImage"},
}


def unknown_names(node: dict[str, Any], within: str = "") -> set[str]:
    unknown = set(node) - GOOGLE[within]
    for name, value in node.items():
        parts = value if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, dict) and name in GOOGLE:
                unknown |= unknown_names(part, name)
    return unknown


def test_google_machines_are_named_as_its_api_does() -> None:
    kinds = load("gpu-gcp")["available_node_types"]
    for kind in kinds.values():
        assert not unknown_names(kind["node_config"])
    kinds["gpu"]["node_config"]["disks"][0]["initializeParams"]["diskSize"] = 1
    assert unknown_names(kinds["gpu"]["node_config"]) == {"diskSize"}


def azure_problems(node: dict[str, Any]) -> list[str]:
    """What Ray's own deployment template would refuse: it takes these parameters and no others."""
    template = Path(ray.autoscaler.__file__).parent / "_private/_azure/azure-vm-template.json"
    parameters = json.loads(template.read_text())["parameters"]
    kinds = {"string": str, "int": int, "bool": bool, "object": dict, "array": list, "securestring": str}
    return [
        name
        for name, value in node["azure_arm_parameters"].items()
        if name not in parameters or not isinstance(value, kinds[parameters[name]["type"].lower()])
    ]


def test_azure_machines_say_what_the_template_takes() -> None:
    kinds = load("gpu-azure")["available_node_types"]
    for kind in kinds.values():
        assert not azure_problems(kind["node_config"])
        assert kind["node_config"]["azure_arm_parameters"]["osDiskSize"] >= 100
    kinds["gpu"]["node_config"]["azure_arm_parameters"] |= {"vmSise": "x", "osDiskSize": "200"}
    assert azure_problems(kinds["gpu"]["node_config"]) == ["osDiskSize", "vmSise"]


# --- Kubernetes


def kubernetes() -> dict[str, dict[str, Any]]:
    """The documents of cluster/kuberay.yaml, by kind."""
    documents = list(yaml.safe_load_all(text("kuberay")))
    return {document["kind"]: document for document in documents}


def kubernetes_errors(document: dict[str, Any]) -> list[str]:
    schema = yaml.safe_load((Path(__file__).parent / "crds/kuberay.yaml").read_text())
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


def groups() -> list[dict[str, Any]]:
    spec = kubernetes()["RayCluster"]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "RayCluster", "RayJob"])
def test_kubernetes_takes_the_document(kind: str) -> None:
    assert not kubernetes_errors(kubernetes()[kind])


@pytest.mark.parametrize(
    ("kind", "path", "typo"),
    [
        ("RayCluster", ("authOptions",), "secretname"),
        ("RayCluster", (), "enableInTreeAutoscalling"),
        ("RayCluster", ("headGroupSpec", "template", "spec", "containers", 0), "resource"),
        ("RayCluster", ("workerGroupSpecs", 0), "maxReplica"),
        ("RayJob", (), "entryPoint"),
        ("PersistentVolumeClaim", (), "storageClass"),
    ],
)
def test_a_typo_in_kubernetes_is_seen(kind: str, path: tuple[str | int, ...], typo: str) -> None:
    document = kubernetes()[kind]
    where = document["spec"]
    for step in path:
        where = where[step]
    where[typo] = "x"
    assert kubernetes_errors(document)


def test_a_wrong_value_in_kubernetes_is_seen() -> None:
    cluster = kubernetes()["RayCluster"]
    cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0  # the API takes text only
    assert kubernetes_errors(cluster)


def test_ray_reads_the_kubernetes_cluster() -> None:
    cluster = kubernetes()["RayCluster"]
    cluster["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    head, gpu = config["available_node_types"][config["head_node_type"]], config["available_node_types"]["gpu"]
    assert head["resources"]["CPU"] == 0
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (8, 1)
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 4)
    assert config["idle_timeout_minutes"] == 10
    assert machines_for(config, [QUARTER] * 16) == {"gpu": 4}


def test_the_token_of_kubernetes_is_a_secret_made_outside() -> None:
    assert kubernetes()["RayCluster"]["spec"]["authOptions"] == {"mode": "token", "secretName": "bat-dist-token"}
    assert "Secret" not in kubernetes()
    assert "kubectl create secret generic bat-dist-token --from-file=auth_token=" in text("kuberay")


def test_pods_are_not_root_and_know_the_environment() -> None:
    of_the_operator = ("RAY_ADDRESS", "RAY_AUTH_MODE")
    wanted = {name: value for name, value in exported().items() if name not in of_the_operator}
    for group in groups():
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000  # the user of cluster/Dockerfile
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {variable["name"]: variable["value"] for variable in container["env"]} == wanted
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_names_in_kubernetes_meet() -> None:
    documents = kubernetes()
    for group in groups():
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        mounted = {mount["name"] for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]}
        assert mounted == set(volumes)
        claim = volumes["shared"]["persistentVolumeClaim"]["claimName"]
        assert claim == documents["PersistentVolumeClaim"]["metadata"]["name"]
    job = documents["RayJob"]["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": documents["RayCluster"]["metadata"]["name"]}
    # The operator refuses these together with a cluster that is there already.
    assert not {"suspend", "backoffLimit", "shutdownAfterJobFinishes"} & set(job)
    verb = job["entrypoint"].removeprefix("bat-dist ")
    assert settings_of(verb).out.startswith("/shared/")


# --- Slurm

SLURM = CLUSTER / "slurm.sh"
FAKES = {
    # An allocation: srun runs the words after its options here, once.
    "srun": 'echo "srun $*" >> calls; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": """echo "scontrol $*" >> calls
        case "$1 $2" in
          "show hostnames") printf '%s\\n' $SLURM_JOB_NODELIST ;;
          "show job") echo "JobId=1 JobState=$STATE Reason=None" ;;
        esac""",
    "getent": 'echo "10.0.0.1 STREAM $2"',
    # Waits until the nodes are there: the head's step, and one for all others.
    "python": """cat > /dev/null; echo python >> calls
        until [ "$(grep -c '^ray start' calls)" -ge $(($2 > 1 ? 2 : 1)) ]; do sleep 0.05; done""",
    "ray": """echo "ray $*" >> calls
        case $1 in
          health-check) [ -e up ] ;;
          start)
            [ -z "$HEAD_FAILS" ] || exit 1
            stat -c %a "$RAY_AUTH_TOKEN_PATH" >> modes; cat "$RAY_AUTH_TOKEN_PATH" > token
            trap 'rm -f up; echo "ray ended" >> calls; exit 0' TERM
            touch up
            while :; do sleep 0.05; done ;;
        esac""",
    "work": "printf '%s\\0' \"$@\" > words; echo working > started; exit ${CODE:-0}",
    "patient": 'trap "echo saved > ended; exit ${CODE:-1}" TERM; echo working > started; while :; do sleep 0.05; done',
}


class Job:
    """A Slurm job of one script, with all of Slurm and Ray faked."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        self.number = os.getpid() * 10 + 1
        self.logs = Path(f"/tmp/bat-dist-{self.number}")
        bin = folder / "bin"
        bin.mkdir()
        for name, body in FAKES.items():
            (bin / name).write_text(f"#!/usr/bin/env bash\ncd {folder}\n{body}\n")
            (bin / name).chmod(0o755)
        (folder / "home/.bat-dist").mkdir(parents=True)
        (folder / "home/.bat-dist/env.sh").write_text("export RAY_ADDRESS=auto RAY_AUTH_MODE=token\n")

    def start(self, *words: str, nodes: str = "n1", **environment: str) -> "subprocess.Popen[str]":
        variables = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NODELIST": nodes,
            "SLURM_CPUS_PER_TASK": "8",
            "STATE": "RUNNING",
            "HEAD_FAILS": "",
        }
        process = subprocess.Popen(
            ["bash", SLURM, *words],
            cwd=self.folder,
            env=variables | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        process = self.start(*words, **environment)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def stop_in_the_middle(self, *words: str, **environment: str) -> tuple[int, str]:
        """As Slurm does two minutes before the end."""
        process = self.start(*words, **environment)
        for _ in range(600):
            if (self.folder / "started").exists():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def calls(self, name: str) -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.startswith(name)]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    for process in job.started:  # nothing is left if all is well
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout:
            process.stdout.close()
        process.wait()
    for path in job.logs.glob("*"):
        path.unlink()
    if job.logs.exists():
        job.logs.rmdir()


def test_the_slurm_script_is_bash() -> None:
    assert subprocess.run(["bash", "-n", SLURM], capture_output=True, text=True).stderr == ""


def test_slurm_is_asked_to_signal_and_to_queue_again() -> None:
    options = re.findall(r"^#SBATCH (--\S+)", SLURM.read_text(), flags=re.MULTILINE)
    assert {"--signal=B:TERM@120", "--requeue", "--no-kill", "--open-mode=append"} <= set(options)
    # sbatch reads no option after the first command.
    assert SLURM.read_text().rindex("#SBATCH") < SLURM.read_text().index("set -euo pipefail")


def test_a_slurm_job_runs_its_command_as_given_and_leaves_nothing(job: Job) -> None:
    words = ["a b", "; touch owned", "$(touch owned)", "*", ""]
    code, output = job.run("work", *words)
    assert (code, output.count("error")) == (0, 0)
    assert (job.folder / "words").read_text().split("\0")[:-1] == words
    assert not (job.folder / "owned").exists()
    assert job.calls("ray ended")
    assert list((job.folder / "home/.bat-dist").iterdir()) == [job.folder / "home/.bat-dist/env.sh"]


def test_the_token_of_a_slurm_job_is_new_its_owners_and_never_told(job: Job) -> None:
    tokens = set()
    for _ in range(2):
        _, output = job.run("work")
        tokens.add((job.folder / "token").read_text())
        assert not any(token in output + (job.folder / "calls").read_text() for token in tokens)
    assert len(tokens) == 2
    assert all(re.fullmatch(r"[0-9a-f]{64}", token) for token in tokens)
    assert set((job.folder / "modes").read_text().split()) == {"600"}


def test_the_first_node_is_the_head_and_the_others_join_it(job: Job) -> None:
    code, _ = job.run("work", nodes="n1 n2 n3")
    assert code == 0
    head, workers = job.calls("srun")
    assert "--nodelist=n1" in head
    assert "ray start --head" in head
    assert "--dashboard-host=127.0.0.1" in head
    port = 20000 + job.number % 2000 * 5
    assert f"--port={port}" in head
    assert "--nodes=2 --ntasks=2 --exclude=n1" in workers
    assert f"ray start --address=10.0.0.1:{port} " in workers
    for step in (head, workers):
        assert "--num-cpus=8" in step  # the job's, not the machine's
        assert "--kill-on-bad-exit=0" in step


def test_one_node_is_enough(job: Job) -> None:
    assert job.run("work")[0] == 0
    assert len(job.calls("srun")) == 1


def test_the_exit_code_is_the_commands(job: Job) -> None:
    assert job.run("work", CODE="3")[0] == 3
    assert not job.calls("scontrol requeue")


def test_when_time_is_up_the_command_ends_cleanly_and_the_job_is_queued_again(job: Job) -> None:
    code, output = job.stop_in_the_middle("patient")
    assert (job.folder / "ended").read_text() == "saved\n"
    assert code == 1
    assert "back into the queue" in output
    assert job.calls("scontrol requeue") == [f"scontrol requeue {job.number}"]
    assert job.calls("ray ended")


@pytest.mark.parametrize(
    ("why", "environment"),
    [
        ("the user cancelled it", {"STATE": "CANCELLED"}),
        ("the command was done anyway", {"CODE": "0"}),
        ("it never gets anywhere", {"SLURM_RESTART_COUNT": "50"}),
    ],
)
def test_a_job_is_not_queued_again_when(job: Job, why: str, environment: dict[str, str]) -> None:
    job.stop_in_the_middle("patient", **environment)
    assert (job.folder / "ended").exists()
    assert not job.calls("scontrol requeue"), why


def test_a_head_that_does_not_start_is_said(job: Job) -> None:
    code, output = job.run("work", HEAD_FAILS="yes")
    assert code == 1, output
    assert "the head did not start" in output
    assert not (job.folder / "words").exists()


def test_no_command_no_slurm_no_installation(job: Job) -> None:
    assert "no command" in job.run()[1]
    assert "sbatch" in job.run("work", SLURM_JOB_ID="")[1]
    (job.folder / "home/.bat-dist/env.sh").unlink()
    code, output = job.run("work")
    assert (code, "install.sh" in output) == (1, True)


def test_the_slurm_command_of_the_header_is_one() -> None:
    command = re.search(r"cluster/slurm\.sh \\\n#\s+bat-dist (memorize .*)", SLURM.read_text())
    assert command
    settings_of(command[1])


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
