"""One training run as one run of Weights & Biases, in the project `WANDB_PROJECT`, else "bat-dist".

`WANDB_MODE` says whether it is sent (online) or kept in `<out>/wandb` (offline) for `wandb sync`. Without it the run is
sent where W&B has a key (`WANDB_API_KEY`, or what `wandb login` has left in the netrc file), and kept otherwise; nobody
is asked for a key. Only settings and numbers are logged: no code, no console, no measurements of the machine.
"""

import logging
import netrc
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from bat_dist.errors import UserError, installing
from bat_dist.storage.files import Folder
from bat_dist.training.files import WANDB_RECORD, read_history
from bat_dist.training.mlflow_library import environment
from bat_dist.training.mlflow_tracker import present

HOST = "https://api.wandb.ai"
_QUIET = {"silent": True, "console": "off", "disable_git": True, "save_code": False}
_QUIET |= {"x_disable_stats": True, "x_disable_meta": True, "reinit": "create_new"}

log = logging.getLogger(__name__)


class WandbTracker:
    """A run of W&B: settings are its config, numbers its history with the epoch as step.

    Continues the run of `<out>/wandb_run.json`; a new one is begun if there is none, or if the training starts anew
    (`first_epoch` 1) with other settings. W&B writes and sends in the background, so that it loses what it had when a
    process is killed. So the file says what it has kept for certain, and the next process logs the rest anew, from
    `history.csv`; offline, what the killed process has left of its files is removed for that.
    W&B tries again by itself; what goes wrong while the training goes on does not end it.
    """

    def __init__(self, folder: Folder, settings: Mapping[str, str], run_name: str, first_epoch: int):
        wandb, place = import_wandb(), wandb_dir(folder)
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        record = folder.read_json(WANDB_RECORD) if folder.exists(WANDB_RECORD) else None
        if record is None or (first_epoch == 1 and record["settings"] != settings):
            record = {"run_id": secrets.token_hex(8), "settings": dict(settings), "kept": 0, "unfinished": None}
        if record["unfinished"] and mode == "offline":
            shutil.rmtree(Path(place, "wandb", record["unfinished"]), ignore_errors=True)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "bat-dist",
                id=record["run_id"],
                name=run_name,
                dir=place,
                config=dict(settings),
                mode=mode,
                resume="allow",
                allow_val_change=True,
                settings=wandb.Settings(**_QUIET),
            )
        except wandb.Error as error:
            raise UserError(f"W&B cannot be used (WANDB_MODE=offline does without its server): {error}") from error
        self._last = max(record["kept"], self._run.step - 1)  # online, the server knows the next step
        self._folder, self._record = (
            folder,
            {**record, "kept": self._last, "unfinished": Path(self._run.dir).parent.name},
        )
        folder.write_json(WANDB_RECORD, self._record)
        for row in read_history(folder):
            if (epoch := int(row["epoch"] or 0)) < first_epoch:
                self.log(epoch, {name: value for name, value in row.items() if name != "epoch"})

    def log(self, epoch: int, values: Mapping[str, float | None]) -> None:
        """Log the numbers of one epoch, see `trackers.Tracker`; one that the run already has is left out."""
        if epoch <= self._last:
            return
        self._last = epoch
        try:
            self._run.log(present(values), step=epoch, commit=True)
        except Exception as error:  # whatever it is, the training matters more
            log.warning("W&B did not take epoch %d: %s", epoch, error)

    def close(self) -> None:
        """The run is finished, and all of it written or sent."""
        try:
            self._run.finish()
        except Exception as error:  # whatever it is, the training matters more
            log.warning("W&B's run %s could not be finished: %s", self._record["run_id"], error)
            return
        self._folder.write_json(WANDB_RECORD, {**self._record, "kept": self._last, "unfinished": None})


def import_wandb() -> ModuleType:
    """W&B, without its reports of errors unless WANDB_ERROR_REPORTING asks for them.

    Raises UserError with the way out.
    """
    try:
        with environment({"WANDB_ERROR_REPORTING": os.environ.get("WANDB_ERROR_REPORTING", "false")}):
            import wandb
    except ImportError as error:
        raise UserError(
            f"W&B cannot be imported ({error}): {installing('wandb')}, or leave that tracker out"
        ) from error
    return wandb


def wandb_dir(folder: Folder) -> str:
    """Where W&B writes its own files.  Raises UserError for a remote folder without WANDB_DIR."""
    if named := os.environ.get("WANDB_DIR"):
        return named
    if folder.local_path is None:
        raise UserError(f"W&B's own files cannot be in {folder}: set WANDB_DIR to a local folder")
    return str(folder.local_path.absolute())


def has_key() -> bool:
    """Whether W&B finds a key for its server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or HOST).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
