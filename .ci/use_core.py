"""What an environment without extras must be able to do: load an exported network, attack, train and evaluate.

    python use_core.py

Ends with an error if a package of an extra is loaded on the way, and says what a call that needs one says.
"""

import sys
import tempfile
from pathlib import Path

import torch

from bat_dist import autoattack, evaluate, load_model, memorize, pgd, train
from bat_dist.cli import main
from bat_dist.data.datasets import load_dataset
from bat_dist.errors import EXTRAS, UserError

SMALL = {"num_train": 200, "num_test": 60}
EPSILON = 16 / 255

with tempfile.TemporaryDirectory() as folder:
    place = Path(folder)
    words = "--method erm --dataset digits --arch tinynet --recipe fast --epochs 2 --precision fp32 --out"
    assert main(["train", *words.split(), str(place / "run"), "--num_train", "200", "--num_test", "60"]) == 0
    assert main(["export", "--checkpoint", str(place / "run"), "--out", str(place / "exported")]) == 0
    network = load_model(str(place / "exported"))
    data = load_dataset("digits", **SMALL)
    x, y = torch.from_numpy(data.test.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(data.test.labels)
    assert (pgd(network, x, y, epsilon=EPSILON, num_steps=3) - x).abs().max() <= EPSILON + 1e-6
    assert autoattack(network, x[:8], y[:8], epsilon=EPSILON).robust.shape == (5, 8)
    trained = train(
        "tinynet", "digits", method="pgd_at", out=place / "robust", recipe="fast", epochs=1, num_steps=2,
        loader="memory", precision="fp32", **SMALL,
    )  # fmt: skip
    print(evaluate(trained, x, y, attacks=("clean", "pgd5"), epsilon=EPSILON, check_images=8))
    if loaded := sorted(name for name in EXTRAS if sys.modules.get(name)):
        sys.exit(f"loaded, and not of the core: {', '.join(loaded)}")
    if sys.argv[1:] == ["--lacks-ray"]:
        told = ""
        try:
            memorize("tinynet", "digits", out=place / "scores", num_trials=2)
        except UserError as error:
            told = str(error)
        if "'.[ray]'" not in told:
            sys.exit(f"nothing said that the extra ray is missing: {told!r}")
print(f"the core works with Python {sys.version.split()[0]}")
