"""What cluster/kuberay.yaml says, by the schemas of Kubernetes and KubeRay and by Ray's own reading."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from tests.cluster.cluster_files import QUARTER, exported, machines_for, settings_of, text


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
    assert config["idle_timeout_minutes"] == 5
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


def test_only_workers_have_mps_and_none_is_ended_for_want_of_it() -> None:
    head, gpu = (group["template"]["spec"]["containers"][0] for group in groups())
    assert "lifecycle" not in head
    [shell, _, line] = gpu["lifecycle"]["postStart"]["exec"]["command"]
    assert (shell, line) == ("bash", "python -m bat_dist.workers.mps || true")


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
