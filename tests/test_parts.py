"""References to a user's own parts: which there are, what they import, and what their source is."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from ray.cloudpickle import cloudpickle

from bat_dist.errors import UserError
from bat_dist.parts import Own, check_reference, file_digest, files_of, is_reference, library_of, load_part, travelling


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("my.py:Net", None),
        ("../some folder/my.py:Net", None),
        ("package:Net", None),
        ("package.module:Net", None),
        ("timm:resnet18.a1_in1k", "timm"),
        ("torchvision:vgg11", "torchvision"),
    ],
)
def test_references(name: str, library: str | None) -> None:
    assert is_reference(name)
    assert library_of(name) == library


@pytest.mark.parametrize("name", ["resnet18", "wrn28-10", "auto", "my.py", "my.py:", ":Net", "a folder:Net", "1x:Net"])
def test_what_is_no_reference(name: str) -> None:
    assert not is_reference(name)


def test_the_form_is_checked_without_an_import(tmp_path: Path) -> None:
    file = tmp_path / "never_run.py"
    file.write_text("raise SystemExit('it was run')")
    assert check_reference(f"{file}:Net", what="arch") == f"{file}:Net"
    assert check_reference("no_such_package.of_mine:Net", what="arch")
    assert check_reference("nowhere.py:Net", what="arch")  # a worker on another machine need not have it
    with pytest.raises(UserError, match=r"there is no file nowhere.py to import the arch from"):
        load_part("nowhere.py:Net", what="arch")
    with pytest.raises(ValueError, match="'Net-2' is not a name in Python"):
        check_reference(f"{file}:Net-2", what="arch")


def test_the_source_is_of_the_file_and_what_it_imports_whatever_else_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "deep_of_parts.py").write_text("VALUE = 1\n")
    (tmp_path / "helper_of_parts.py").write_text("from deep_of_parts import VALUE\n")
    (tmp_path / "other_of_parts.py").write_text("VALUE = 2\n")
    file = tmp_path / "part.py"
    file.write_text(
        "def late():\n    import helper_of_parts\n\nimport helper_of_parts\nVALUE = helper_of_parts.VALUE\n"
    )
    first = load_part(f"{file}:VALUE", what="data")
    assert first.made == 1
    assert len(first.digest) == 12
    sys.path.insert(0, str(tmp_path))
    try:
        __import__("other_of_parts")
    finally:
        sys.path.remove(str(tmp_path))
    again = tmp_path / "again.py"  # another file with the same text, imported with more of its folder loaded
    again.write_text(file.read_text())
    assert load_part(f"{again}:VALUE", what="data").source == first.source
    (tmp_path / "deep_of_parts.py").write_text("VALUE = 3\n")
    changed = load_part(f"{file}:VALUE", what="data")
    assert (changed.made, changed.source != first.source) == (3, True)
    assert changed.digest == file_digest(file)


def test_packages_and_relative_imports_are_followed_and_nothing_is_run(tmp_path: Path) -> None:
    for name, text in {
        "main": "from layers.blocks import Block\nimport torch, json",
        "layers/__init__": "",
        "layers/blocks": "from . import wide\nfrom .deep.end import x\nraise SystemExit",
        "layers/wide": "import main, layers.deep.above",
        "layers/deep/__init__": "",
        "layers/deep/end": "from ..narrow import y",
        "layers/narrow": "not Python",
        "layers/deep/above": "if False:\n    from ...layers import z",
        "layers/unused": "",
        "other": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    found = [file.relative_to(tmp_path).with_suffix("").as_posix() for file in files_of(tmp_path / "main.py")]
    assert found == [
        *("main", "layers/__init__", "layers/blocks", "layers/deep/__init__", "layers/deep/above", "layers/deep/end"),
        *("layers/narrow", "layers/wide", "main"),
    ]


def test_an_unchanged_file_is_not_run_again(tmp_path: Path) -> None:
    file = tmp_path / "counted.py"
    file.write_text("class Net: pass\nOTHER = 1\n")
    assert load_part(f"{file}:Net", what="arch").made is load_part(f"{file}:Net", what="arch").made
    with pytest.raises(UserError, match=r"has no 'Nett'; did you mean Net?"):
        load_part(f"{file}:Nett", what="arch")


@pytest.fixture
def two_folders(tmp_path: Path) -> list[str]:
    """References to two files of one name, each with a package of one name beside it."""
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder / "layers_of_parts").mkdir(parents=True)
        (tmp_path / folder / "layers_of_parts/__init__.py").touch()
        (tmp_path / folder / "layers_of_parts/deep.py").write_text(f"def place():\n    return '{folder}'\n")
        file = tmp_path / folder / "twin_of_parts.py"
        file.write_text("from layers_of_parts import deep\n\ndef place():\n    return deep.place()\n")
        found.append(f"{file}:place")
    return found


def test_files_of_one_name_in_two_folders_are_told_apart(two_folders: list[str]) -> None:
    first, second, again = (load_part(two_folders[number], what="arch").made for number in (0, 1, 0))
    assert (first(), second(), again()) == ("a", "b", "a")
    assert again is first
    assert pickle.loads(pickle.dumps(first)) is first  # since its module is the one in sys.modules again


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 0), (0, 1, 0, 1)])
def test_files_of_one_name_in_two_folders_travel_both(
    order: tuple[int, ...], two_folders: list[str], tmp_path: Path
) -> None:
    made = [load_part(two_folders[number], what="arch").made for number in order]
    sent = travelling()
    for module in sent:
        cloudpickle.register_pickle_by_value(module)
    try:
        (tmp_path / "made.pkl").write_bytes(cloudpickle.dumps(made))
    finally:
        for module in sent:
            cloudpickle.unregister_pickle_by_value(module)
    program = "import pickle; print(*(one() for one in pickle.load(open('made.pkl', 'rb'))))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["ab"[number] for number in order], done.stderr


def test_a_changed_file_travels_after_another_of_its_folder_is_loaded_again(tmp_path: Path) -> None:
    for name in ("changing", "staying"):
        (tmp_path / f"{name}_of_parts.py").write_text("def made():\n    return 1\n")
        load_part(f"{tmp_path}/{name}_of_parts.py:made", what="arch")
    (tmp_path / "changing_of_parts.py").write_text("def made():\n    return 2\n")
    changed = load_part(f"{tmp_path}/changing_of_parts.py:made", what="arch")
    load_part(f"{tmp_path}/staying_of_parts.py:made", what="arch")
    assert sys.modules[changed.made.__module__] in travelling()
    assert sys.modules[changed.made.__module__].made is changed.made


def test_what_identities_say_of_a_part() -> None:
    part = Own()
    part.name, part.digest = "Net", "1a2b3c4d5e6f"
    assert str(part) == "Net 1a2b3c4d5e6f"
