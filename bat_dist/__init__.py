"""Which training samples does a network memorize, and adversarial training that is not poisoned by them.

    from bat_dist import memorize, train, evaluate

    scores = memorize(Net, train_set, test_set, num_trials=100, out="scores")
    network = train(Net, train_set, test_set, method="bat", scores=scores, out="run")
    print(evaluate(network, images, labels, attacks=("clean", "pgd20")))

The names in `__all__` are the Python API; each is imported when it is first asked for, so that importing the package
starts, reads and prints nothing.  Everything else below `bat_dist` may change with any version.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bat_dist.api.attacks import autoattack, pgd
    from bat_dist.api.evaluate import evaluate
    from bat_dist.api.memorize import memorize
    from bat_dist.api.networks import load_model
    from bat_dist.api.scores import Scores, load_scores
    from bat_dist.api.study import study
    from bat_dist.api.train import Method, train

__version__ = "0.2.0"

__all__ = [
    "Method",
    "Scores",
    "autoattack",
    "evaluate",
    "load_model",
    "load_scores",
    "memorize",
    "pgd",
    "study",
    "train",
]

_MODULES = {
    **{name: name for name in ("evaluate", "memorize", "study", "train")},
    **{"Method": "train", "Scores": "scores", "load_scores": "scores", "load_model": "networks"},
    **{"autoattack": "attacks", "pgd": "attacks"},
}
"""In which module of `bat_dist.api` each name of the API is."""


class _Package(ModuleType):
    """The package, in which the names of the API are never anything else.

    `memorize`, `train`, `evaluate` and `study` are also files of this folder, the commands: `ray submit ...
    bat_dist/memorize.py` fixes where they are.  The import system binds each submodule, once it is imported, to its
    name in the package, where it would replace the function for the rest of the process, whoever imported it.  Here it
    does not.  The modules are in `sys.modules` as always: `from bat_dist.memorize import main` and `python -m
    bat_dist.memorize` work.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Cloudpickle knows modules by their exact type: a function that travels may refer to this one."""
        return importlib.import_module, (self.__name__,)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.api.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


sys.modules[__name__].__class__ = _Package
