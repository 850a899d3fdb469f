import subprocess
import sys

import pytest

from bat_dist.models.names import ARCHITECTURES, Arch, check_arch, parse_arch


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("resnet18", Arch("resnet", 18)),
        ("resnet34", Arch("resnet", 34)),
        ("resnet20", Arch("cifar_resnet", 20)),
        ("resnet110", Arch("cifar_resnet", 110)),
        ("preactresnet18", Arch("preact_resnet", 18)),
        ("wrn10-1", Arch("wide_resnet", 10, 1)),
        ("wrn28-10", Arch("wide_resnet", 28, 10)),
        ("wrn34-20", Arch("wide_resnet", 34, 20)),
        ("resnet9", Arch("resnet9", width=64)),
        ("resnet9-w32", Arch("resnet9", width=32)),
        ("tinynet", Arch("tinynet")),
    ],
)
def test_valid_names_are_kept_and_parsed(name, arch):
    assert check_arch(name) == name
    assert parse_arch(name) == arch


def test_one_network_has_one_name():
    assert check_arch("resnet9-w64") == "resnet9"
    assert parse_arch("resnet9-w64") == parse_arch("resnet9")


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("ResNet18", "resnet18"),
        ("resnet-18", "resnet18"),
        ("resnet19", "resnet18"),
        ("resnet26", "resnet20"),
        ("resnet50", "resnet44"),
        ("resnet111-", "resnet110"),
        ("resnet111", "resnet110"),
        ("preact_resnet18", "preactresnet18"),
        ("preactresnet34", "preactresnet18"),
        ("wrn-28-10", "wrn28-10"),
        ("WRN28x10", "wrn28-10"),
        ("WideResNet-28-10", "wrn28-10"),
        ("wrn28", "wrn28-10"),
        ("wrn27-10", "wrn28-10"),
        ("wrn32-10", "wrn34-10"),
        ("wrn31-4", "wrn28-4"),
        ("wrn4-2", "wrn10-2"),
        ("wrn28-0", "wrn28-10"),
        ("resnet9-w0", "resnet9"),
        ("resnet9-64", "resnet9-w64"),
        ("tiny", "tinynet"),
        ("resnet18\n", "resnet18"),
    ],
)
def test_the_error_names_the_nearest_valid_name(wrong, nearest):
    with pytest.raises(ValueError, match="there is no architecture") as caught:
        check_arch(wrong)
    assert repr(wrong) in str(caught.value)
    assert f"did you mean '{nearest}" in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "vgg16", "wrnD-K", "resnet9-wW", "resnet", "wrn028-10", "resnet１８"])
def test_every_error_lists_what_is_valid(wrong):
    with pytest.raises(ValueError, match="valid: resnet18, ") as caught:
        check_arch(wrong)
    assert all(name in str(caught.value) for name in ARCHITECTURES)


def test_the_rule_for_wide_depths_is_told():
    with pytest.raises(ValueError, match="must be 6n \\+ 4"):
        check_arch("wrn30-10")


def test_every_suggestion_is_valid():
    for depth in range(1, 120):
        try:
            check_arch(f"wrn{depth}-2")
        except ValueError as error:
            check_arch(str(error).split("did you mean '")[1].split("'")[0])


def test_names_are_checked_without_torch():
    code = "import sys; import bat_dist.models.names; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
