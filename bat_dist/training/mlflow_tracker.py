"""One training run as one run of MLflow, through its client alone: no active run, no autologging, no telemetry.

It goes to `MLFLOW_TRACKING_URI`, else to MLflow's file store in `<out>/mlruns`, and there to the experiment
`MLFLOW_EXPERIMENT_NAME`, else "bat-dist". The file store is the one local store that mlflow-skinny has by itself
(SQLite needs SQLAlchemy and Alembic). MLflow 3 maintains it no more and refuses it unless MLFLOW_ALLOW_FILE_STORE
is true: we say so for our own folder, and to look at it one says
`MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri <out>/mlruns` (from the full package `mlflow`).
"""

import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.training.mlflow_library import environment, import_mlflow

RECORD = "mlflow_run.json"  # in the result folder: the run's id, and its params as they were given

log = logging.getLogger(__name__)


class MlflowTracker:
    """A run of MLflow: settings are its params, numbers its metrics with the epoch as step.

    Continues the run of `<out>/mlflow_run.json`. A new one is begun if that is not there any more, or if the
    training starts anew (`first_epoch` 1) with other settings. A param once logged stays, as MLflow wants it.

    A store that fails while the training goes on does not end it: the numbers are kept and sent again with the
    next epoch's. How long each attempt may take is MLflow's MLFLOW_HTTP_REQUEST_MAX_RETRIES and ..._TIMEOUT.
    """

    def __init__(self, folder: Folder, settings: Mapping[str, str], run_name: str, first_epoch: int):
        self._mlflow = mlflow = import_mlflow()
        uri, env = os.environ.get("MLFLOW_TRACKING_URI"), {}
        if not uri:
            if folder.local_path is None:
                raise UserError(f"MLflow's own files cannot be in {folder}: set MLFLOW_TRACKING_URI to its server")
            uri, env = (folder.local_path / "mlruns").as_uri(), {"MLFLOW_ALLOW_FILE_STORE": "true"}
        limit = mlflow.utils.validation.MAX_PARAM_VAL_LENGTH
        params = {
            name: value if len(value) <= limit else value[: limit - 3] + "..." for name, value in settings.items()
        }
        try:
            with environment(env):
                self._client = mlflow.MlflowClient(tracking_uri=uri)
            run = self._run_of(folder, params, first_epoch) or self._new_run(folder, params, run_name)
            self._run_id = run.info.run_id
            new = [mlflow.entities.Param(*param) for param in params.items() if param[0] not in run.data.params]
            self._client.log_batch(self._run_id, params=new, synchronous=True)
            self._logged = {
                (metric.key, metric.step)
                for name in run.data.metrics
                for metric in self._client.get_metric_history(self._run_id, name)
            }
        except mlflow.MlflowException as error:
            raise UserError(f"MLflow cannot be used (is MLFLOW_TRACKING_URI right?): {error}") from error
        self._unsent: list[Any] = []

    def log(self, epoch: int, values: Mapping[str, float | None]) -> None:
        """Log the numbers of one epoch, see `trackers.Tracker`; what the run already has is left out."""
        now = int(time.time() * 1000)
        for name, value in present(values).items():
            if (name, epoch) not in self._logged:
                self._unsent.append(self._mlflow.entities.Metric(name, value, now, epoch))
        self._send()

    def close(self) -> None:
        """The run is finished."""
        self._send()
        try:
            self._client.set_terminated(self._run_id)
        except Exception as error:  # whatever it is, the training matters more
            log.warning("MLflow's run %s could not be marked as finished: %s", self._run_id, error)

    def _send(self) -> None:
        try:
            self._client.log_batch(self._run_id, metrics=self._unsent, synchronous=True)
            self._unsent = []
        except Exception as error:  # whatever it is, the training matters more
            log.warning("MLflow did not take %d values, they are tried again: %s", len(self._unsent), error)

    def _run_of(self, folder: Folder, params: dict[str, str], first_epoch: int) -> Any:
        """The run begun for this folder, set running again, or None if a new one is to be made."""
        record = folder.read_json(RECORD) if folder.exists(RECORD) else None
        if record is None or (first_epoch == 1 and record["params"] != params):
            return None
        try:
            run = self._client.get_run(record["run_id"])
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":
            return None
        self._client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _new_run(self, folder: Folder, params: dict[str, str], run_name: str) -> Any:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "bat-dist"
        if (experiment := self._client.get_experiment_by_name(name)) is None:
            try:
                self._client.create_experiment(name)
            except self._mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was faster
                    raise
            experiment = self._client.get_experiment_by_name(name)
        run = self._client.create_run(experiment.experiment_id, run_name=run_name)
        folder.write_json(RECORD, {"run_id": run.info.run_id, "params": params})
        return run


def present(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values that are numbers: neither None nor NaN."""
    return {name: float(value) for name, value in values.items() if value is not None and not math.isnan(value)}
