"""The list of planted faults (tests/mutants) keeps up with the tree; `make mutants` plants them."""

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def mutants() -> Any:
    """tests/mutants/run.py as a module."""
    spec = importlib.util.spec_from_file_location("mutants_run", ROOT / "tests/mutants/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAULTS = mutants().read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_can_be_planted_and_its_tests_are_there(fault: Any) -> None:
    text = (ROOT / fault.file).read_text()
    assert fault.planted(text) != text
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{test} does not exist"


def test_faults_have_names_of_their_own_and_are_in_every_room() -> None:
    assert [name for name, count in Counter(fault.id for fault in FAULTS).items() if count > 1] == []
    rooms = Counter(Path(fault.file).parts[1] for fault in FAULTS)
    without = {path.parent.name for path in (ROOT / "bat_dist").glob("*/__init__.py")} - rooms.keys()
    assert without == set()
