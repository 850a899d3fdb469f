"""Parts of the user's own, named on the command line: a network, a method or a data set of a file or a package.

`FILE.py:NAME` or `package.module:NAME`. Imports the standard library alone, so that settings are checked fast.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from bat_dist.errors import UserError
from bat_dist.wording import nearest

LIBRARIES = ("timm", "torchvision")
"""`timm:NAME` and `torchvision:NAME` are networks by the names that these libraries list, not attributes of theirs."""

DIGITS = 12
"""Of a digest, as identities have it."""

_MODULE = "_model_"  # how modules of files are named: digests of evaluations that are on disk hold it


class Part(NamedTuple):
    """What a reference names: `made`, a class, a function or an object, as its module has it.

    modules: the user's own files in that folder, which other machines do not have. source: sha256 of the text of the
    file and of those among them that it imports. Both are empty for a module of an installed package.
    """

    made: Any
    modules: tuple[ModuleType, ...]
    source: str

    @property
    def digest(self) -> str:
        """What identities have: the beginning of `source`; of a package, that of the file that defines `made`."""
        return (self.source or _file_digest(self.made))[:DIGITS]


_imported: dict[Path, Part] = {}  # by file; `made` is its module
_travelling: dict[ModuleType, None] = {}  # not by name: files of several folders may have one


class Own:
    """A part of the user's own that settings may hold instead of its name, once it is imported.

    `str` gives what identities, tables and checkpoints say of it: `Net 1a2b3c4d5e6f`.
    """

    name: str
    digest: str
    reference: str  # what it was imported from, as it was given; "" if it was passed as an object

    def __str__(self) -> str:
        return f"{self.name} {self.digest}"


def is_reference(name: str) -> bool:
    """Is it of the form FILE.py:NAME or package.module:NAME, `timm:NAME` and `torchvision:NAME` included?"""
    where, _, attribute = name.rpartition(":")
    return attribute != "" and (where.endswith(".py") or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", where) is not None)


def library_of(reference: str) -> str | None:
    """`timm` or `torchvision`, if the reference names a network of one of them."""
    library = reference.partition(":")[0]
    return library if library in LIBRARIES else None


def check_reference(reference: str, *, what: str) -> str:
    """The reference, if it has the form of one; else ValueError.  Imports nothing.

    Whether its file is there is seen by `load_part`: workers on other machines read settings too, and need no file,
    since what was imported from it comes to them from the driver.
    what: the setting, for messages.
    """
    _, _, name = reference.rpartition(":")
    if not is_reference(reference):
        raise ValueError(f"{what} must be FILE.py:NAME or package.module:NAME")
    if not library_of(reference) and not name.isidentifier():
        raise ValueError(f"{name!r} is not a name in Python")
    return reference


def whole_reference(reference: str) -> str:
    """The reference with its file, if it has one, by the whole path: another process may be in another folder."""
    where, colon, name = reference.rpartition(":")
    return f"{Path(where).resolve()}{colon}{name}" if where.endswith(".py") else reference


def load_part(reference: str, *, what: str) -> Part:
    """Import what FILE.py:NAME or package.module:NAME names; `NAME` is not called.

    what: the setting, for messages: `--model`. Raises UserError if there is no such file, module or name, or if the
    import fails.
    """
    where, colon, name = reference.rpartition(":")
    if not colon or not name:
        raise UserError(f"{what} {reference!r} must be FILE.py:NAME or package.module:NAME")
    if where.endswith(".py"):
        if not Path(where).is_file():
            raise UserError(f"there is no file {where} to import the {what.removeprefix('--')} from")
        part = _import_file(Path(where))
        travel(part.modules)
    else:
        part = Part(_importing(where, lambda: importlib.import_module(where)), (), "")
    if not hasattr(part.made, name):
        names = [key for key, value in vars(part.made).items() if callable(value)]
        raise UserError(f"{where} has no {name!r}{nearest(name, names)}")
    return part._replace(made=getattr(part.made, name))


def travel(modules: Iterable[ModuleType]) -> None:
    """Have these modules sent to the workers of every job of this process: they have no such files."""
    _travelling.update(dict.fromkeys(modules))


def travelling() -> list[ModuleType]:
    """The modules that workers are to be sent.

    Those that others of their names have replaced are not among them: what they define is pickled by value anyway.
    """
    return [module for module in _travelling if sys.modules.get(module.__name__) is module]


def modules_in(folder: Path) -> tuple[ModuleType, ...]:
    """The loaded modules that are files of the user's in this folder or below it, by name."""
    return tuple(m for _, m in sorted(sys.modules.items()) if isinstance(m, ModuleType) and _lies_in(m, folder))


