"""The model card of an exported network: Markdown with YAML in front, as the Hugging Face Hub reads it."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from bat_dist.artifacts.export import Trained, architecture, pixels
from bat_dist.artifacts.onnx_file import OnnxFile
from bat_dist.evaluation.statistics import bounds_of_share
from bat_dist.methods.table import METHODS
from bat_dist.models.cost import count_parameters
from bat_dist.reporting.jinja import templates
from bat_dist.settings.export import one_line

FURTHER = (
    *(
        "crop_padding",
        "flip",
        "crop_scale",
        "crop_size",
        "attack_mode",
        "fold_batch_norm",
        "random_start",
        "ema",
        "awp",
        "clip_norm",
        "sync_bn",
        "scores",
    ),
    *("val_seed", "best_by"),
)
HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
MAX_CLASSES_SHOWN = 100


class Raw(str):
    """Text that the card holds as it is; all other values are escaped."""


def model_card(
    trained: Trained,
    *,
    name: str,
    authors: str | None = None,
    link: str | None = None,
    license: str | None = None,
    onnx: OnnxFile | None = None,
) -> str:
    """The text of README.md.  All texts are plain, may come from strangers, and are escaped here."""
    environment = templates(finalize=escaped, keep_trailing_newline=True)
    spec, facts = trained.spec, trained.facts
    num_more = len(spec.class_names) - MAX_CLASSES_SHOWN
    more = f" and {num_more} more (config.json)" if num_more > 0 else ""
    return environment.get_template("model_card.md.j2").render(
        front_matter=Raw(_front_matter(trained, name, license)),
        name=name,
        authors=authors,
        link=link and Raw(f"<{link}>"),
        spec=spec,
        facts=facts,
        architecture=architecture(spec.arch),
        num_parameters=count_parameters(trained.model),
        classes=", ".join(spec.class_names[:MAX_CLASSES_SHOWN]) + more,
        method=METHODS[method].about if (method := facts.get("method")) in METHODS else method,
        attacks=_attacks(facts),
        epsilon=None if facts.get("epsilon") is None else pixels(facts["epsilon"]),
        rows=(*trained.evaluated, *trained.validated),
        has_autoattack=any(row.attack == "autoattack" for row in trained.evaluated),
        validated=trained.validated,
        is_best=trained.is_best,
        settings={
            "hyper-parameters": facts.get("method_settings"),
            "recipe": facts.get("recipe"),
            "further settings": {key: facts.get(key) for key in FURTHER},
        },
        as_text=as_text,
        interval=lambda row: "{:.2%} to {:.2%}".format(*bounds_of_share(row.accuracy, row.n)),
        origin=trained.origin,
        command=Raw(one_line(str(trained.origin.get("command", "")))),
        onnx=onnx,
    )


def _front_matter(trained: Trained, name: str, license: str | None) -> str:
    dataset = str(trained.facts.get("dataset") or "unknown")
    hub_name = HUB_DATASETS.get(dataset)
    results = [
        {
            "task": {"type": "image-classification", "name": "Image Classification"},
            "dataset": {"type": hub_name or one_line(dataset), "name": one_line(dataset), "split": row.split},
            "metrics": [
                {
                    "type": "accuracy",
                    "value": round(100 * row.accuracy, 2),
                    "name": f"{one_line(row.attack)} accuracy, {row.split} split (%)",
                }
            ],
        }
        for row in (*trained.evaluated, *trained.validated)
    ]
    tags = ["image-classification", "adversarial-robustness", "pytorch", "bat_dist"]
    about = {
        "license": license,
        "library_name": "bat_dist",
        "pipeline_tag": "image-classification",
        "tags": tags + [one_line(str(tag)) for tag in (trained.facts.get("method"), trained.spec.arch) if tag],
        "datasets": [hub_name] if hub_name else None,
        "metrics": ["accuracy"],
        "model-index": [{"name": one_line(name), "results": results}] if results else None,
    }
    return yaml.safe_dump({k: v for k, v in about.items() if v is not None}, sort_keys=False, width=10**6)


def _attacks(facts: Mapping[str, Any]) -> dict[str, str]:
    """The attacks in training and in validation: `PGD, l_inf, epsilon 8/255, 10 steps of 2/255`."""
    taken = {"training": facts.get("num_steps"), "validation": facts.get("val_steps", facts.get("num_steps"))}
    if facts.get("method") == "erm":
        taken["training"] = None
    if facts.get("epsilon") is None or facts.get("step_size") is None:
        return {}
    epsilon, size = pixels(facts["epsilon"]), pixels(facts["step_size"])
    return {
        when: f"PGD, l_inf, epsilon {epsilon}, {steps} steps of {size}" if steps else "none"
        for when, steps in taken.items()
    }


def as_text(value: Any) -> str:
    """A value, with all that is in it, on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {as_text(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(item, Mapping) for item in value) else ", ").join(map(as_text, value))
    return str(value)


def escaped(value: Any) -> str:
    """A value as Markdown that shows it: no markup, no HTML, no end of a table's cell."""
    if isinstance(value, Raw):
        return value
    text = one_line(str(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
