"""The house stands as docs/architecture.md draws it: imports go downward, libraries stay in their rooms."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bat_dist.verbs import FILES

PACKAGE = Path(__file__).parents[1] / "bat_dist"

LAYERS = [
    {"errors", "wording"},
    {"parts"},
    {"config", "program", "verbs"},
    {"attacks", "models", "memorization"},
    {"methods", "data", "storage"},
    {"artifacts"},
    {"training", "evaluation"},
    {"sweep"},
    {"settings"},
    {"results"},
    {"planning", "figures", "studies"},
    {"workers", "reporting"},
    {"jobs"},
    {"api"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
GROUND = {"errors", "wording", "config", "program", "parts", "verbs"}  # files, and config, a folder
ROOMS = LEVEL.keys() - GROUND
HOUSE = (
    "bat_dist"  # bat_dist/__init__.py: the version, open to all, and the names of the API, which it imports when asked
)
ONLY_IN = {
    "ray": {"workers", "jobs"},
    "ffcv": {"data"},
    "matplotlib": {"figures", "reporting"},
    "plotly": {"reporting"},
    "optuna": {"sweep"},
    "jinja2": {"reporting"},
    "tensorboard": {"training"},
    "mlflow": {"training"},
    "wandb": {"training"},
}
BARRED = {
    HOUSE: {"torch", "torchvision", "numpy", "zarr"},
    "memorization": {"torch", "torchvision"},
    "settings": {"torch", "torchvision"},
    "config": {"torch", "torchvision", "numpy", "zarr"},
    "cli": {"torch", "torchvision", "numpy", "zarr"},
}
EXCEPTED = {("memorization/bit_products.py", "torch")}  # for a large product, which earns the start of torch


# --- the checker


def violations(package: Path) -> list[str]:
    """`models/resnet.py:3 imports training` for each import that the plan forbids."""
    return sorted(
        f"{file.relative_to(package).as_posix()}:{line} imports {what}"
        for file in package.rglob("*.py")
        for line, module in imports(file, package)
        for what in forbidden(room_of(file, package), module, package)
        if (file.relative_to(package).as_posix(), what) not in EXCEPTED
    )


def forbidden(room: str, module: str, package: Path) -> Iterator[str]:
    """What is wrong with importing a module in a room: the room or the library that it may not have."""
    top, *deeper = module.split(".")
    if top != HOUSE:
        if room not in ONLY_IN.get(top, {room}) or top in BARRED.get(room, ()):
            yield top
        return
    target = deeper[0] if deeper and exists(package, deeper[0]) else HOUSE
    if target not in (room, HOUSE) and not may_import(room, target):
        yield target


def may_import(room: str, target: str) -> bool:
    if room == "__main__":
        return target == "cli"
    if room == HOUSE:
        return target == "api"  # for type checkers alone: see below what is loaded
    if room == "cli":
        return target in GROUND  # it calls run files by name
    return LEVEL.get(target, len(LAYERS)) < LEVEL.get(room, len(LAYERS))


def exists(package: Path, name: str) -> bool:
    """Is it a room or a file?  Else it is a name in bat_dist/__init__.py."""
    return (package / name).is_dir() or (package / f"{name}.py").is_file()


def room_of(file: Path, package: Path) -> str:
    """The folder; a file of the ground floor (errors, config, cli, each run file, ...) is a room of its own."""
    first = file.relative_to(package).with_suffix("").parts[0]
    return HOUSE if first == "__init__" else first


def run_files(package: Path) -> list[str]:
    return sorted({file.stem for file in package.glob("*.py")} - {"__init__", "__main__", "cli"} - GROUND)


def imports(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a file: inside functions, under TYPE_CHECKING and by name too."""
    here = [HOUSE, *file.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names if base == [HOUSE] else [None]:
                yield node.lineno, ".".join([*base, alias.name] if alias else base)
        elif isinstance(node, ast.Call) and name_of(node.func) in ("import_module", "__import__"):
            for first in node.args[:1]:
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield node.lineno, first.value


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def strangers(package: Path) -> list[str]:
    """Folders of code that the plan does not know."""
    return sorted({p.name for p in package.iterdir() if p.is_dir() and any(p.rglob("*.py"))} - LEVEL.keys())


# --- 1: the house


def test_imports_go_downward_and_libraries_stay_in_their_rooms():
    assert violations(PACKAGE) == []


def test_every_room_has_a_layer():
    assert strangers(PACKAGE) == []


# --- 2: the checker sees what it is there for


@pytest.fixture
def house(tmp_path):
    """A clean house with a file in every room, each importing all that it may."""
    sources = {"__init__.py": "__version__ = '0'\n"} | {f"{name}.py": "import bat_dist\n" for name in GROUND}
    sources["cli.py"] = "from importlib import import_module\n\nfrom bat_dist import __version__, config, errors\n"
    for room in ROOMS:
        below = [other for other in LEVEL if LEVEL[other] < LEVEL[room]]
        sources[f"{room}/__init__.py"] = ""
        sources[f"{room}/a.py"] = "".join(f"import bat_dist.{other}\n" for other in below)
        sources[f"{room}/b.py"] = f"from bat_dist.{room}.a import x\nfrom . import a\nfrom .a import x\n"
    sources["memorize.py"] = "".join(f"from bat_dist import {room}\n" for room in LEVEL)
    sources["memorize.py"] += "from bat_dist.memorize import main\n"
    sources["train.py"] = "def main():\n    from bat_dist.jobs import a\n"
    for library, homes in ONLY_IN.items():
        for room in homes:
            sources[f"{room}/{library}_user.py"] = f"import {library}\n"
    for file, source in sources.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(source)
    return tmp_path


def test_a_clean_house_has_no_violations(house):
    assert violations(house) == []
    assert strangers(house) == []


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        # upward, in every spelling
        ("models/x.py", "import bat_dist.training", "training"),
        ("models/x.py", "import bat_dist.training.loop as t", "training"),
        ("models/x.py", "from bat_dist.training.loop import fit", "training"),
        ("models/x.py", "from bat_dist import training", "training"),
        ("models/x.py", "from .. import training", "training"),
        ("models/x.py", "from ..training import loop", "training"),
        ("models/deep/x.py", "from ...training.loop import fit", "training"),
        ("models/x.py", "import os, bat_dist.training", "training"),
        ("models/x.py", "from bat_dist import __version__, training", "training"),
        ("models/x.py", "import importlib; importlib.import_module('bat_dist.training')", "training"),
        ("models/x.py", "__import__('bat_dist.training')", "training"),
        ("models/__init__.py", "from bat_dist.training import loop", "training"),
        # hidden
        ("models/x.py", "def f(): import bat_dist.training", "training"),
        ("models/x.py", "try: import bat_dist.training\nexcept ImportError: pass", "training"),
        ("models/x.py", "if TYPE_CHECKING: from bat_dist.training import loop", "training"),
        # each step of the order
        ("errors.py", "import bat_dist.config", "config"),
        ("config/x.py", "import bat_dist.models", "models"),
        ("settings/x.py", "import bat_dist.results", "results"),
        ("results/x.py", "import bat_dist.planning", "planning"),
        ("planning/x.py", "import bat_dist.workers", "workers"),
        ("workers/x.py", "import bat_dist.jobs", "jobs"),
        ("attacks/x.py", "import bat_dist.methods", "methods"),
        ("methods/x.py", "import bat_dist.training", "training"),
        ("training/x.py", "import bat_dist.workers", "workers"),
        ("training/x.py", "import bat_dist.reporting", "reporting"),
        ("jobs/x.py", "import bat_dist.memorize", "memorize"),
        ("jobs/x.py", "from bat_dist import memorize", "memorize"),
        ("jobs/x.py", "import bat_dist.cli", "cli"),
        ("jobs/x.py", "import bat_dist.api.scores", "api"),
        ("api/x.py", "import bat_dist.memorize", "memorize"),
        ("api/x.py", "import ray", "ray"),
        ("__init__.py", "from bat_dist.models import build", "models"),
        ("__init__.py", "from .config import parse", "config"),
        # neighbours
        ("workers/x.py", "import bat_dist.reporting", "reporting"),
        ("reporting/x.py", "import bat_dist.workers", "workers"),
        ("data/x.py", "import bat_dist.storage", "storage"),
        ("storage/x.py", "import bat_dist.data", "data"),
        ("methods/x.py", "import bat_dist.data", "data"),
        ("attacks/x.py", "import bat_dist.models", "models"),
        ("models/x.py", "import bat_dist.memorization", "memorization"),
        ("memorize.py", "import bat_dist.train", "train"),
        ("memorize.py", "import bat_dist.cli", "cli"),
        # the command line knows run files by name alone
        ("cli.py", "import bat_dist.memorize", "memorize"),
        ("cli.py", "import bat_dist.workers", "workers"),
        # libraries
        ("training/x.py", "import ray.train", "ray"),
        ("training/x.py", "def f(): from ray import train", "ray"),
        ("memorize.py", "import ray", "ray"),
        ("reporting/x.py", "import ray", "ray"),
        ("training/x.py", "from ffcv.loader import Loader", "ffcv"),
        ("jobs/x.py", "import ffcv", "ffcv"),
        ("memorization/x.py", "import matplotlib.pyplot as plt", "matplotlib"),
        ("jobs/x.py", "import plotly", "plotly"),
        ("memorize.py", "import jinja2", "jinja2"),
        ("memorization/x.py", "from torch import nn", "torch"),
        ("memorization/bit_products.py", "import torchvision", "torchvision"),
        ("settings/x.py", "import torchvision", "torchvision"),
        ("config/x.py", "import numpy as np", "numpy"),
        ("config/x.py", "import ray", "ray"),
        ("cli.py", "def f(): import torch", "torch"),
        ("__init__.py", "import torch", "torch"),
    ],
)
def test_a_planted_violation_is_found(house, file, source, found):
    (house / file).parent.mkdir(exist_ok=True)
    (house / file).write_text(source)
    assert violations(house) == [f"{file}:1 imports {found}"]


