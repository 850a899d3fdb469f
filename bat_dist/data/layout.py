"""Finding a dataset's folder: which zip is meant, and which folder in it holds `train`."""

from pathlib import Path

from bat_dist.data.archive import Archive, Children, FolderArchive
from bat_dist.data.table import DatasetError


def locate(data_dir: str | Path | None, dataset: str, zip_pattern: str, source: str) -> Path:
    """Find the data: `data_dir` itself, a zip or a folder, or else the one zip of that pattern in it."""
    if data_dir is None:
        raise DatasetError(f"{dataset} needs data_dir: the folder or the zip of {source}")
    path = Path(data_dir).expanduser()
    if not path.exists():
        raise DatasetError(f"data_dir {path} does not exist: give the folder or the zip of {source}")
    if not path.is_dir() or _roots(FolderArchive(path)):
        return path
    zips = sorted(found for found in path.glob(zip_pattern) if found.is_file())
    if len(zips) > 1:
        names = ", ".join(found.name for found in zips)
        raise DatasetError(f"data_dir {path} holds several zips ({names}): give the one that is meant")
    return zips[0] if zips else path


def find_root(archive: Archive, layout: str) -> str:
    """Return the prefix of the folder that holds `train`: "" or "top/"."""
    roots = _roots(archive)
    if len(roots) == 1:
        return roots[0]
    if not roots:
        top = describe(archive.children(""))
        raise DatasetError(f"{archive.location}: expected {layout}; found no folder train, but {top}")
    raise DatasetError(
        f"{archive.location}: expected {layout}; found a folder train in several places: {', '.join(roots)}"
    )


def describe(children: Children, most: int = 6) -> str:
    """Say what lies in a folder, for messages."""
    names = [f"{name}/" for name in children.folders] + list(children.files)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"


def _roots(archive: Archive) -> list[str]:
    """Prefixes under which a folder `train` lies; the top itself goes before what is inside it."""
    top = archive.children("").folders
    if "train" in top:
        return [""]
    return [f"{name}/" for name in top if "train" in archive.children(name).folders]
