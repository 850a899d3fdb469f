"""Result folders with flags that a test has made up, as the programs write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FINGERPRINT = "f" * 64


def facts_of(method: str = "pgd_at", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """As a checkpoint has them."""
    settings = {"alpha": 1.0, "beta": 0.2, "sigma": 0.15} if method == "bat" else {}
    known = {
        "method": method,
        "method_settings": settings,
        "dataset": "digits",
        "fingerprint": FINGERPRINT,
        "num_train": 900,
        "num_val": 100,
        "val_seed": 0,
        "arch": "tinynet",
        "recipe": {"epochs": 3, "lr": 0.1},
        "epochs": 3,
        "epsilon": 16 / 255,
        "num_steps": 5,
        "seed": seed,
        "epoch": 3,
        "val_pgd": 0.5,
    }
    return known | changes


def write_evaluation(
    place: Path,
    flags: Mapping[str, np.ndarray],
    *,
    method: str = "pgd_at",
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    subsets: Mapping[str, np.ndarray] | None = None,
    **changes: Any,
) -> Path:
    """evaluation.json and flags.npz.  changes: of the document; None leaves a key out."""
    place.mkdir(parents=True, exist_ok=True)
    own = facts_of(method, seed) | dict(facts or {})
    rows = [
        {"attack": name, "accuracy": float(right.mean()), "n": len(right), "seconds": 1.0, "warnings": []}
        for name, right in flags.items()
    ]
    asked = {"dataset": "digits", "which": "best", "checkpoint": f"runs/{method}", "data_dir": None, "restarts": 1}
    document = {
        "format": 1,
        "rows": rows,
        "facts": own,
        "network": f"{method}-{json.dumps(own, sort_keys=True)}"[-40:],
        "fingerprint": own["fingerprint"],
        "checks": [],
        "settings": asked | dict(settings or {}),
        "command": f"bat-dist evaluate --checkpoint runs/{method}",
        "bat_dist": "0.1.0",
        "cpu": "a processor",
    } | changes
    document = {key: value for key, value in document.items() if value is not None}
    (place / "evaluation.json").write_text(json.dumps(document))
    arrays: dict[str, Any] = {f"subset_{name}": members for name, members in (subsets or {}).items()}
    arrays |= {"flags": np.array(list(flags.values())), "attacks": np.array(list(flags))}
    np.savez(place / "flags.npz", fingerprint=np.array(own["fingerprint"]), **arrays)
    return place


def write_training(
    place: Path, *, method: str = "pgd_at", seed: int = 0, epochs: int = 3, finished: bool = True
) -> Path:
    """run.json and history.csv, to epoch `epochs` of 3."""
    place.mkdir(parents=True, exist_ok=True)
    facts = facts_of(method, seed)
    identity = {
        key: value for key, value in facts.items() if key not in ("method_settings", "recipe", "epoch", "val_pgd")
    }
    identity |= {f"method_settings.{key}": value for key, value in facts["method_settings"].items()}
    identity |= {f"recipe.{key}": value for key, value in facts["recipe"].items()}
    document = {"finished": finished, "identity": identity, "command": f"bat-dist train --method {method}"}
    if finished:
        last = {"epoch": epochs, "val_clean": 0.5 + epochs / 100, "val_pgd": 0.3 + epochs / 100}
        document |= {"best_by": "val_pgd", "best": last, "last": last}
    (place / "run.json").write_text(json.dumps(document | {"seconds": 1.5, "git_revision": "abcdef123456"}))
    lines = [f"{epoch},0.1,1.0,{0.5 + epoch / 100},{0.3 + epoch / 100}" for epoch in range(1, epochs + 1)]
    (place / "history.csv").write_text("\n".join(["epoch,lr,train_loss,val_clean,val_pgd", *lines]) + "\n")
    return place


def random_flags(rng: np.random.Generator, accuracy: float, images: int = 200) -> np.ndarray:
    """So many images right, at random places."""
    flags = np.zeros(images, bool)
    flags[rng.permutation(images)[: round(accuracy * images)]] = True
    return flags


def study(place: Path, *, seeds: int = 3, images: int = 200) -> Path:
    """Three methods with clean and PGD flags, trainings beside them; bat gets 40 images more right than pgd_at."""
    rng = np.random.default_rng(0)
    half = np.arange(images) < images // 2
    for seed in range(seeds):
        base = random_flags(rng, 0.5, images)
        better = base.copy()
        better[np.flatnonzero(~base)[:40]] = True
        for method, flags in {"pgd_at": base, "bat": better, "trades": random_flags(rng, 0.5, images)}.items():
            found = {"clean": flags | random_flags(rng, 0.1, images), "pgd20": flags}
            subsets = {"typical": half, "atypical": ~half}
            write_evaluation(place / f"eval-{method}-{seed}", found, method=method, seed=seed, subsets=subsets)
            write_training(place / f"run-{method}-{seed}", method=method, seed=seed)
    return place
