"""What fits where, and what an autoscaler may bring."""

from pathlib import Path

import pytest

from bat_dist.errors import RunError, UserError
from bat_dist.workers import nodes, resources
from bat_dist.workers.resources import Resources, most_workers, present_nodes, promised_nodes, worker_resources

pytestmark = pytest.mark.usefixtures("ray_cluster")

LAUNCHER = """
max_workers: 3
head_node_type: head
available_node_types:
  head: {max_workers: 0, resources: {CPU: 0}, node_config: {}}
  small: {max_workers: 2, resources: {CPU: 4, GPU: 1}, node_config: {}}
  large: {max_workers: 5, resources: {CPU: 16, GPU: 4}, node_config: {}}
"""


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `ray up` leaves on a head."""
    file = tmp_path / "ray_bootstrap_config.yaml"
    monkeypatch.setattr(resources, "LAUNCHER_CONFIG", str(file))
    return file


def test_without_an_autoscaler_what_is_there_counts(launcher: Path) -> None:
    assert promised_nodes() == []
    assert most_workers(Resources(1)) == 2
    assert Resources.of_worker(1, None) == Resources(1, 0.0)


def test_an_autoscalers_machines_count_up_to_its_limits(launcher: Path) -> None:
    launcher.write_text(LAUNCHER)
    assert [node["CPU"] for node in promised_nodes()] == [4, 4, 16]  # max_workers of all is 3
    assert Resources.of_worker(1, None) == Resources(1, 1.0)  # GPUs will come
    assert most_workers(Resources(1, 0.5)) == 2 + 2 + 8
    assert most_workers(Resources(4, 1.0)) == 1 + 1 + 4
    assert most_workers(Resources(1)) == 24


def test_ones_own_machines_are_promised_by_nobody(launcher: Path) -> None:
    """What `ray up` makes of provider local: one kind of node, whose resources it does not know."""
    launcher.write_text(
        "max_workers: 2\nhead_node_type: local.cluster.node\n"
        "available_node_types: {local.cluster.node: {max_workers: 2, min_workers: 2, resources: {}, node_config: {}}}\n"
    )
    assert most_workers(Resources(1)) == 2  # this Ray's own


def test_an_operators_groups_count(launcher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.state import state
    from ray.core.generated.autoscaler_pb2 import ClusterConfig  # pyright: ignore[reportAttributeAccessIssue] made at import

    config = ClusterConfig()
    group = config.node_group_configs.add()
    group.max_count = 2
    group.resources["GPU"], group.resources["CPU"] = 8, 32
    monkeypatch.setattr(state, "get_cluster_config", lambda: config)
    assert promised_nodes() == [{"GPU": 8, "CPU": 32}] * 2


@pytest.mark.parametrize("damaged", ["available_node_types: 7", "[", "available_node_types: {a: 1}"])
def test_a_file_that_says_nothing_is_no_reason_to_stop(launcher: Path, damaged: str) -> None:
    launcher.write_text(damaged)
    assert promised_nodes() == []


def test_no_room_is_bad_input_on_a_private_ray_and_waited_for_on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(present_nodes()) == 1
    assert worker_resources(2, 0.0, of="trial", wait_minutes=None) == Resources(2, 0.0)
    with pytest.raises(
        UserError, match=r"no room for 1 worker with 3 CPUs: the cluster has 1 node, .*lower cpus_per_trial"
    ):
        worker_resources(3, 0.0, of="trial", wait_minutes=None)
    with pytest.raises(UserError, match=r"no room for 3 workers with 1 CPU each: .* or num_workers"):
        worker_resources(1, 0.0, of="worker", number=3, wait_minutes=None)
    now = [0.0]
    monkeypatch.setattr(nodes.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(nodes.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with pytest.raises(
        RunError,
        match=r"waited 2 minutes for room for 3 workers with 1 CPU each; the cluster has 1 node, 2 CPUs, no GPU:",
    ):
        worker_resources(1, 0.0, of="worker", number=3, wait_minutes=2.0)
