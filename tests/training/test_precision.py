"""Which hardware has bf16 and TF32, what auto makes of it, and who is told that it is emulated or not there."""

import logging
import socket

import pytest
import torch

from bat_dist.errors import UserError
from bat_dist.jobs.auto import decide_precision
from bat_dist.training import precision
from bat_dist.training.precision import Hardware, choose_precision, this_hardware
from bat_dist.training.recipe import Precision, PrecisionOrAuto

HERE = socket.gethostname()
NEW, OLD = Hardware("a", "CPU", has_bf16=True), Hardware("b", "CPU", has_bf16=False)
GPU, TURING = Hardware("c", "NVIDIA A100", True, has_tf32=True), Hardware("d", "Tesla T4", has_bf16=False)


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A CPU of this machine's kind, with AVX-512 and its bf16 instructions; limits are to be set by the test."""
    found: dict[str, object] = {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_cpu_with_the_instructions_has_bf16(x86: dict[str, object]) -> None:
    assert this_hardware() == Hardware(HERE, "CPU", has_bf16=True)


def test_avx512_without_the_instructions_has_none(x86: dict[str, object]) -> None:
    x86["avx512_bf16"] = False
    assert not this_hardware().has_bf16


def test_amx_and_arm_have_instructions_of_their_own(x86: dict[str, object]) -> None:
    x86.update(avx512_bf16=False, amx_bf16=True)
    assert this_hardware().has_bf16
    x86.clear()
    x86.update(architecture="aarch64", bf16=True)
    assert this_hardware().has_bf16
    x86.update(bf16=False)
    assert not this_hardware().has_bf16


@pytest.mark.parametrize(
    ("isa", "has"),
    [
        ("AVX2", False),
        ("avx512_core_vnni", False),
        ("AVX512_CORE_BF16", True),
        ("AVX512_CORE_AMX", True),
        ("ALL", True),
    ],
)
def test_what_onednn_may_not_use_is_not_there(
    x86: dict[str, object], isa: str, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert this_hardware().has_bf16 == has


def test_what_pytorch_may_not_use_is_not_there(x86: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.backends.cpu, "get_cpu_capability", lambda: "AVX2"
    )  # as ATEN_CPU_CAPABILITY=avx2 makes it
    assert not this_hardware().has_bf16


@pytest.mark.parametrize(("name", "capability", "has"), [("Tesla T4", (7, 5), False), ("NVIDIA A100", (8, 0), True)])
def test_a_gpu_that_emulates_it_has_none(
    name: str, capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although PyTorch says of both that it supports bf16."""
    monkeypatch.setattr(precision, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    assert this_hardware() == Hardware(HERE, name, has_bf16=has, has_tf32=has)


@pytest.mark.parametrize(
    ("asked", "workers", "chosen", "why", "warned"),
    [
        ("auto", [NEW, NEW], "bf16", "every worker has bf16 instructions", False),
        ("auto", [NEW, OLD], "fp32", "the CPU of b has no bf16 instructions", False),
        ("auto", [Hardware(HERE, "CPU", has_bf16=False)], "fp32", "this CPU has no bf16 instructions", False),
        ("auto", [Hardware(HERE, "CPU", has_bf16=True)], "bf16", "this CPU has bf16 instructions", False),
        ("auto", [], "fp32", "no worker has said whether it has bf16 instructions", False),
        ("bf16", [NEW, OLD], "bf16", "as asked for", True),
        ("bf16", [NEW, NEW], "bf16", "as asked for", False),
        ("fp32", [OLD], "fp32", "as asked for", False),
        ("tf32", [GPU, GPU], "tf32", "as asked for", False),
        ("tf32", [], "tf32", "as asked for", False),
    ],
)
def test_bf16_where_all_workers_have_it(asked, workers, chosen, why, warned, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_precision(asked, workers) == (chosen, why)
    assert ("the CPU of b has no bf16 instructions; --precision fp32" in caplog.text) == warned


@pytest.mark.parametrize(("without", "words"), [(TURING, "the Tesla T4 of d"), (NEW, "the CPU of a")])
def test_tf32_that_a_worker_has_not_is_refused(without: Hardware, words: str) -> None:
    """It would be recorded as what it is not, and rows of one store would differ in it."""
    with pytest.raises(UserError, match=f"precision tf32: {words} has no TF32.*take precision fp32"):
        choose_precision("tf32", [GPU, without])


def test_auto_takes_tf32_for_nobody() -> None:
    assert [choose_precision("auto", [GPU])[0], choose_precision("auto", [GPU, TURING])[0]] == ["bf16", "fp32"]


@pytest.mark.parametrize(("asked", "of_attack"), [("tf32", None), ("fp32", "tf32"), ("bf16", "tf32"), ("auto", "tf32")])
def test_workers_are_asked_for_the_tf32_of_attacks_too(asked: PrecisionOrAuto, of_attack: Precision | None) -> None:
    with pytest.raises(UserError, match="has no TF32"):
        decide_precision(asked, lambda: [NEW], of_attack=of_attack)
    decide_precision(asked, lambda: [GPU], of_attack=of_attack)


def test_nobody_is_asked_for_fp32() -> None:
    assert decide_precision("fp32", lambda: pytest.fail("asked"), of_attack="bf16") == ("fp32", {})
