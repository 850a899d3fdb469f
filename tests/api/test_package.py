"""The names of the API: what they are in every order of imports, and that asking for the package costs nothing."""

import inspect
import pickle
import subprocess
import sys

import pytest
from ray.cloudpickle.cloudpickle import dumps

import bat_dist
from tests.helpers.waiting import PATIENCE

VERBS = ("memorize", "train", "evaluate", "study")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "order",
    [
        "import bat_dist.{verb}; from bat_dist import {verb}",
        "from bat_dist import {verb}; import bat_dist.{verb}",
        "from bat_dist.{verb} import main; from bat_dist import {verb}",
        "import importlib; importlib.import_module('bat_dist.{verb}'); from bat_dist import {verb}",
        "from bat_dist.cli import main\ntry: main(['{verb}', '--help'])\nfinally: from bat_dist import {verb}",
        "import bat_dist.{verb} as {verb}",
        "import bat_dist; import bat_dist.{verb}; {verb} = bat_dist.{verb}",
        "from bat_dist import *",
    ],
)
def test_a_name_of_the_api_is_the_function_whatever_was_imported_before(order: str) -> None:
    """One process for the four: each order for each verb, after the modules of the others are there."""
    lines = ["import inspect, sys, bat_dist"]
    for verb in VERBS:
        lines += [order.format(verb=verb), f"assert inspect.isfunction({verb}), {verb}"]
        lines += [f"assert inspect.isfunction(bat_dist.{verb}), bat_dist.{verb}"]
        lines += [f"assert {verb} is bat_dist.{verb}"]
        lines += [f"from bat_dist.{verb} import main as command; assert inspect.isfunction(command)"]
        lines += [f"assert inspect.ismodule(sys.modules['bat_dist.{verb}'])"]
    run("\n".join(lines))


def test_every_name_can_be_had_and_is_documented() -> None:
    for name in bat_dist.__all__:
        found = getattr(bat_dist, name)
        assert found is getattr(bat_dist, name)
        assert inspect.getdoc(found)
        assert name in dir(bat_dist)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'memorise'"):
        bat_dist.memorise  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    assert not hasattr(bat_dist, "__path_of_nothing__")


def test_other_submodules_are_attributes_as_always() -> None:
    assert run("import bat_dist.errors; print(bat_dist.errors.__name__)") == "bat_dist.errors\n"


def test_a_function_that_refers_to_the_package_travels() -> None:
    """As one of a notebook, which is pickled with its globals."""
    function = lambda: bat_dist.__version__  # noqa: E731
    assert pickle.loads(dumps(bat_dist)) is bat_dist
    assert pickle.loads(dumps(function))() == bat_dist.__version__


def test_importing_the_package_loads_few_modules() -> None:
    """Time depends on the machine; modules do not."""
    code = "import sys; before = set(sys.modules); import bat_dist; print(len(set(sys.modules) - before))"
    assert int(run(code)) <= 40, "the standard library's `typing` and `importlib`, and what these load"
    heavy = (
        "import sys; from bat_dist import {}; print(sum(m.partition('.')[0] in ('torch', 'ray') for m in sys.modules))"
    )
    for name in (*VERBS, "Scores", "load_scores", "Method"):
        assert int(run(heavy.format(name))) == 0, name
