"""What set-up installs: every pin has its hashes, and every dependency of the package its pin."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNHASHED = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")  # they come from an index of their own, by machine


def pins(file: str) -> dict[str, str]:
    """Name -> version."""
    found = re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / file).read_text())
    return {re.sub(r"[_.]", "-", name).lower(): version for name, version in found}


def test_every_pin_has_its_hashes_and_no_other_version() -> None:
    pinned, hashed = pins("constraints.txt"), pins(".ci/hashes.txt") | pins(".ci/bench.txt")
    assert {name: version for name, version in pinned.items() if not UNHASHED.fullmatch(name)} == hashed
    blocks = [
        block
        for file in (".ci/hashes.txt", ".ci/bench.txt", ".ci/uv.txt")
        for block in re.split(r"(?m)^(?=\w)", (ROOT / file).read_text())
    ]
    assert all("--hash=sha256:" in block for block in blocks if block)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(word for extra in project["optional-dependencies"].values() for word in extra),
    ]
    names = {re.split(r"[\[<>=~ ]", word)[0].lower().replace("_", "-") for word in wanted} - {"bat-dist"}
    assert names <= pins("constraints.txt").keys()
