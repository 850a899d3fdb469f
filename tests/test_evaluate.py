"""The evaluation program: flags by image that depend on nothing but the image, resumed, and bad input."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.attacks.pgd import fgsm
from bat_dist.data.datasets import load_dataset
from bat_dist.evaluate import main
from bat_dist.evaluation import blocks
from bat_dist.orchestration.evaluation import blocks_of
from bat_dist.storage.checkpoints import load_model
from bat_dist.train import main as train

DATA = ["--dataset", "digits", "--num_train", "300", "--num_test", "60", "--loader", "memory"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for a few seconds against PGD."""
    out = tmp_path_factory.mktemp("network")
    recipe = ["--recipe", "fast", "--epochs", "12", "--batch_size", "32", "--num_steps", "3", "--precision", "fp32"]
    assert train([*DATA, *recipe, "--method", "pgd_at", "--arch", "tinynet", "--out", str(out)]) == 0
    return out


def run(out: Path, network: Path, *options: str) -> int:
    return main([*DATA, "--checkpoint", str(network), "--out", str(out), *options])


def flags(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "flags.npz", allow_pickle=False) as file:
        return dict(zip(file["attacks"].tolist(), file["flags"], strict=True))


ATTACKS = ["--attacks", "clean", "fgsm", "pgd3", "pgd20", "cw20"]


@pytest.fixture(scope="module")
def evaluated(network: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    assert run(out, network, *ATTACKS, "--block", "13") == 0
    return out


def test_flags_are_those_of_the_network(evaluated: Path, network: Path) -> None:
    """Clean and FGSM have no random start: computed here on the whole test set at once."""
    found, test = flags(evaluated), load_dataset("digits", num_train=300, num_test=60).test
    model = load_model(network)
    x, y = torch.from_numpy(test.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(test.labels)
    np.testing.assert_array_equal(found["clean"], (model(x).argmax(1) == y).numpy())
    attacked = fgsm(model, x, y, epsilon=16 / 255)
    np.testing.assert_array_equal(found["fgsm"], found["clean"] & (model(attacked).argmax(1) == y).numpy())


def test_stronger_attacks_leave_less(evaluated: Path) -> None:
    found = {name: row.mean() for name, row in flags(evaluated).items()}
    assert 1 > found["clean"] > 0.5
    assert found["clean"] > found["pgd3"] >= found["pgd20"]  # steps of 4/255, a ball of 16/255
    assert found["fgsm"] >= found["pgd20"]
    told = {row["attack"]: row for row in json.loads((evaluated / "evaluation.json").read_text())["rows"]}
    assert told["pgd20"]["accuracy"] == found["pgd20"]
    p = found["pgd20"]
    assert told["pgd20"]["standard_error"] == pytest.approx((p * (1 - p) / 60) ** 0.5)


@pytest.mark.parametrize("options", [["--block", "60"], ["--block", "7", "--num_workers", "1"]])
def test_blocks_and_workers_change_nothing(
    options: list[str], evaluated: Path, network: Path, tmp_path: Path, ray_cluster: None
) -> None:
    assert run(tmp_path, network, *ATTACKS, *options) == 0
    np.testing.assert_equal(flags(tmp_path), flags(evaluated))


def test_a_lost_block_is_computed_again(evaluated: Path, network: Path, tmp_path: Path, ray_cluster: None) -> None:
    before = flags(evaluated)
    chunk = next(path for path in (evaluated / "blocks" / "robust").rglob("c*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    (evaluated / "flags.npz").unlink()
    assert run(evaluated, network, *ATTACKS, "--block", "13") == 0
    np.testing.assert_equal(flags(evaluated), before)


def test_out_of_memory_halves_the_block(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = load_dataset("digits", num_train=300, num_test=60).test
    ids = np.arange(60)
    settings = {"attacks": ("clean", "pgd3"), "epsilon": 0.06, "step_size": 0.02, "restarts": 2, "seed": 0}
    arguments = (load_model(network), test.images, test.labels, ids)
    whole = blocks.robust_flags(*arguments, **settings, device=torch.device("cpu"))
    real, sizes = blocks._flags, []

    def small_memory(model: torch.nn.Module, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, x, *args, **kwargs)

    monkeypatch.setattr(blocks, "_flags", small_memory)
    np.testing.assert_array_equal(blocks.robust_flags(*arguments, **settings, device=torch.device("cpu")), whole)
    assert sizes == [60, 30, 15, 15, 30, 15, 15]


def test_subsets_have_rows_of_their_own(network: Path, tmp_path: Path, ray_cluster: None) -> None:
    dataset = load_dataset("digits", num_train=300, num_test=60)
    typical = np.arange(60) < 40
    names = {"test_typical": typical, "test_atypical": ~typical, "fingerprint": np.array(dataset.fingerprint)}
    np.savez(tmp_path / "typicality.npz", **names)
    scores = ["--scores", str(tmp_path / "typicality.npz")]
    assert run(tmp_path / "out", network, "--attacks", "clean", *scores) == 0
    (row,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"]
    clean = flags(tmp_path / "out")["clean"]
    assert row["typical"]["accuracy"] == clean[:40].mean()
    assert row["atypical"] == {
        "accuracy": clean[40:].mean(),
        "standard_error": pytest.approx((clean[40:].mean() * (1 - clean[40:].mean()) / 20) ** 0.5),
        "n": 20,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attacks", "pdg20"], "did you mean pgd20?"),
        (["--epsilon", "0"], "epsilon must be a number in (0, 1)"),
        (["--checkpoint", "nowhere"], "nowhere/best.safetensors does not exist"),
        (["--scores", "nowhere.npz"], "nowhere.npz does not exist"),
        (["--num_classes", "5"], "knows 10 classes, 0, 1, 2, ..., the data has 5"),
    ],
)
def test_bad_input_is_one_message(
    options: list[str], message: str, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", network, *options) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_another_evaluation_in_the_same_folder_is_refused(
    evaluated: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(evaluated, network, *ATTACKS, "--block", "13", "--epsilon", "0.1") == 2
    assert "epsilon: 0.06" in capsys.readouterr().err


@pytest.mark.parametrize(("images", "size"), [(10, 3), (10, 10), (10, 99), (1, 1), (100, 50)])
def test_blocks_hold_every_image_once(images: int, size: int) -> None:
    found = blocks_of(images, size)
    assert sorted(np.concatenate(found).tolist()) == list(range(images))
    lengths = [len(block) for block in found]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert lengths[0] == max(lengths)