def test_a_violation_is_named_with_its_line(house):
    (house / "models/x.py").write_text("class C:\n    def f(self):\n        import ray, bat_dist.data\n")
    assert violations(house) == ["models/x.py:3 imports data", "models/x.py:3 imports ray"]


def test_a_room_without_a_layer_is_found(house):
    (house / "utils").mkdir()
    (house / "utils" / "x.py").write_text("import bat_dist.config\n")
    (house / "models" / "x.py").write_text("from bat_dist import utils\n")
    assert strangers(house) == ["utils"]
    assert violations(house) == ["models/x.py:1 imports utils"]


# --- 3: what is really loaded


HEAVY = ["torch", "numpy", "ray", "zarr", "ffcv", "matplotlib", "plotly", "jinja2"]


def loaded_by(code: str) -> set[str]:
    """Which heavy libraries a fresh process holds after some code; the code itself must print nothing."""
    report = f"import sys; sys.stderr.write(' '.join(m for m in {HEAVY} if m in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=PACKAGE.parent,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    unknown = set(ran.stderr.split()) - set(HEAVY)
    assert not unknown, ran.stderr
    return set(ran.stderr.split())


def modules_of(room: str) -> list[str]:
    files = sorted((PACKAGE / room).rglob("*.py"))
    names = [".".join([HOUSE, *f.relative_to(PACKAGE).with_suffix("").parts]) for f in files]
    return [name.removesuffix(".__init__") for name in names]


