"""An exported network, or exported scores, on the Hugging Face Hub: to it here, from it by fsspec.

A network is `hf://USER/NAME` there, scores are `hf://datasets/USER/NAME`.

The token is the library's own (`HF_TOKEN`, or what `hf auth login` has left), and is neither read nor shown here. The
server is that of `HF_ENDPOINT`, else huggingface.co.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Literal

from bat_dist.artifacts.export import CARD, CONFIG, EXPORTED, MODEL_INFO, ONNX
from bat_dist.errors import RunError, UserError, installing
from bat_dist.storage.files import Folder

OURS = (EXPORTED, CONFIG, CARD, MODEL_INFO, ONNX)


def check_can_push(folder: Folder) -> None:
    """Raise UserError if what is exported to this folder cannot be put on the Hub, as far as one can know."""
    hub = _import_hub()
    if folder.local_path is None:
        raise UserError(f"what is put on the Hub is exported to this machine first, and {folder} is not: a local --out")
    if hub.get_token() is None:
        raise UserError("the Hub asks who you are: run `hf auth login`, or set HF_TOKEN, with a token that may write")


def push(
    folder: Folder, repository: str, files: Sequence[str] = OURS, kind: Literal["model", "dataset"] = "model"
) -> str:
    """Put the files of an export in a local folder into a repository USER/NAME of that kind; returns its address.

    A repository that is not there is made, private: whoever has read the card can make it public on the Hub. Files of
    an earlier export are replaced in one commit, and others are kept.
    Raises UserError if the Hub refuses, RunError if it does not answer.
    """
    hub = _import_hub()
    try:
        api = hub.HfApi()
        address = api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type=kind,
            folder_path=str(folder.local_path),
            allow_patterns=list(files),
            delete_patterns=list(files),  # an ONNX file of an earlier export is of another network
            commit_message=f"{'Network' if kind == 'model' else 'Scores'} exported by bat_dist",
        )
    except hub.errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", "no status")
        said = getattr(error, "server_message", None) or str(error).splitlines()[0]
        raise UserError(f"the Hub refuses {repository}: {said} ({status}): may your token write there?") from None
    except OSError as error:
        raise RunError(
            f"the Hub does not answer ({type(error).__name__}: {error}); the export is in {folder}"
        ) from error
    except Exception as error:  # its client's library has changed its exceptions before
        raise RunError(f"{repository} cannot be put on the Hub ({type(error).__name__}: {error})") from error
    return str(address)


def _import_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise UserError(f"--push needs huggingface_hub ({error}): {installing('hf')}") from None
    return huggingface_hub
