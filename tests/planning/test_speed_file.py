"""A speed that one machine has measured and another plans with.  No GPU is needed: the file is pretended."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bat_dist.errors import UserError
from bat_dist.plan import main
from bat_dist.planning import plan as planning
from bat_dist.planning.plan import plan
from bat_dist.planning.speed_file import read_speed
from bat_dist.planning.timed_operations import Piece
from bat_dist.settings.plan import PlanSettings

ASKED: dict[str, Any] = {"dataset": "digits", "arch": "tinynet", "num_trials": 100, "num_seeds": 0, "precision": "fp32"}
TRIAL, FORWARD = 0.00002, 0.000005


def a_rate(seconds: float, batch_size: int, full_batch: int | None = None) -> Mapping[str, float]:
    numbers = {"seconds": seconds, "standard_error": seconds / 100, "num_batches": 90, "batch_size": batch_size}
    return {**numbers, "full_batch": full_batch or batch_size}


OF_A_CARD: dict[str, Any] = {
    "format": "bat_dist speed 1",
    "device": "NVIDIA H100 80GB HBM3",
    "num_steps": 10,
    "rates": {"TRIAL_STEP": a_rate(TRIAL, 64), "FORWARD": a_rate(FORWARD, 500)},
    **{"gpus": 4, "cpus": 64, "threads": 1, "arch": "tinynet", "image_size": 8, "num_classes": 10, "precision": "bf16"},
}


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a machine with four GPUs; nothing can be measured here."""
    monkeypatch.setattr(planning, "measure", lambda *_, **__: pytest.fail("measured here"))
    path = tmp_path / "h100.json"
    path.write_text(json.dumps(OF_A_CARD))
    return path


def test_the_laptop_plans_for_the_card(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 20 epochs of 70% of 1,297 images, then a look at all 1,797."""
    assert main(["--dataset=digits", "--arch=tinynet", "--num_trials=1000", "--num_seeds=0", f"--speed={card}"]) == 0
    text = capsys.readouterr().out
    assert f"measured on NVIDIA H100 80GB HBM3 ({card}), a worker being a GPU:" in text
    assert f"bf16 (as {card} has it)" in text
    seconds = 1000 * (20 * 908 * TRIAL + 1797 * FORWARD)
    found = re.search(r"^([\d.]+) GPU-hours ± \d+%, .* with 4 at a time$", text, flags=re.MULTILINE)
    assert found
    assert float(found[1]) == pytest.approx(seconds / 3600, rel=0.01)
    assert "says nothing about another" not in text
    assert "measured on another machine" in text


def test_what_is_kept_is_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "new" / "speed.json"
    asked = {**ASKED, "crop_scale": 0.3, "crop_size": 6}
    first = plan(PlanSettings(**asked, seconds=0.2, save_speed=str(path)))
    again = plan(PlanSettings(**asked, speed=str(path)))
    assert (again.speed, again.costs, again.total, again.workers, again.worker) == (
        *(first.speed, first.costs, first.total, first.workers, first.worker),
    )
    document = json.loads(path.read_text())
    assert document["origin"]["versions"]["torch"]
    assert {*document["rates"]} == {"TRIAL_STEP", "FORWARD"}
    assert read_speed(str(path)).speed.rates[Piece.FORWARD].full_batch == 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "resnet9"}, "arch tinynet, and resnet9 is planned"),
        ({"precision": "fp32"}, "precision bf16, and fp32 is planned"),
        ({"num_classes": 5}, "num_classes 10, and 5 is planned"),
        ({"crop_scale": 0.1, "crop_size": 6}, "crop_scale None, and 0.1 is planned; crop_size None, and 6 is planned"),
        ({"trial_batch_size": 512}, "plain training step of trials for batches of 64, and 512 is planned"),
        ({"num_seeds": 1}, "no PGD training step; "),
    ],
)
def test_a_speed_of_something_else_is_refused(changes: dict[str, Any], message: str, card: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        plan(PlanSettings(**{**ASKED, "precision": "auto", **changes, "speed": str(card)}))
    assert str(refused.value).startswith(f"speed {card} is of something else: ")


def test_threads_count_on_a_cpu(card: Path) -> None:
    settings = PlanSettings(**{**ASKED, "precision": "auto", "cpus_per_worker": 2, "speed": str(card)})
    assert plan(settings).workers == 4
    card.write_text(json.dumps({**OF_A_CARD, "gpus": 0}))
    with pytest.raises(UserError, match="threads 1, and 2 is planned"):
        plan(settings)


def test_batches_of_an_evaluation_may_have_been_halved(card: Path) -> None:
    """A card whose memory holds 128 of the 512 images of a batch."""
    steps = {"PLAIN_STEP": a_rate(1e-5, 128), "PGD_STEP": a_rate(1e-4, 128), "EXACT_FORWARD": a_rate(1e-6, 128)}
    steps["EXACT_STEP"] = a_rate(1e-5, 32, 128)
    card.write_text(json.dumps({**OF_A_CARD, "rates": {**OF_A_CARD["rates"], **steps}}))
    asked = {**ASKED, "precision": "auto", "num_seeds": 1, "speed": str(card)}
    assert plan(PlanSettings(**asked)).small_batches
    with pytest.raises(UserError, match="forward pass of evaluation for batches of 128, and 32 is planned"):
        plan(PlanSettings(**asked, attack_batch_size=64))  # AutoAttack's units have 32 images then


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not there: bat-dist plan ... --save_speed FILE writes one"),
        ("{}", "is no measured speed"),
        ("[]", "is no measured speed"),
        ("{", "is not valid JSON"),
        (json.dumps({**OF_A_CARD, "gpus": "four"}), "is damaged: measure again"),
        (json.dumps({**OF_A_CARD, "rates": {"LEAP": a_rate(1.0, 2)}}), "is damaged: measure again"),
        (json.dumps({**OF_A_CARD, "rates": {"FORWARD": a_rate(-1.0, 2)}}), "is damaged: measure again"),
        (json.dumps({**OF_A_CARD, "rates": {"FORWARD": {"seconds": 1.0}}}), "is damaged: measure again"),
        (json.dumps({**OF_A_CARD, "rates": []}), "is damaged: measure again"),
        (json.dumps({**OF_A_CARD, "precision": "fp8"}), "is damaged: measure again"),
    ],
)
def test_a_bad_file_is_one_clear_message(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        read_speed(str(path))