def import_code(modules: list[str]) -> str:
    return "\n".join(f"import {module}" for module in modules)


@pytest.mark.parametrize(
    "room", ["memorization", "models", "attacks", "methods", "training", "storage", "artifacts", "settings", "planning"]
)
def test_a_pure_room_loads_no_ray_ffcv_or_plots(room):
    loaded = loaded_by(import_code(modules_of(room)))
    assert not loaded & {"ray", "ffcv", "matplotlib", "plotly"}
    if room in ("memorization", "settings"):
        assert "torch" not in loaded


def test_settings_load_no_heavy_library():
    light = ["errors", "wording", "config", "program", "cli", "models.names", "data.table", "training.recipe"]
    asked = [name for name in modules_of("settings") if name != "bat_dist.settings.known"]  # which reads folders
    assert loaded_by(import_code([*(f"bat_dist.{name}" for name in light), *asked])) == set()


def test_the_package_and_the_functions_of_the_api_load_no_heavy_library():
    assert loaded_by("import bat_dist; assert 'bat_dist.config' not in __import__('sys').modules") == set()
    assert loaded_by("from bat_dist import memorize, train, evaluate, study, Scores, load_scores, Method") <= {"numpy"}


@pytest.mark.parametrize("verb", run_files(PACKAGE))
def test_help_answers_without_heavy_libraries(verb):
    verb = {file: verb for verb, file in FILES.items()}.get(verb, verb)
    code = (
        "import contextlib, io; from bat_dist.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    assert main(['help', '{verb}']) == 0\n"
        f"assert out.getvalue().startswith('usage: bat-dist {verb} ')"
    )
    assert loaded_by(code) == set()


def test_names_are_listed_without_heavy_libraries():
    code = (
        "import contextlib, io; from bat_dist.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    assert main(['list']) == main(['list', 'attacks', '--json']) == main(['help']) == 0"
    )
    assert loaded_by(code) == set()


def test_the_probe_sees_what_is_loaded():
    assert loaded_by("import numpy, jinja2") == {"numpy", "jinja2"}
