"""How large the pieces of the package are.  A number that may only fall is lowered here by whoever makes it fall."""

import ast
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "bat_dist"
Function = ast.FunctionDef | ast.AsyncFunctionDef

LARGEST_ROOM = 0.12  # of all lines
LONGEST_FILE = 300  # lines
LONGEST_FUNCTION = 60  # lines
MEDIAN_FUNCTION, NINE_OF_TEN_FUNCTIONS = 9, 25
ONE_USE_HELPERS = 8  # private functions that their file uses once, by 1,000 lines


@cache
def sources() -> Mapping[str, str]:
    return {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def trees() -> Mapping[str, ast.Module]:
    return {name: ast.parse(text) for name, text in sources().items()}


def num_lines(text: str) -> int:
    return text.count("\n")


def functions() -> Iterator[tuple[str, Function]]:
    for name, tree in trees().items():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def test_no_room_is_large() -> None:
    rooms = Counter[str]()
    for name, text in sources().items():
        rooms[name.partition("/")[0] if "/" in name else "the top level"] += num_lines(text)
    room, most = rooms.most_common(1)[0]
    assert most / rooms.total() <= LARGEST_ROOM, room


def test_no_file_is_long() -> None:
    assert not {name: lines for name, text in sources().items() if (lines := num_lines(text)) > LONGEST_FILE}


def test_functions_are_short() -> None:
    lengths = sorted((length(function), f"{name}: {function.name}") for name, function in functions())
    assert lengths[-1][0] <= LONGEST_FUNCTION, lengths[-1]
    assert statistics.median(lines for lines, _ in lengths) <= MEDIAN_FUNCTION
    assert lengths[int(0.9 * len(lengths))][0] <= NINE_OF_TEN_FUNCTIONS


def test_few_private_functions_are_used_once() -> None:
    once = []
    for name, function in functions():
        is_private = function.name.startswith("_") and not function.name.startswith("__")
        if is_private and len(re.findall(rf"\b{function.name}\b", sources()[name])) == 2:
            once.append(f"{name}: {function.name}")
    assert 1000 * len(once) / sum(map(num_lines, sources().values())) <= ONE_USE_HELPERS


def test_each_class_name_has_one_owner() -> None:
    owners = defaultdict(list)
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                owners[node.name].append(name)
    assert not {name: files for name, files in owners.items() if len(files) > 1}


def test_no_public_function_speaks_of_untyped_documents() -> None:
    untyped = []
    for name, function in functions():
        arguments = [*function.args.args, *function.args.kwonlyargs]
        hints = [function.returns, *(argument.annotation for argument in arguments)]
        if not function.name.startswith("_") and any("dict[str, Any]" in ast.unparse(hint) for hint in hints if hint):
            untyped.append(f"{name}: {function.name}")
    assert not untyped
