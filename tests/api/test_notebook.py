"""A notebook of fifteen lines: an own network, an own data set over a folder of images, and the ten most memorized."""

import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from bat_dist import load_scores
from bat_dist.data.datasets import load_dataset
from tests.helpers.waiting import PATIENCE

NETWORK_AND_DATA = """\
from pathlib import Path
from PIL import Image
from torch import nn, utils
from bat_dist import memorize
class Net(nn.Sequential):
    def __init__(self, num_classes):
        convolutions = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
        super().__init__(*convolutions, nn.Flatten(), nn.Linear(1024, num_classes))
class Pictures(utils.data.Dataset):
    def __init__(self, folder): self.files = sorted(Path(folder).rglob("*.png"))
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return Image.open(self.files[i]), int(self.files[i].parent.name)
recipe = {"epochs": 15, "batch_size": 16, "lr": 0.05, "crop_padding": 0, "flip": False}
scores = memorize(Net, Pictures("train"), Pictures("test"), num_trials=40, out="scores", **recipe)
scores"""
FIGURE = "scores.plot(10)"
WRONG = 4  # training images in the folder of another class: only who memorizes them says that


def write_images(folder: Path) -> set[str]:
    """Digits 0 to 3, 30 of each to train on; returns the names of the training images in a wrong folder."""
    data = load_dataset("digits", num_classes=4, num_train=120, num_test=40)
    wrong = set()
    for name, split in (("train", data.train), ("test", data.test)):
        for i, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            is_wrong = name == "train" and i < WRONG
            place = folder / name / str((label + 1) % 4 if is_wrong else label) / f"{i:03}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
            wrong |= {place.stem} if is_wrong else set()
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE)
def test_fifteen_lines_show_the_ten_most_memorized_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = write_images(tmp_path)
    assert len(NETWORK_AND_DATA.splitlines()) == 15
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (NETWORK_AND_DATA, FIGURE)]
    NotebookClient(notebook, timeout=PATIENCE, resources={"metadata": {"path": str(tmp_path)}}).execute()
    first, figure = ([output for output in cell.outputs] for cell in notebook.cells)
    shown = next(output.data for output in first if output.output_type == "execute_result")
    assert shown["text/html"].count("<img src='data:image/png;base64,") == 10
    assert any("trials" in str(output) for output in first if output.output_type != "execute_result"), "no progress"
    assert figure[-1].data["image/png"]
    scores = load_scores(tmp_path / "scores")
    files = sorted((tmp_path / "train").rglob("*.png"))
    assert len(scores) == len(files) == 120
    assert np.array_equal(scores.n_in + scores.n_out, np.full(120, 40))
    assert wrong <= {files[i].stem for i in scores.top(10)}
