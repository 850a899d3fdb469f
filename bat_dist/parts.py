"""Parts of the user's own, named on the command line: a network, a method or a data set of a file or a package.

`FILE.py:NAME` or `package.module:NAME`. Imports the standard library alone, so that settings are checked fast.
"""

import importlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from bat_dist.errors import UserError
from bat_dist.wording import nearest

LIBRARIES = ("timm", "torchvision")
"""`timm:NAME` and `torchvision:NAME` are networks by the names that these libraries list, not attributes of theirs."""

_MODULE = "_model_"  # how modules of files are named: digests of evaluations that are on disk hold it
_imported: dict[Path, tuple[str, tuple[ModuleType, ...]]] = {}  # by file: the source, and the modules, of its import


class Part(NamedTuple):
    """What a reference names: `made`, a class, a function or an object, as its module has it.

    modules: the user's own files, which other machines do not have. source: sha256 of these files' text; both are empty
    for a module of an installed package.
    """

    made: Any
    modules: tuple[ModuleType, ...]
    source: str


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
    """The reference, if it has the form of one and its file is there; else ValueError.  Imports nothing."""
    where, _, name = reference.rpartition(":")
    if not is_reference(reference):
        raise ValueError(f"{what} {reference!r} must be FILE.py:NAME or package.module:NAME")
    if where.endswith(".py") and not Path(where).is_file():
        raise ValueError(f"{what} {reference!r}: {where} does not exist")
    if not library_of(reference) and not name.isidentifier():
        raise ValueError(f"{what} {reference!r}: {name!r} is no name that Python knows")
    return reference


def load_part(reference: str, *, what: str) -> Part:
    """Import what FILE.py:NAME or package.module:NAME names; `NAME` is not called.

    what: the setting, for messages: `--model`. Raises UserError if there is no such file, module or name, or if the
    import fails.
    """
    where, colon, name = reference.rpartition(":")
    if not colon or not name:
        raise UserError(f"{what} {reference!r} must be FILE.py:NAME or package.module:NAME")
    modules, source = (), ""
    if where.endswith(".py"):
        module, modules, source = _import_file(Path(where))
    else:
        module = _importing(where, lambda: importlib.import_module(where))
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(f"{where} has no {name!r}{nearest(name, names)}")
    return Part(getattr(module, name), modules, source)


def modules_in(folder: Path) -> tuple[ModuleType, ...]:
    """The loaded modules that are files of the user's in this folder or below it, by name."""
    return tuple(m for _, m in sorted(sys.modules.items()) if isinstance(m, ModuleType) and _lies_in(m, folder))


def source_of(modules: Iterable[ModuleType]) -> str:
    """The sha256 of the text of these modules' files, in this order."""
    return sha256(b"\0".join(Path(str(m.__file__)).read_bytes() for m in modules)).hexdigest()


def _import_file(path: Path) -> tuple[ModuleType, tuple[ModuleType, ...], str]:
    """Import the file; return its module, all modules of its folder that are loaded then, and their source.

    A file that is unchanged, as are those that it imported, is not run again.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    path = path.resolve()
    name, folder = f"{_MODULE}{path.stem}", path.parent
    if path in _imported:
        source, modules = _imported[path]
        if all(Path(str(m.__file__)).is_file() for m in modules) and source_of(modules) == source:
            return next(m for m in modules if Path(str(m.__file__)).resolve() == path), modules, source
        for module in modules:  # or the old text of a file that it imports would go by the new one's digest
            sys.modules.pop(module.__name__, None)
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
    modules = modules_in(folder)
    _imported[path] = source_of(modules), modules
    return module, modules, _imported[path][0]


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether the module is a file of the user's there, not a library, although the folder may hold all of Python."""
    file, top = getattr(module, "__file__", None), module.__name__.partition(".")[0]
    if not isinstance(file, str) or top in ("bat_dist", "__main__"):
        return False
    path = Path(file)
    if not path.is_absolute() or not path.is_file():  # as those that PyTorch makes up: `_classes.py`
        return False
    path = path.resolve()
    if not path.is_relative_to(folder) or "site-packages" in path.parts:
        return False
    installed = (Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return not any(path.is_relative_to(library) for library in installed)


def _importing(what: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        raise UserError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
