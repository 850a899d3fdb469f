"""Draw the curves of several training runs beside each other.

python docs/results/draw_curves.py OUT.png RUN_DIR [RUN_DIR ...]
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from bat_dist.figures.curves import training_curves
from bat_dist.figures.style import save
from bat_dist.storage.files import Folder
from bat_dist.training.files import RUN, read_history


def main(out: str, *runs: str) -> None:
    """Write a PNG of 1400 pixels' width."""
    folders = [Folder(run) for run in runs]
    identities = [folder.read_json(RUN)["identity"] for folder in folders]
    histories = {told["method"]: read_history(folder) for told, folder in zip(identities, folders, strict=True)}
    about = identities[0]
    title = f"{about['arch']} on {about['num_train']:,} images, {about['epochs']} epochs"
    fig = training_curves(histories, title=title, num_val=about["num_val"])
    with tempfile.TemporaryDirectory() as scratch:
        png, _ = save(fig, Path(scratch) / "curves")
        picture = Image.open(png).convert("RGB")
        small = picture.resize((1400, round(picture.height * 1400 / picture.width)), Image.Resampling.LANCZOS)
        small.quantize(128, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
