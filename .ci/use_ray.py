"""What an environment with the extra `ray` must be able to do: memorize, and show the scores."""

import tempfile
from pathlib import Path

from bat_dist import memorize

with tempfile.TemporaryDirectory() as folder:
    scores = memorize(
        "tinynet", "digits", out=Path(folder) / "scores", num_trials=4, epochs=1, num_train=100, num_test=40,
        ray_address="local", precision="fp32",
    )  # fmt: skip
    assert (Path(folder) / "scores" / "index.html").stat().st_size > 0
    assert len(scores.to_pandas()) == 100
    print(scores)
