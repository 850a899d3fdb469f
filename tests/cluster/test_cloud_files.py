"""The machines that cluster/gpu*.yaml ask AWS, Google Cloud and Azure for.

Ray's own provider makes them in a simulated AWS; of the others we know the names that their interfaces take.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler

from tests.cluster.cluster_files import QUARTER, load, machines_for, prepared

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
