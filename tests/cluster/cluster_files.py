"""The files in cluster/, read by their tests, and what Ray's own code makes of them."""

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import yaml
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


def exported() -> dict[str, str]:
    """What cluster/env.sh puts into every node's environment."""
    found = re.findall(r"^export (\w+)=(\S+)", (CLUSTER / "env.sh").read_text(), flags=re.MULTILINE)
    return dict(found)
