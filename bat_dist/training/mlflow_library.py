"""MLflow as we import it: optional, and without its telemetry."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

from bat_dist.errors import UserError, installing


def import_mlflow() -> ModuleType:
    """MLflow, its telemetry off in this process; the environment is afterwards as it was.

    MLflow decides when it is imported, by the environment; if it was imported before, it is made to decide again.
    Raises UserError with the way out.
    """
    try:
        with environment({"MLFLOW_DISABLE_TELEMETRY": "true"}):
            import mlflow
            import mlflow.telemetry
            import mlflow.utils.validation

            mlflow.telemetry.set_telemetry_client()
    except ImportError as error:
        raise UserError(
            f"MLflow cannot be imported ({error}): {installing('mlflow')}, or leave that tracker out"
        ) from error
    return mlflow


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment for the time of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