def modules_of(made: Any) -> tuple[ModuleType, ...]:
    """The user's own files in the folder of the one that defines a class or function, itself among them.

    None if an installed package or a notebook defines it.
    """
    module = sys.modules.get(getattr(made, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    return modules_in(Path(file).resolve().parent) if file else ()


def file_digest(path: Path) -> str:
    """The digest of what `load_part` imports from the file, which is not run."""
    return source_of(files_of(path.resolve()))[:DIGITS]


def _file_digest(made: Any) -> str:
    try:
        file = inspect.getfile(made if inspect.isclass(made) or inspect.isroutine(made) else type(made))
        return sha256(Path(file).read_bytes()).hexdigest()
    except (OSError, TypeError):  # a built-in one
        return sha256(repr(made).encode()).hexdigest()


def files_of(path: Path) -> tuple[Path, ...]:
    """The file, and those of its folder that its import statements lead to, and theirs; nothing is run.

    What else of the folder happens to be loaded does not count: it differs from program to program.
    """
    found, left = dict[str, Path](), [(_name_of(path), path)]
    while left:
        name, file = left.pop()
        if name in found or name.partition(".")[0] == "bat_dist":
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for imported in _names_imported_by(file, package):
            place = path.parent.joinpath(*imported.split("."))
            files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
            left += [(imported, one) for one in files if one.is_file()]
    return tuple(found[name] for name in sorted(found))


def source_of(files: Iterable[Path]) -> str:
    """The sha256 of the text of these files, in this order."""
    return sha256(b"\0".join(map(Path.read_bytes, files))).hexdigest()


def _names_imported_by(file: Path, package: str) -> Iterator[str]:
    """The names of modules in its import statements; `from a import b` may name the module a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # whoever imports it will say so
        return
    for node in ast.walk(tree):
        names = list[str]()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = "." * node.level + (node.module or "")
            try:
                base = importlib.util.resolve_name(base, package) if node.level else base
            except ImportError:  # above the top: if it is ever run, Python says so
                continue
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def _import_file(path: Path) -> Part:
    """The module of the file.  One that is unchanged, as are those that it imports, is not run again."""
    path = path.resolve()
    files = files_of(path)
    source, folder = source_of(files), path.parent
    if known := _imported.get(path):
        if known.source == source:
            _make_room_for_files_of(folder)  # those of another folder may have been imported since
            for one in known.modules:
                if Path(str(one.__file__)).resolve() in files:
                    sys.modules.setdefault(one.__name__, one)
            sys.modules[known.made.__name__] = known.made
            return known
        for one in known.modules:  # or the old text of a file that it imports would go by the new one's digest
            if Path(str(one.__file__)).resolve() in files and sys.modules.get(one.__name__) is one:
                del sys.modules[one.__name__]
    name = _name_of(path)
    _make_room_for_files_of(folder)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(folder))
    try:
        _importing(str(path), lambda: spec.loader.exec_module(module))  # pyright: ignore[reportOptionalMemberAccess]
    finally:
        sys.path.remove(str(folder))
    _imported[path] = Part(module, modules_in(folder), source)
    return _imported[path]


def _make_room_for_files_of(folder: Path) -> None:
    """Forget the user's modules of other folders that have the names of files in this one: its own are meant here."""
    for name, module in list(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        if not isinstance(file, str) or top in ("bat_dist", "__main__"):
            continue
        place = folder.joinpath(*name.split("."))  # of a package's module too
        is_meant = Path(file) in (place.with_name(f"{place.name}.py"), place / "__init__.py")
        own = (folder / f"{top}.py", folder / top / "__init__.py")
        if not is_meant and any(map(Path.is_file, own)) and is_file_of_user(Path(file)):
            del sys.modules[name]


def _name_of(path: Path) -> str:
    """What the module of a file that is named by its path is called."""
    return f"{_MODULE}{path.stem}"


def is_file_of_user(path: Path) -> bool:
    """Is there such a file, which no installation has put there?"""
    if not path.is_absolute() or not path.is_file():
        return False  # relative are those that PyTorch makes up: `_classes.py`
    path = path.resolve()
    installed = (Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return "site-packages" not in path.parts and not any(path.is_relative_to(library) for library in installed)


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether the module is a file of the user's there, not a library, although the folder may hold all of Python."""
    file, top = getattr(module, "__file__", None), module.__name__.partition(".")[0]
    if not isinstance(file, str) or top in ("bat_dist", "__main__"):
        return False
    return is_file_of_user(Path(file)) and Path(file).resolve().is_relative_to(folder)


def _importing(what: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        raise UserError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
