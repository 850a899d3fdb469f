"""The list of planted faults (tests/mutants) keeps up with the tree; `make mutants` plants them."""

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.run import Fault, read_faults

ROOT = Path(__file__).parents[1]
FAULTS = read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_can_be_planted_and_its_tests_are_there(fault: Fault) -> None:
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
