"""Where a training run's numbers go beside its own files: TensorBoard, MLflow and W&B.

All are optional packages, imported when a tracker is opened; only rank 0 opens them. Nothing is sent anywhere but
to the tracking server that the user has named or logged in to. `mlflow_tracker` and `wandb_tracker` say how these are
found and what a run becomes there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bat_dist.errors import UserError, installing
from bat_dist.storage.files import Folder
from bat_dist.training.mlflow_library import import_mlflow
from bat_dist.training.mlflow_tracker import MlflowTracker, present
from bat_dist.training.wandb_tracker import WandbTracker, import_wandb, wandb_dir
from bat_dist.wording import nearest

TRACKERS = ("tensorboard", "mlflow", "wandb")


class Tracker(Protocol):
    """Takes one row of numbers per epoch, from `first_epoch` on; each row is safe when `log` returns."""

    def log(self, epoch: int, values: Mapping[str, float | None]) -> None:
        """The numbers of one epoch, counted from 1, to be called once for each; None and NaN are left out."""
        ...

    def close(self) -> None:
        """The run is done.  One that is killed before is continued by the next `open_trackers`."""
        ...


def open_trackers(
    names: Sequence[str], *, out: str, settings: Mapping[str, Any], run_name: str, first_epoch: int
) -> list[Tracker]:
    """A tracker for each name, in the order of TRACKERS, showing `settings` and writing below the folder `out`.

    `first_epoch` is the first that will be logged: 1, or in a resumed run the one after its checkpoint. What a
    killed run had logged beyond its checkpoint does not appear twice: TensorBoard drops it, MLflow and W&B keep it
    and leave out the second logging.

    Raises ValueError for an unknown name, and UserError for a missing package, a remote `out` that a tracker
    cannot write to, or an MLflow that does not answer; packages are looked for before anything is written.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}: one of {', '.join(TRACKERS)}{nearest(name, TRACKERS)}")
    folder, flat = Folder(out), flatten(settings)
    if "tensorboard" in names:
        _import_summary_writer()
        if folder.local_path is None:
            raise UserError(
                f"TensorBoard appends to its files, which {out} cannot: use a local --out, or mlflow with "
                "MLFLOW_TRACKING_URI set"
            )
    if "mlflow" in names:
        import_mlflow()
    if "wandb" in names:
        wandb_dir(folder)
        import_wandb()
    folder.create()
    trackers: list[Tracker] = []
    try:
        if "tensorboard" in names:
            trackers.append(_TensorBoard(folder, flat, first_epoch))
        if "mlflow" in names:
            trackers.append(MlflowTracker(folder, flat, run_name, first_epoch))
        if "wandb" in names:
            trackers.append(WandbTracker(folder, flat, run_name, first_epoch))
    except BaseException:
        for tracker in trackers:
            tracker.close()
        raise
    return trackers


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text, an inner mapping's under `outer.inner`."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": str(value)}
    return flat


class _TensorBoard:
    """Event files in `<out>/tensorboard`: a scalar per value, and the settings as text at `first_epoch`."""

    def __init__(self, folder: Folder, settings: Mapping[str, str], first_epoch: int):
        logdir = str((folder / "tensorboard").local_path)
        # The step is a mark in the new file; readers then drop what older files hold from that epoch on.
        self._writer = _import_summary_writer()(logdir, purge_step=first_epoch)
        text = "\n".join(f"    {name}: {value}" for name, value in settings.items())  # Markdown for "as it is"
        self._writer.add_text("settings", text, first_epoch)
        self._writer.flush()

    def log(self, epoch: int, values: Mapping[str, float | None]) -> None:
        for name, value in present(values).items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _import_summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            f"TensorBoard cannot be imported ({error}): {installing('tensorboard')}, or leave that tracker out"
        ) from error
    return SummaryWriter
